package zones

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Signature is when a signature is good, in seconds since 1970 modulo 2^32 (RFC 4034
// section 3.1.5).
type Signature struct {
	Owner         string
	Of            wire.Type
	Since, Expire uint32
}

// Left is how many seconds the signature is good at a time, below zero once it has
// expired, and of how many in all.
func (s *Signature) Left(now int64) (left, all int32) {
	return int32(s.Expire - uint32(now)), int32(s.Expire - s.Since)
}

// FirstToExpire is the signature of a static zone that expires first; false: it has none.
func (z *Zone) FirstToExpire() (first Signature, ok bool) {
	if z.expiring == nil {
		return Signature{}, false
	}
	return *z.expiring, true
}

// findExpiring finds the signature that expires first.
func (z *Zone) findExpiring() {
	const expireAt, sinceAt, end = 8, 12, 16 // in the RDATA, RFC 4034 section 3.1
	for i := range z.names.nodes {
		n := &z.names.nodes[i]
		for k := range z.sets[n.first : n.first+uint32(n.count)] {
			set := &z.sets[n.first+uint32(k)]
			if set.covers == 0 {
				continue
			}
			for _, rdata := range set.each() {
				if len(rdata) < end {
					continue
				}
				expire := binary.BigEndian.Uint32(rdata[expireAt:])
				if z.expiring != nil && int32(expire-z.expiring.Expire) >= 0 {
					continue
				}
				var owner wire.Name
				owner.Set(z.names.name(uint32(i)))
				z.expiring = &Signature{owner.String(), set.covers, binary.BigEndian.Uint32(rdata[sinceAt:]), expire}
			}
		}
	}
}
