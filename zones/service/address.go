package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The octets of an address record whose owner is a compression pointer.
const (
	octetsA    = 2 + 10 + 4
	octetsAAAA = 2 + 10 + 16
)

// Append implements zones.RRset.
func (s *addresses4) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return addresses((*pool.Set)(s), b, owner, r, pool.FamilyA)
}

// Append implements zones.RRset.
func (s *addresses6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return addresses((*pool.Set)(s), b, owner, r, pool.FamilyAAAA)
}

// addresses picks instances and writes their addresses. How many is cut to what
// fits before the picking, so that the policy's shares hold; the answer is then
// complete by policy, and not marked as truncated, unless the policy is to give
// everything.
func addresses(s *pool.Set, b *wire.Builder, owner wire.Ref, r *zones.Request, f pool.Family) zones.Result {
	res := zones.Result{EDE: zones.EDENone, Scope: localScope(s, r)}
	s = nearest(s, f, r)
	svc, g := s.Service(), s.Group(f)
	q, hashed := request(svc, r)
	tier, q := g.Draw(q, hashed)
	if tier == nil {
		mode(b, g)
		state(svc, &res, r.Now)
		return res
	}
	k := tier.Auto()
	if m := svc.MaxAnswers(); m > 0 {
		k = min(m, tier.Size())
	}
	octets := octetsA
	if f == pool.FamilyAAAA {
		octets = octetsAAAA
	}
	if fits := max(b.Room()/octets, 1); k > fits {
		k = fits
		res.Truncated = svc.Everything()
	}
	picks := pick(tier, r.Picks[:0], k, q, r.Hashed)
	r.Picks = picks
	res.TTL = ttlOf(svc, g, tier, picks, r.Now)
	res.Scope = max(res.Scope, scope(svc, r))
	state(svc, &res, r.Now)
	for n, i := range picks {
		if !write(svc, b, r.Section, owner, i, picks[:n], f, &res) {
			// Of an instance with several addresses some may not fit.
			res.Truncated = res.Truncated || res.Answers == 0
			break
		}
	}
	mode(b, g)
	return res
}

// pick picks by the service's policy, or by a hash that the name brought.
func pick(t *pool.Tier, dst []uint32, k int, q lb.Request, hashed bool) []uint32 {
	if hashed {
		if picks, ok := t.PickHash(dst, k, q); ok {
			return picks
		}
	}
	return t.Pick(dst, k, q)
}

// write writes the addresses of instance i, but for those that earlier picks
// have too: a set has no record twice (RFC 2181 section 5).
func write(s *pool.Service, b *wire.Builder, to wire.Section, owner wire.Ref, i uint32, earlier []uint32, f pool.Family, res *zones.Result) bool {
	if f == pool.FamilyA {
		for n := range s.Count4(i) {
			a := s.Addr4(i, n)
			if !s.Distinct() && has4(s, earlier, a) {
				continue
			}
			if !b.A(to, owner, res.TTL, a) {
				return false
			}
			res.Answers++
		}
		return true
	}
	for n := range s.Count6(i) {
		a := s.Addr6(i, n)
		if !s.Distinct() && has6(s, earlier, a) {
			continue
		}
		if !b.AAAA(to, owner, res.TTL, a) {
			return false
		}
		res.Answers++
	}
	return true
}

func has4(s *pool.Service, instances []uint32, a [4]byte) bool {
	for _, i := range instances {
		for n := range s.Count4(i) {
			if s.Addr4(i, n) == a {
				return true
			}
		}
	}
	return false
}

func has6(s *pool.Service, instances []uint32, a [16]byte) bool {
	for _, i := range instances {
		for n := range s.Count6(i) {
			if s.Addr6(i, n) == a {
				return true
			}
		}
	}
	return false
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

// All implements zones.RRset.
func (s *addresses4) All(yield func([]byte) bool) {
	seen := map[[4]byte]bool{}
	svc := (*pool.Set)(s).Service()
	each((*pool.Set)(s).Group(pool.FamilyA), func(i uint32) bool {
		for n := range svc.Count4(i) {
			a := svc.Addr4(i, n)
			if !seen[a] && !yield(a[:]) {
				return false
			}
			seen[a] = true
		}
		return true
	})
}

// All implements zones.RRset.
func (s *addresses6) All(yield func([]byte) bool) {
	seen := map[[16]byte]bool{}
	svc := (*pool.Set)(s).Service()
	each((*pool.Set)(s).Group(pool.FamilyAAAA), func(i uint32) bool {
		for n := range svc.Count6(i) {
			a := svc.Addr6(i, n)
			if !seen[a] && !yield(a[:]) {
				return false
			}
			seen[a] = true
		}
		return true
	})
}

// Append implements zones.RRset.
func (i *instance4) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return instanceAddresses((*zones.Own)(i), b, owner, r, pool.FamilyA)
}

// Append implements zones.RRset.
func (i *instance6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return instanceAddresses((*zones.Own)(i), b, owner, r, pool.FamilyAAAA)
}

// instanceAddresses writes the addresses of one instance, whatever its health.
func instanceAddresses(o *zones.Own, b *wire.Builder, owner wire.Ref, r *zones.Request, f pool.Family) zones.Result {
	s, i := instanceOf(o)
	res := result(s, i, r)
	res.Truncated = !write(s, b, r.Section, owner, i, nil, f, &res)
	return res
}

// result begins the result of a set of instance i alone.
func result(s *pool.Service, i uint32, r *zones.Request) zones.Result {
	res := zones.Result{EDE: zones.EDENone}
	res.TTL = pool.LeftTTL(s.InstanceTTL(i), s.Deadline(i), r.Now)
	state(s, &res, r.Now)
	return res
}

// All implements zones.RRset.
func (i *instance4) All(yield func([]byte) bool) {
	s, number := instanceOf((*zones.Own)(i))
	for n := range s.Count4(number) {
		a := s.Addr4(number, n)
		if !yield(a[:]) {
			return
		}
	}
}

// All implements zones.RRset.
func (i *instance6) All(yield func([]byte) bool) {
	s, number := instanceOf((*zones.Own)(i))
	for n := range s.Count6(number) {
		a := s.Addr6(number, n)
		if !yield(a[:]) {
			return
		}
	}
}
