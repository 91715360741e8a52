// Package presentation makes of responses what people read.
package presentation

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/miekg/dns"
)

const (
	headerSize = 12 // RFC 1035 section 4.1.1
	counts     = 6  // where those of the records begin
	afterName  = 10 // type, class, TTL and length of a record (RFC 1035 section 4.1.3)
)

var errShort = errors.New("the message ends within a record")

// Parse reads a response of one question. Records whose data the library cannot read, such as
// an AMTRELAY record with the discovery bit, it holds as those of a type that is not known
// (RFC 3597 section 5): one of them hides no other.
func Parse(msg []byte) (*dns.Msg, error) {
	off := headerSize
	_, off, err := dns.UnpackDomainName(msg, off)
	if off += 4; err != nil || off > len(msg) {
		return nil, errors.Join(errShort, err)
	}
	head := slices.Clone(msg[:off])
	clear(head[counts:headerSize])
	m := new(dns.Msg)
	if err := m.Unpack(head); err != nil {
		return nil, err
	}
	for i, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		for range binary.BigEndian.Uint16(msg[counts+2*i:]) {
			var rr dns.RR
			if rr, off, err = record(msg, off); err != nil {
				return nil, err
			}
			*section = append(*section, rr)
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		m.Rcode |= opt.ExtendedRcode() // RFC 6891 section 6.1.3
	}
	return m, nil
}

// record reads the record at off, and where it ends.
func record(msg []byte, off int) (dns.RR, int, error) {
	if rr, next, err := dns.UnpackRR(msg, off); err == nil && next > off { // at the end it reads an empty one
		return rr, next, nil
	}
	name, off, err := dns.UnpackDomainName(msg, off)
	if err != nil {
		return nil, 0, err
	}
	if off+afterName > len(msg) {
		return nil, 0, errShort
	}
	h := dns.RR_Header{
		Name: name, Rrtype: binary.BigEndian.Uint16(msg[off:]), Class: binary.BigEndian.Uint16(msg[off+2:]),
		Ttl: binary.BigEndian.Uint32(msg[off+4:]), Rdlength: binary.BigEndian.Uint16(msg[off+8:]),
	}
	off += afterName
	end := off + int(h.Rdlength)
	if end > len(msg) {
		return nil, 0, errShort
	}
	return &dns.RFC3597{Hdr: h, Rdata: hex.EncodeToString(msg[off:end])}, end, nil
}
