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
	return (*set)(s).addresses(b, owner, r, pool.FamilyA)
}

// Append implements zones.RRset.
func (s *addresses6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*set)(s).addresses(b, owner, r, pool.FamilyAAAA)
}

// addresses picks instances and writes their addresses. How many is cut to what
// fits before the picking, so that the policy's shares hold; the answer is then
// complete by policy, and not marked as truncated, unless the policy is to give
// everything.
func (s *set) addresses(b *wire.Builder, owner wire.Ref, r *zones.Request, f pool.Family) zones.Result {
	res := zones.Result{EDE: zones.EDENone}
	rec, svc := s.records, s.records.service
	g := s.set.Group(f)
	q, hashed := request(svc, r)
	tier, q := g.Draw(q, hashed)
	if tier == nil {
		mode(b, g)
		rec.state(&res, r.Now)
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
	sc := rec.encoder.get()
	sc.picks = pick(tier, sc.picks, k, q, r.Hashed)
	res.TTL = rec.ttl(g, tier, sc.picks, r.Now)
	rec.state(&res, r.Now)
	for n, i := range sc.picks {
		if !rec.write(b, r.Section, owner, i, sc.picks[:n], f, &res) {
			// Of an instance with several addresses some may not fit.
			res.Truncated = res.Truncated || res.Answers == 0
			break
		}
	}
	rec.encoder.put(sc)
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
func (r *records) write(b *wire.Builder, to wire.Section, owner wire.Ref, i uint32, earlier []uint32, f pool.Family, res *zones.Result) bool {
	s := r.service
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
	svc := s.records.service
	each(s.set.Group(pool.FamilyA), func(i uint32) bool {
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
	svc := s.records.service
	each(s.set.Group(pool.FamilyAAAA), func(i uint32) bool {
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

// Version implements zones.RRset.
func (s *addresses4) Version() uint64 { return versionOf(s.All) }

// Version implements zones.RRset.
func (s *addresses6) Version() uint64 { return versionOf(s.All) }

// Append implements zones.RRset.
func (i *instance4) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*instance)(i).addresses(b, owner, r, pool.FamilyA)
}

// Append implements zones.RRset.
func (i *instance6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*instance)(i).addresses(b, owner, r, pool.FamilyAAAA)
}

// addresses writes the addresses of the instance, whatever its health.
func (i *instance) addresses(b *wire.Builder, owner wire.Ref, r *zones.Request, f pool.Family) zones.Result {
	res := i.result(r)
	res.Truncated = !i.records.write(b, r.Section, owner, i.number, nil, f, &res)
	return res
}

// result begins the result of a set of the instance alone.
func (i *instance) result(r *zones.Request) zones.Result {
	s := i.records.service
	res := zones.Result{EDE: zones.EDENone}
	res.TTL = pool.LeftTTL(s.InstanceTTL(i.number), s.Deadline(i.number), r.Now)
	i.records.state(&res, r.Now)
	return res
}

// All implements zones.RRset.
func (i *instance4) All(yield func([]byte) bool) {
	for n := range i.records.service.Count4(i.number) {
		a := i.records.service.Addr4(i.number, n)
		if !yield(a[:]) {
			return
		}
	}
}

// All implements zones.RRset.
func (i *instance6) All(yield func([]byte) bool) {
	for n := range i.records.service.Count6(i.number) {
		a := i.records.service.Addr6(i.number, n)
		if !yield(a[:]) {
			return
		}
	}
}

// Version implements zones.RRset.
func (i *instance4) Version() uint64 { return versionOf(i.All) }

// Version implements zones.RRset.
func (i *instance6) Version() uint64 { return versionOf(i.All) }
