package wire

import "encoding/binary"

// Signature is a TSIG record (RFC 8945 section 4.2). Of a query its slices lie in
// the message.
type Signature struct {
	Owner     []byte // the key's name, in wire form, uncompressed
	Algorithm []byte // likewise
	Signed    uint64 // seconds since 1970, 48 bits
	Fudge     uint16 // seconds
	MAC       []byte
	ID        uint16 // of the message when it was signed
	Error     uint16
	Other     []byte
}

// Signature is the query's TSIG record; q.TSIG must not be nil.
func (q *Query) Signature() Signature {
	w := q.TSIG[q.tsigFixed:]
	mac := int(binary.BigEndian.Uint16(w[8:]))
	rest := w[10+mac:]
	return Signature{
		Owner:     q.TSIG[:q.tsigRData-rrFixed],
		Algorithm: q.TSIG[q.tsigRData:q.tsigFixed],
		Signed:    uint64(binary.BigEndian.Uint16(w))<<32 | uint64(binary.BigEndian.Uint32(w[2:])),
		Fudge:     binary.BigEndian.Uint16(w[6:]),
		MAC:       w[10 : 10+mac],
		ID:        binary.BigEndian.Uint16(rest),
		Error:     binary.BigEndian.Uint16(rest[2:]),
		Other:     rest[6:],
	}
}

// Size is how many octets the record takes.
func (s *Signature) Size() int {
	return len(s.Owner) + rrFixed + len(s.Algorithm) + tsigMinRDataAfterName + len(s.MAC) + len(s.Other)
}

// AppendTo appends the record to a whole message, as its last (section 5.1).
func (s *Signature) AppendTo(msg []byte) []byte {
	size := s.Size() - len(s.Owner) - rrFixed
	msg = append(msg, s.Owner...)
	msg = binary.BigEndian.AppendUint16(msg, uint16(TypeTSIG))
	msg = binary.BigEndian.AppendUint16(msg, uint16(ClassANY))
	msg = binary.BigEndian.AppendUint32(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(size))
	msg = append(msg, s.Algorithm...)
	msg = AppendUint48(msg, s.Signed)
	msg = binary.BigEndian.AppendUint16(msg, s.Fudge)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(s.MAC)))
	msg = append(msg, s.MAC...)
	msg = binary.BigEndian.AppendUint16(msg, s.ID)
	msg = binary.BigEndian.AppendUint16(msg, s.Error)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(s.Other)))
	msg = append(msg, s.Other...)
	binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(msg[10:])+1)
	return msg
}

// AppendUint48 appends a number of 48 bits, as times of signatures are written.
func AppendUint48(dst []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, uint16(v>>32)), uint32(v))
}
