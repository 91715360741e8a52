package service

import (
	"net/netip"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The octets of an address record whose owner is a compression pointer.
const (
	octetsA    = 2 + 10 + 4
	octetsAAAA = 2 + 10 + 16
)

// familyOf is the family of the instances that records of a type are made from.
func familyOf(typ wire.Type) pool.Family {
	switch typ {
	case wire.TypeA:
		return pool.FamilyA
	case wire.TypeAAAA:
		return pool.FamilyAAAA
	}
	return pool.FamilySRV
}

// isAddress reports whether records of a type are addresses.
func isAddress(typ wire.Type) bool { return typ == wire.TypeA || typ == wire.TypeAAAA }

// place is where addresses are written.
type place struct {
	b     *wire.Builder
	to    wire.Section
	owner wire.Ref
	ttl   uint32
}

// address writes an address; false: it does not fit.
func (p place) address(a netip.Addr) bool {
	if a.Is4() {
		return p.b.A(p.to, p.owner, p.ttl, a.As4())
	}
	return p.b.AAAA(p.to, p.owner, p.ttl, a.As16())
}

// list writes addresses, and returns how many fit.
func (p place) list(addresses []netip.Addr) int {
	for n, a := range addresses {
		if !p.address(a) {
			return n
		}
	}
	return len(addresses)
}

// instance writes the addresses of a family of instance i, but for those that earlier
// ones have too: a set has no record twice (RFC 2181 section 5). It returns how many, and
// whether all fit.
func (p place) instance(s *pool.Service, i uint32, f pool.Family, earlier []uint32) (written int, whole bool) {
	shared := len(earlier) > 0 && !s.Distinct()
	if f == pool.FamilyA {
		for n := range s.Count4(i) {
			a := s.Addr4(i, n)
			if shared && someHas(s, earlier, f, netip.AddrFrom4(a)) {
				continue
			}
			if !p.b.A(p.to, p.owner, p.ttl, a) {
				return written, false
			}
			written++
		}
		return written, true
	}
	for n := range s.Count6(i) {
		a := s.Addr6(i, n)
		if shared && someHas(s, earlier, f, netip.AddrFrom16(a)) {
			continue
		}
		if !p.b.AAAA(p.to, p.owner, p.ttl, a) {
			return written, false
		}
		written++
	}
	return written, true
}

// count is how many addresses of a family instance i has, and address the n-th of them.
func count(s *pool.Service, i uint32, f pool.Family) int {
	if f == pool.FamilyA {
		return s.Count4(i)
	}
	return s.Count6(i)
}

func address(s *pool.Service, i uint32, f pool.Family, n int) netip.Addr {
	if f == pool.FamilyA {
		return netip.AddrFrom4(s.Addr4(i, n))
	}
	return netip.AddrFrom16(s.Addr6(i, n))
}

// someHas reports whether one of the instances has an address.
func someHas(s *pool.Service, instances []uint32, f pool.Family, a netip.Addr) bool {
	for _, i := range instances {
		for n := range count(s, i, f) {
			if address(s, i, f, n) == a {
				return true
			}
		}
	}
	return false
}

// addresses picks instances and writes their addresses. How many is cut to what
// fits before the picking, so that the policy's shares hold; the answer is then
// complete by policy, and not marked as truncated, unless the policy is to give
// everything.
func (d *draw) addresses(b *wire.Builder, owner wire.Ref, r *zones.Request, f pool.Family, res *zones.Result) {
	octets := octetsA
	if f == pool.FamilyAAAA {
		octets = octetsAAAA
	}
	k := d.wanted()
	if fits := max(b.Room()/octets, 1); k > fits {
		k = fits
		res.Truncated = d.service.Everything()
	}
	d.pick(k, r, res)
	to := place{b, r.Section, owner, res.TTL}
	for n, i := range r.Picks {
		written, whole := to.instance(d.service, i, f, r.Picks[:n])
		if res.Answers += written; !whole {
			// Of an instance with several addresses some may not fit.
			res.Truncated = res.Truncated || res.Answers == 0
			break
		}
	}
}

// allAddresses yields the addresses of a family of all instances that may be answered.
func allAddresses(s *pool.Set, f pool.Family, yield func([]byte) bool) {
	svc, seen := s.Service(), map[netip.Addr]bool{}
	each(s.Group(f), func(i uint32) bool {
		for n := range count(svc, i, f) {
			a := address(svc, i, f, n)
			if !seen[a] && !yield(a.AsSlice()) {
				return false
			}
			seen[a] = true
		}
		return true
	})
}

// yieldAddresses yields addresses as RDATA.
func yieldAddresses(addresses []netip.Addr, yield func([]byte) bool) {
	for _, a := range addresses {
		if !yield(a.AsSlice()) {
			return
		}
	}
}

// each yields the numbers of all instances that a group may answer.
func each(g *pool.Group, yield func(i uint32) bool) {
	tiers := g.Tiers()
	for t := range tiers {
		for n := range tiers[t].Size() {
			if !yield(tiers[t].At(n)) {
				return
			}
		}
	}
}
