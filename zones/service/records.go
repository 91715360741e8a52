package service

import (
	"sync"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// Encoder makes the records of services: Encode is pool.Config.Encode. The zero
// Encoder is ready; it must not be copied.
type Encoder struct {
	scratch sync.Pool // of *scratch
}

// scratch is what an answer is put together in. Pickers are interfaces, so what
// is handed to them cannot be on the stack.
type scratch struct {
	picks []uint32
	refs  []wire.Ref
	text  [1024]byte
}

// picksMax is the room that a scratch begins with: all that fits a datagram.
const picksMax = 128

func (e *Encoder) get() *scratch {
	if s, ok := e.scratch.Get().(*scratch); ok {
		return s
	}
	return &scratch{picks: make([]uint32, 0, picksMax), refs: make([]wire.Ref, 0, picksMax)}
}

func (e *Encoder) put(s *scratch) {
	s.picks, s.refs = s.picks[:0], s.refs[:0]
	e.scratch.Put(s)
}

// records is what the service zone adds to a service: the RRsets, as handles to
// which the record types below are added by their Go type. Immutable.
type records struct {
	encoder   *Encoder
	service   *pool.Service
	suffix    []byte // the service's absolute name in wire form
	txt       []byte // RDATA of the service's own TXT record; empty: none
	sets      []set
	instances []instance
}

// set is one set of a service; addresses4, addresses6 and srvSet are its RRsets.
type set struct {
	records *records
	set     *pool.Set
}

// instance is one instance of a service; instance4, instance6, instanceSRV and
// instanceTXT are its RRsets.
type instance struct {
	records *records
	number  uint32
}

type (
	addresses4  set
	addresses6  set
	srvSet      set
	txtSet      records
	whySet      records
	instance4   instance
	instance6   instance
	instanceSRV instance
	instanceTXT instance
)

// Encode makes the records of s. It is called by the pool's writer.
func (e *Encoder) Encode(s *pool.Service) any {
	r := &records{
		encoder: e, service: s,
		suffix:    append([]byte(s.Wire()), s.Origin().Apex()...),
		txt:       metaText(s.Meta()),
		sets:      make([]set, s.Sets()),
		instances: make([]instance, s.Len()),
	}
	for i := range r.sets {
		r.sets[i] = set{r, s.SetAt(i)}
	}
	for i := range r.instances {
		r.instances[i] = instance{r, uint32(i)}
	}
	return r
}

// recordsOf returns what Encode made of s.
func recordsOf(s *pool.Service) *records {
	r, ok := s.Records().(*records)
	if !ok {
		panic("service: the pool was made without Encoder.Encode")
	}
	return r
}

// whole answers the service's own name.
func (r *records) whole(typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	if typ == wire.TypeTXT && len(r.txt) > 0 {
		found(a, (*txtSet)(r))
		return
	}
	r.sets[0].answer(typ, a)
	if typ == wire.TypeANY && len(r.txt) > 0 {
		a.Kind = zones.Found
	}
}

// filter answers the name of the filter whose set is the n-th; -1 matches no
// registered instance.
func (r *records) filter(n int, typ wire.Type, a *zones.Answer) {
	if n < 0 {
		nonTerminal(a, r.service.FiltersOmitted() > 0) // it may be one of those
		return
	}
	a.Kind = zones.NoData
	r.sets[n].answer(typ, a)
}

// chosen answers the name of a hashed key.
func (r *records) chosen(typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	r.sets[0].answer(typ, a)
}

// answer finds the RRset of a type.
func (s *set) answer(typ wire.Type, a *zones.Answer) {
	switch typ {
	case wire.TypeA:
		if s.has(pool.FamilyA) {
			found(a, (*addresses4)(s))
		}
	case wire.TypeAAAA:
		if s.has(pool.FamilyAAAA) {
			found(a, (*addresses6)(s))
		}
	case wire.TypeSRV:
		if s.has(pool.FamilySRV) {
			found(a, (*srvSet)(s))
		}
	case wire.TypeANY:
		if s.has(pool.FamilyA) || s.has(pool.FamilyAAAA) || s.has(pool.FamilySRV) {
			a.Kind = zones.Found
		}
	}
}

// has reports whether some registered instance is of the family.
func (s *set) has(f pool.Family) bool {
	g := s.set.Group(f)
	return g != nil && g.Members() > 0
}

// answer finds the RRset of a type.
func (i *instance) answer(typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	s, n := i.records.service, i.number
	switch typ {
	case wire.TypeA:
		if s.Count4(n) > 0 {
			found(a, (*instance4)(i))
		}
	case wire.TypeAAAA:
		if s.Count6(n) > 0 {
			found(a, (*instance6)(i))
		}
	case wire.TypeSRV:
		if s.Port(n) != 0 {
			found(a, (*instanceSRV)(i))
		}
	case wire.TypeTXT:
		if len(s.TXT(n)) > 0 {
			found(a, (*instanceTXT)(i))
		}
	case wire.TypeANY:
		a.Kind = zones.Found // an instance has an address
	}
}

// state completes a result by what is known of the service's source: a stale
// state says so, and is not to live long in caches.
func (r *records) state(res *zones.Result, now int64) {
	if f, age := r.service.Origin().Freshness(now); f == pool.Stale || f == pool.Expired {
		res.TTL = min(res.TTL, pool.StaleTTL)
		res.EDE, res.Age = wire.EDEStale, age
	}
}

// failOpen and closed say in the answer why it has what it has.
const (
	textFailOpen = "fail-open: too few instances pass their checks"
	textClosed   = "fail closed: no instance passes its checks"
)

// mode adds to an answer that the group's mode is not the usual one.
func mode(b *wire.Builder, g *pool.Group) {
	switch g.Mode() {
	case pool.ModeFailOpen:
		b.EDE(wire.EDEOther, []byte(textFailOpen))
	case pool.ModeClosed:
		b.EDE(wire.EDEOther, []byte(textClosed))
	case pool.ModeUnset, pool.ModeNormal, pool.ModeTier, pool.ModeUnknown, pool.ModeEmpty:
	}
}

// ttl is the TTL of records of the picked instances: the group's base, lowered
// to the first moment at which what is said of one of them may change.
func (r *records) ttl(g *pool.Group, t *pool.Tier, picks []uint32, now int64) uint32 {
	ttl := g.TTL()
	if t.HasDeadlines() {
		for _, i := range picks {
			ttl = pool.LeftTTL(ttl, r.service.Deadline(i), now)
		}
	}
	return ttl
}
