package push

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
)

// opcode is that of DNS Stateful Operations (RFC 8490 section 5.4).
const opcode = 6

// The types of TLVs (RFC 8490 section 7, RFC 8765 section 6).
const (
	typeRetryDelay  = 0x0000
	typeKeepalive   = 0x0001
	typeSubscribe   = 0x0040
	typePush        = 0x0041
	typeUnsubscribe = 0x0042
	typeReconfirm   = 0x0043
)

// Response codes (RFC 8490 section 5.2, RFC 8765 section 6.2.2).
const (
	codeOK       = 0
	codeFormErr  = 1
	codeServFail = 2
	codeNotImp   = 4
	codeRefused  = 5
	codeNotAuth  = 9
	codeDSOType  = 11 // DSOTYPENI
)

// The TTLs by which records are taken away (RFC 8765 section 6.3.1).
const ttlRemove = 0xffffffff

const (
	flagQR     = 0x8000
	headSize   = wire.HeaderSize
	tlvSize    = 4
	messageMax = 16382 // RFC 8765 section 6.3
)

// header is the header of a DSO message, of which all counts are zero.
func header(id uint16, response bool, code uint16) []byte {
	flags := uint16(opcode<<11) | code
	if response {
		flags |= flagQR
	}
	h := binary.BigEndian.AppendUint16(nil, id)
	h = binary.BigEndian.AppendUint16(h, flags)
	return append(h, make([]byte, headSize-4)...)
}

// appendTLV appends a TLV.
func appendTLV(dst []byte, typ uint16, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, typ)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}

// request is a DSO message of a client: its first TLV says what it is.
type request struct {
	id       uint16
	response bool
	typ      uint16
	data     []byte
}

// parse reads a DSO message; not ok: it is malformed.
func parse(msg []byte) (r request, ok bool) {
	if len(msg) < headSize {
		return r, false
	}
	r.id, r.response = binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(msg[2:])&flagQR != 0
	if binary.BigEndian.Uint64(msg[4:]) != 0 { // RFC 8490 section 5.4
		return r, false
	}
	rest := msg[headSize:]
	for first := true; len(rest) > 0; first = false {
		if len(rest) < tlvSize {
			return r, false
		}
		typ, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if len(rest) < tlvSize+size {
			return r, false
		}
		if first {
			r.typ, r.data = typ, rest[tlvSize:tlvSize+size]
		}
		rest = rest[tlvSize+size:]
	}
	return r, r.typ != 0 || r.response
}
