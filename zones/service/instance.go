package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// instanceSet is records of one instance of a *pool.Set, whatever its health: A, AAAA, SRV,
// TXT. Of a set of a port the SRV record has that port.
type instanceSet zones.Own

// noText is the TXT record of what has nothing to say: there must be one (RFC
// 6763 section 6.1).
var noText = []byte{0}

// Append implements zones.RRset.
func (o *instanceSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	set, i := ownOf[pool.Set]((*zones.Own)(o)), o.Number
	s := set.Service()
	res := zones.Result{TTL: pool.LeftTTL(s.InstanceTTL(i), s.Deadline(i), r.Now), EDE: zones.EDENone}
	state(s, &res, r.Now)
	switch o.Type {
	case wire.TypeSRV:
		ref, ok := b.SRV(r.Section, owner, res.TTL, registeredSRV(set, i), s.Label(i), s.Absolute())
		if res = one(res, ok); ok && !r.Bare {
			additional(s, b, ref, i, &res)
		}
	case wire.TypeTXT:
		return one(res, b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, res.TTL, metaOf(s, i)))
	default:
		var whole bool
		res.Answers, whole = place{b, r.Section, owner, res.TTL}.instance(s, i, familyOf(o.Type), nil)
		res.Truncated = !whole
	}
	return res
}

// registeredSRV is what instance i has registered.
func registeredSRV(set *pool.Set, i uint32) wire.SRV {
	s := set.Service()
	return wire.SRV{Priority: s.Priority(i), Weight: s.Weight(i), Port: portOf(set, i)}
}

// metaOf is the metadata of instance i.
func metaOf(s *pool.Service, i uint32) []byte {
	if txt := s.TXT(i); len(txt) > 0 {
		return txt
	}
	return noText
}

// All implements zones.RRset.
func (o *instanceSet) All(yield func([]byte) bool) {
	set, i := ownOf[pool.Set]((*zones.Own)(o)), o.Number
	s := set.Service()
	switch o.Type {
	case wire.TypeSRV:
		yield(rdataSRV(s, i, registeredSRV(set, i)))
	case wire.TypeTXT:
		yield(metaOf(s, i))
	default:
		f := familyOf(o.Type)
		for n := range count(s, i, f) {
			if !yield(address(s, i, f, n).AsSlice()) {
				return
			}
		}
	}
}
