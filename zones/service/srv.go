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
	res := zones.Result{EDE: zones.EDENone}
	rec, svc := s.records, s.records.service
	g := s.set.Group(pool.FamilySRV)
	q, hashed := request(svc, r)
	tier, q := g.Draw(q, hashed)
	if tier == nil {
		mode(b, g)
		rec.state(&res, r.Now)
		return res
	}
	sc := rec.encoder.get()
	start := b.Mark()
	if s.fits(b, tier) {
		sc.picks = pick(tier, sc.picks, tier.Size(), q, r.Hashed)
		s.write(b, owner, r, g, tier, sc, hashed, &res)
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
		for k = min(k, s.room(b)); k > 0 && res.Answers == 0; k /= 2 {
			b.Rewind(start)
			sc.picks = pick(tier, sc.picks[:0], k, q, r.Hashed)
			s.write(b, owner, r, g, tier, sc, hashed, &res)
		}
		res.Truncated = res.Answers == 0 || svc.Everything()
	}
	rec.encoder.put(sc)
	mode(b, g)
	return res
}

// fits reports whether the whole tier is wanted and has room.
func (s *srvSet) fits(b *wire.Builder, t *pool.Tier) bool {
	if m := s.records.service.MaxAnswers(); m > 0 && m < t.Size() {
		return false
	}
	return t.Labels()+t.Size()*(octetsSRV+len(s.records.suffix)) <= b.Room()
}

// room is how many records surely fit, the longest label given; at least one is
// tried.
func (s *srvSet) room(b *wire.Builder) int {
	return max(b.Room()/(octetsSRV+len(s.records.suffix)+64), 1)
}

// write writes the picks and the addresses of their targets. When a record does
// not fit, it takes all back and leaves res without answers.
func (s *srvSet) write(b *wire.Builder, owner wire.Ref, r *zones.Request, g *pool.Group, t *pool.Tier, sc *scratch, hashed bool, res *zones.Result) {
	rec, svc := s.records, s.records.service
	res.TTL = rec.ttl(g, t, sc.picks, r.Now)
	rec.state(res, r.Now)
	start := b.Mark()
	sc.refs = sc.refs[:0]
	whole := len(sc.picks) == t.Size()
	for rank, i := range sc.picks {
		port := svc.Port(i)
		if s.set.Kind() == pool.FilterPort {
			port = svc.NamedPort(i, s.set.Name(), s.set.UDP())
		}
		priority, weight := svc.Priority(i), uint16(1)
		if hashed {
			priority = uint16(rank)
		} else if whole {
			weight = svc.SRVWeight(i, t.Heaviest())
		}
		ref, ok := rec.srv(b, r.Section, owner, res.TTL, i, [3]uint16{priority, weight, port})
		if !ok {
			b.Rewind(start)
			res.Answers = 0
			return
		}
		sc.refs = append(sc.refs, ref)
		res.Answers++
	}
	for n, i := range sc.picks {
		if !rec.additional(b, sc.refs[n], i, res) {
			return // it is no part of the answer: RFC 2181 section 9
		}
	}
}

// srv writes one SRV record: the target is the instance's own name, never
// compressed (RFC 2782).
func (r *records) srv(b *wire.Builder, to wire.Section, owner wire.Ref, ttl uint32, i uint32, numbers [3]uint16) (wire.Ref, bool) {
	var prefix [6]byte
	for n, v := range numbers {
		binary.BigEndian.PutUint16(prefix[2*n:], v)
	}
	var buf [320]byte
	return b.RRName(to, owner, wire.TypeSRV, wire.ClassIN, ttl, prefix[:], r.target(buf[:0], i), false)
}

// target appends the absolute name of instance i.
func (r *records) target(dst []byte, i uint32) []byte {
	return append(append(dst, r.service.Label(i)...), r.suffix...)
}

// additional writes the addresses of a target; false: they do not all fit.
func (r *records) additional(b *wire.Builder, target wire.Ref, i uint32, res *zones.Result) bool {
	s := r.service
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
	svc := s.records.service
	tiers := s.set.Group(pool.FamilySRV).Tiers()
	for t := range tiers {
		for n := range tiers[t].Size() {
			i := tiers[t].At(n)
			port := svc.Port(i)
			if s.set.Kind() == pool.FilterPort {
				port = svc.NamedPort(i, s.set.Name(), s.set.UDP())
			}
			weight := svc.SRVWeight(i, tiers[t].Heaviest())
			if !yield(s.records.rdataSRV(i, svc.Priority(i), weight, port)) {
				return
			}
		}
	}
}

func (r *records) rdataSRV(i uint32, priority, weight, port uint16) []byte {
	rdata := make([]byte, 0, 6+64+len(r.suffix))
	for _, v := range [...]uint16{priority, weight, port} {
		rdata = binary.BigEndian.AppendUint16(rdata, v)
	}
	return r.target(rdata, i)
}

// Version implements zones.RRset.
func (s *srvSet) Version() uint64 { return versionOf(s.All) }

// Append implements zones.RRset.
func (i *instanceSRV) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := (*instance)(i).result(r)
	rec, n := i.records, i.number
	ref, ok := rec.srv(b, r.Section, owner, res.TTL, n, i.numbers())
	if res = one(res, ok); ok {
		rec.additional(b, ref, n, &res)
	}
	return res
}

// numbers is priority, weight and port.
func (i *instanceSRV) numbers() [3]uint16 {
	s := i.records.service
	return [3]uint16{s.Priority(i.number), s.Weight(i.number), s.Port(i.number)}
}

// All implements zones.RRset.
func (i *instanceSRV) All(yield func([]byte) bool) {
	n := i.numbers()
	yield(i.records.rdataSRV(i.number, n[0], n[1], n[2]))
}

// Version implements zones.RRset.
func (i *instanceSRV) Version() uint64 { return versionOf(i.All) }
