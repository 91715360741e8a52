package service

import (
	"net/netip"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// virtualSet is the addresses, A or AAAA, of a *pool.Set of a service whose policy is to be
// answered with virtual addresses, behind which a proxy chooses. They are there while an
// instance may be served.
type virtualSet zones.Own

// isVirtual reports whether a set has virtual addresses. Only the whole of a service has
// them: who asks for a part of it means instances.
func isVirtual(s *pool.Set) bool {
	return s.Kind() == pool.FilterNone && hasVIPs(s.Service())
}

// hasVIPs reports whether a service has virtual addresses.
func hasVIPs(s *pool.Service) bool { return len(s.VIPs(pool.FamilyA))+len(s.VIPs(pool.FamilyAAAA)) > 0 }

// behind is the group of the instances behind the addresses: of the family in
// which some may be served.
func behind(s *pool.Set) *pool.Group {
	if g := s.Group(pool.FamilyA); len(g.Tiers()) > 0 {
		return g
	}
	return s.Group(pool.FamilyAAAA)
}

// open are the addresses of the set; none where no instance may be served.
func (o *virtualSet) open() (*pool.Set, []netip.Addr) {
	s := ownOf[pool.Set]((*zones.Own)(o))
	if len(behind(s).Tiers()) == 0 {
		return s, nil
	}
	return s, s.Service().VIPs(familyOf(o.Type))
}

// Append implements zones.RRset.
func (o *virtualSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	s, addresses := o.open()
	res := zones.Result{EDE: zones.EDENone}
	if len(addresses) > 0 {
		res.TTL = s.Service().TTL()
	}
	mode(b, behind(s))
	state(s.Service(), &res, r.Now)
	res.Answers = place{b, r.Section, owner, res.TTL}.list(addresses)
	res.Truncated = res.Answers < len(addresses)
	return res
}

// All implements zones.RRset.
func (o *virtualSet) All(yield func([]byte) bool) {
	_, addresses := o.open()
	yieldAddresses(addresses, yield)
}
