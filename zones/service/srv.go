package service

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// octetsSRV is what an SRV record has beside its target: owner pointer, fixed
// part, priority, weight and port.
const octetsSRV = 2 + 10 + 6

// answersSRV is the greatest number of SRV records where not all fit and the
// service leaves it to Muster.
const answersSRV = 8

// Append implements zones.RRset. All instances of the drawn tier go out with
// their weights if they fit; else as many as the service wants, picked by
// weight and therefore with equal weights, since a client that weighs them
// again (RFC 2782) would weigh twice. Under hash the priority is the rank.
func (s *srvSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{EDE: zones.EDENone, Scope: localScope((*pool.Set)(s), r)}
	s = (*srvSet)(nearest((*pool.Set)(s), pool.FamilySRV, r))
	svc, g := (*pool.Set)(s).Service(), (*pool.Set)(s).Group(pool.FamilySRV)
	q, hashed := request(svc, r)
	tier, q := g.Draw(q, hashed)
	if tier == nil {
		mode(b, g)
		state(svc, &res, r.Now)
		return res
	}
	start := b.Mark()
	if fits(svc, b, tier) {
		r.Picks = pick(tier, r.Picks[:0], tier.Size(), q, r.Hashed)
		s.write(b, owner, r, tier, hashed, &res)
	}
	if res.Answers == 0 {
		// Not all fit, or the reckoning was out because the owner's name could
		// not be pointed to.
		k := answersSRV
		if m := svc.MaxAnswers(); m > 0 {
			k = m
		} else if svc.Everything() {
			k = tier.Size()
		}
		for k = min(k, room(svc, b)); k > 0 && res.Answers == 0; k /= 2 {
			b.Rewind(start)
			r.Picks = pick(tier, r.Picks[:0], k, q, r.Hashed)
			s.write(b, owner, r, tier, hashed, &res)
		}
		res.Truncated = res.Answers == 0 || svc.Everything()
	}
	res.Scope = max(res.Scope, scope(svc, r))
	mode(b, g)
	return res
}

// fits reports whether the whole tier is wanted and has room.
func fits(s *pool.Service, b *wire.Builder, t *pool.Tier) bool {
	if m := s.MaxAnswers(); m > 0 && m < t.Size() {
		return false
	}
	return t.Labels()+t.Size()*(octetsSRV+len(s.Absolute())) <= b.Room()
}

// room is how many records surely fit, the longest label given; at least one is
// tried.
func room(s *pool.Service, b *wire.Builder) int {
	return max(b.Room()/(octetsSRV+len(s.Absolute())+64), 1)
}

// write writes the picks and the addresses of their targets. When a record does
// not fit, it takes all back and leaves res without answers.
func (s *srvSet) write(b *wire.Builder, owner wire.Ref, r *zones.Request, t *pool.Tier, hashed bool, res *zones.Result) {
	set := (*pool.Set)(s)
	svc := set.Service()
	res.TTL = ttlOf(svc, set.Group(pool.FamilySRV), t, r.Picks, r.Now)
	state(svc, res, r.Now)
	start := b.Mark()
	refs := r.Refs[:0]
	whole := len(r.Picks) == t.Size()
	for rank, i := range r.Picks {
		srv := wire.SRV{Priority: svc.Priority(i), Weight: 1, Port: portOf(set, i)}
		if hashed {
			srv.Priority = uint16(rank)
		} else if whole {
			srv.Weight = svc.SRVWeight(i, t.Heaviest())
		}
		ref, ok := b.SRV(r.Section, owner, res.TTL, srv, svc.Label(i), svc.Absolute())
		if !ok {
			b.Rewind(start)
			res.Answers = 0
			return
		}
		refs = append(refs, ref)
	}
	r.Refs, res.Answers = refs, len(refs)
	if r.Bare {
		return
	}
	for n, i := range r.Picks {
		if !additional(svc, b, refs[n], i, res) {
			return // it is no part of the answer: RFC 2181 section 9
		}
	}
}

// portOf is the port that a set's SRV record of instance i has.
func portOf(s *pool.Set, i uint32) uint16 {
	if s.Kind() == pool.FilterPort {
		return s.Service().NamedPort(i, s.Name(), s.UDP())
	}
	return s.Service().Port(i)
}

// additional writes the addresses of a target; false: they do not all fit.
func additional(s *pool.Service, b *wire.Builder, target wire.Ref, i uint32, res *zones.Result) bool {
	for n := range s.Count4(i) {
		if !b.A(wire.Additional, target, res.TTL, s.Addr4(i, n)) {
			return false
		}
		res.Additional++
	}
	for n := range s.Count6(i) {
		if !b.AAAA(wire.Additional, target, res.TTL, s.Addr6(i, n)) {
			return false
		}
		res.Additional++
	}
	return true
}

// All implements zones.RRset.
func (s *srvSet) All(yield func([]byte) bool) {
	set := (*pool.Set)(s)
	svc := set.Service()
	tiers := set.Group(pool.FamilySRV).Tiers()
	for t := range tiers {
		for n := range tiers[t].Size() {
			i := tiers[t].At(n)
			srv := wire.SRV{Priority: svc.Priority(i), Weight: svc.SRVWeight(i, tiers[t].Heaviest()), Port: portOf(set, i)}
			if !yield(rdataSRV(svc, i, srv)) {
				return
			}
		}
	}
}

func rdataSRV(s *pool.Service, i uint32, srv wire.SRV) []byte {
	rdata := make([]byte, 0, 6+64+len(s.Absolute()))
	for _, v := range [...]uint16{srv.Priority, srv.Weight, srv.Port} {
		rdata = binary.BigEndian.AppendUint16(rdata, v)
	}
	return append(append(rdata, s.Label(i)...), s.Absolute()...)
}

// Append implements zones.RRset.
func (i *instanceSRV) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	s, n := instanceOf((*zones.Own)(i))
	res := result(s, n, r)
	ref, ok := b.SRV(r.Section, owner, res.TTL, registeredSRV(s, n), s.Label(n), s.Absolute())
	if res = one(res, ok); ok && !r.Bare {
		additional(s, b, ref, n, &res)
	}
	return res
}

// registeredSRV is what instance i has registered.
func registeredSRV(s *pool.Service, i uint32) wire.SRV {
	return wire.SRV{Priority: s.Priority(i), Weight: s.Weight(i), Port: s.Port(i)}
}

// All implements zones.RRset.
func (i *instanceSRV) All(yield func([]byte) bool) {
	s, n := instanceOf((*zones.Own)(i))
	yield(rdataSRV(s, n, registeredSRV(s, n)))
}
