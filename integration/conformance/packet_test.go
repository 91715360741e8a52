package conformance_test

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Header bits beside the opcode and the response code, RFC 1035 section 4.1.1
// and RFC 4035 section 3.
const (
	bitQR = 0x8000
	bitAA = 0x0400
	bitTC = 0x0200
	bitRD = 0x0100
	bitRA = 0x0080
	bitZ  = 0x0040
	bitAD = 0x0020
	bitCD = 0x0010
)

// headerSize is the length of a header, octets.
const headerSize = 12

// origin is the zone that is served.
const origin = "wire.test."

// header is a header with id 0; the id is set when the packet is sent.
func header(flags, qd, an, ns, ar int) []byte {
	b := make([]byte, 2, headerSize)
	for _, v := range []int{flags, qd, an, ns, ar} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

// opcode is an opcode at its place in the flags.
func opcode(n int) int { return n << 11 }

// wireName is a name in wire form; labels are separated by dots, without
// escapes.
func wireName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label != "" {
			b = append(b, byte(len(label)))
			b = append(b, label...)
		}
	}
	return append(b, 0)
}

// question is one entry of the question section.
func question(name string, typ, class uint16) []byte {
	return rawQuestion(wireName(name), typ, class)
}

func rawQuestion(name []byte, typ, class uint16) []byte {
	b := binary.BigEndian.AppendUint16(slices.Clone(name), typ)
	return binary.BigEndian.AppendUint16(b, class)
}

// record is a resource record.
func record(name []byte, typ, class uint16, ttl uint32, rdata ...byte) []byte {
	b := rawQuestion(name, typ, class)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rdata)))
	return append(b, rdata...)
}

// Bits of the OPT record's TTL, RFC 6891 section 6.1.3.
const (
	optDO       = 0x8000
	optVersion1 = 1 << 16
)

// opt is an OPT record (RFC 6891 section 6.1.2) that offers size octets.
func opt(size uint16, ttl uint32, options ...[]byte) []byte {
	return record([]byte{0}, dns.TypeOPT, size, ttl, slices.Concat(options...)...)
}

// option is one EDNS option.
func option(code uint16, data ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// ask is a plain query.
func ask(name string, typ uint16) []byte { return askFlags(0, name, typ) }

// askFlags is a query with header bits.
func askFlags(flags int, name string, typ uint16) []byte {
	return slices.Concat(header(flags, 1, 0, 0, 0), question(name, typ, dns.ClassINET))
}

// askClass is a query of another class.
func askClass(name string, typ, class uint16) []byte {
	return slices.Concat(header(0, 1, 0, 0, 0), question(name, typ, class))
}

// askEDNS is a query with an OPT record.
func askEDNS(name string, typ uint16, size uint16, ttl uint32, options ...[]byte) []byte {
	return slices.Concat(header(0, 1, 0, 0, 1), question(name, typ, dns.ClassINET), opt(size, ttl, options...))
}
