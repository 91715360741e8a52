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

// services writes the SRV records of a set. All instances of the drawn tier go out with
// their weights if they fit; else as many as the service wants, picked by
// weight and therefore with equal weights, since a client that weighs them
// again (RFC 2782) would weigh twice. Under hash the priority is the rank.
func (d *draw) services(b *wire.Builder, owner wire.Ref, r *zones.Request, res *zones.Result) {
	start := b.Mark()
	if fits(d.service, b, d.tier) {
		d.pick(d.tier.Size(), r, res)
		d.writeSRV(b, owner, r, res)
	}
	if res.Answers > 0 {
		return
	}
	// Not all fit, or the reckoning was out because the owner's name could
	// not be pointed to.
	k := answersSRV
	if m := d.service.MaxAnswers(); m > 0 {
		k = m
	} else if d.service.Everything() {
		k = d.tier.Size()
	}
	for k = min(k, room(d.service, b)); k > 0 && res.Answers == 0; k /= 2 {
		b.Rewind(start)
		d.pick(k, r, res)
		d.writeSRV(b, owner, r, res)
	}
	res.Truncated = res.Answers == 0 || d.service.Everything()
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

// writeSRV writes the picks and the addresses of their targets. When a record does
// not fit, it takes all back and leaves res without answers.
func (d *draw) writeSRV(b *wire.Builder, owner wire.Ref, r *zones.Request, res *zones.Result) {
	svc := d.service
	start := b.Mark()
	refs := r.Refs[:0]
	whole := len(r.Picks) == d.tier.Size()
	for rank, i := range r.Picks {
		srv := wire.SRV{Priority: svc.Priority(i), Weight: 1, Port: portOf(d.set, i)}
		if d.hashed {
			srv.Priority = uint16(rank)
		} else if whole {
			srv.Weight = svc.SRVWeight(i, d.tier.Heaviest())
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

// allServices yields the SRV records of all instances that may be answered.
func allServices(set *pool.Set, yield func([]byte) bool) {
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
