package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

// EDE adds an extended DNS error (RFC 8914) to the OPT record, when the query
// had EDNS and there is room; text may be empty and is truncated at 64 octets.
func (b *Builder) EDE(code uint16, text []byte) {
	if len(text) > maxEDETextOctets {
		text = text[:maxEDETextOctets]
		for len(text) > 0 && !utf8.Valid(text) { // RFC 8914 section 2: UTF-8; cut a rune's rest off
			text = text[:len(text)-1]
		}
	}
	data, ok := b.addOption(optionEDE, 2+len(text))
	if !ok {
		return
	}
	binary.BigEndian.PutUint16(data, code)
	copy(data[2:], text)
}

// Option adds an EDNS option likewise, and reports whether it did.
func (b *Builder) Option(code uint16, data []byte) bool {
	to, ok := b.addOption(code, len(data))
	copy(to, data)
	return ok
}

// addOption makes room for an option of size octets, here and in the message.
func (b *Builder) addOption(code uint16, size int) (data []byte, ok bool) {
	whole := 4 + size
	if b.q == nil || !b.q.EDNS || b.Room() < whole || len(b.opt)-b.nopt < whole {
		return nil, false
	}
	w := b.opt[b.nopt : b.nopt+whole]
	binary.BigEndian.PutUint16(w, code)
	binary.BigEndian.PutUint16(w[2:], uint16(size))
	b.nopt += whole
	b.kept += whole
	return w[4:], true
}

// putOPT writes the OPT record at the message's end and returns where it ends:
// version 0, our payload size, DO as the query had it (RFC 3225 section 3), CO if it
// has been set, all other flags 0 (RFC 6891 section 6.1.4).
func (b *Builder) putOPT(rcode RCode) int {
	w := b.buf[b.n : b.n+optFixed+b.nopt]
	flags := uint16(0)
	if b.q.DO {
		flags = flagDO
	}
	if b.compact {
		flags |= flagCO
	}
	w[0] = 0
	binary.BigEndian.PutUint16(w[1:], uint16(TypeOPT))
	binary.BigEndian.PutUint16(w[3:], MaxPayload)
	w[5], w[6] = byte(rcode>>4), 0
	binary.BigEndian.PutUint16(w[7:], flags)
	copy(w[optFixed:], b.opt[:b.nopt])
	end := b.n + len(w)
	if b.pad > 0 {
		end = b.putPadding(end)
	}
	binary.BigEndian.PutUint16(w[9:], uint16(end-b.n-optFixed))
	return end
}

// Fail ends a response that has been started, of 512 octets at least, and has no
// records, with an error: id, opcode, RD and the question if it was read are
// there, an OPT record if the query had one, and its options. This is the one
// place where error responses are made: for every transport, for what ParseQuery
// did not let proceed, and for what a server cannot answer.
func (b *Builder) Fail(c RCode) []byte {
	b.SetRCode(c)
	msg := b.Finish()
	if c == RCodeNotAuth && b.q.TSIG != nil {
		msg = appendTSIGError(msg, b.buf, b.q)
	}
	return msg
}

// appendTSIGError appends to msg, the beginning of buf, the unsigned TSIG record
// that says what is wrong with the query's (RFC 8945 section 5.3.2), unless it does
// not fit. It stands behind the OPT record, as it is the last (section 5.1).
func appendTSIGError(msg, buf []byte, q *Query) []byte {
	size := q.tsigFixed + tsigMinRDataAfterName
	if len(buf)-len(msg) < size {
		return msg
	}
	request := q.TSIG[q.tsigFixed:]
	mac := int(binary.BigEndian.Uint16(request[8:]))
	w := buf[len(msg) : len(msg)+size]
	copy(w, q.TSIG[:q.tsigFixed])
	binary.BigEndian.PutUint16(w[q.tsigRData-2:], uint16(size-q.tsigRData))
	w = w[q.tsigFixed:]
	copy(w, request[:8])                 // time signed and fudge, copied
	binary.BigEndian.PutUint16(w[8:], 0) // no MAC
	copy(w[10:12], request[10+mac:])     // original id
	binary.BigEndian.PutUint16(w[12:], q.TSIGError)
	binary.BigEndian.PutUint16(w[14:], 0) // no other data
	binary.BigEndian.PutUint16(buf[10:], binary.BigEndian.Uint16(buf[10:])+1)
	return buf[: len(msg)+size : len(msg)+size]
}
