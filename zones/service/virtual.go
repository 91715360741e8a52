package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The RRsets of a service whose policy is to be answered with virtual addresses,
// behind which a proxy chooses. They are there while an instance may be served.
type (
	virtual4 pool.Set
	virtual6 pool.Set
)

// virtual are the virtual addresses of a set. Only the whole of a service has
// them: who asks for a part of it means instances.
func virtual(s *pool.Set) ([][4]byte, [][16]byte) {
	if s.Kind() != pool.FilterNone {
		return nil, nil
	}
	return s.Service().VIPs()
}

// behind is the group of the instances behind the addresses: of the family in
// which some may be served.
func behind(s *pool.Set) *pool.Group {
	if g := s.Group(pool.FamilyA); len(g.Tiers()) > 0 {
		return g
	}
	return s.Group(pool.FamilyAAAA)
}

// begin begins the result of virtual addresses; open is false where no instance
// may be served.
func begin(s *pool.Set, b *wire.Builder, r *zones.Request) (res zones.Result, open bool) {
	g := behind(s)
	res = zones.Result{EDE: zones.EDENone}
	if open = len(g.Tiers()) > 0; open {
		res.TTL = s.Service().TTL()
	}
	mode(b, g)
	state(s.Service(), &res, r.Now)
	return res, open
}

// Append implements zones.RRset.
func (s *virtual4) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res, open := begin((*pool.Set)(s), b, r)
	addresses, _ := virtual((*pool.Set)(s))
	for i := 0; open && i < len(addresses); i++ {
		if !b.A(r.Section, owner, res.TTL, addresses[i]) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// Append implements zones.RRset.
func (s *virtual6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res, open := begin((*pool.Set)(s), b, r)
	_, addresses := virtual((*pool.Set)(s))
	for i := 0; open && i < len(addresses); i++ {
		if !b.AAAA(r.Section, owner, res.TTL, addresses[i]) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// All implements zones.RRset.
func (s *virtual4) All(yield func([]byte) bool) {
	addresses, _ := virtual((*pool.Set)(s))
	for i := range addresses {
		if len(behind((*pool.Set)(s)).Tiers()) == 0 || !yield(addresses[i][:]) {
			return
		}
	}
}

// All implements zones.RRset.
func (s *virtual6) All(yield func([]byte) bool) {
	_, addresses := virtual((*pool.Set)(s))
	for i := range addresses {
		if len(behind((*pool.Set)(s)).Tiers()) == 0 || !yield(addresses[i][:]) {
			return
		}
	}
}
