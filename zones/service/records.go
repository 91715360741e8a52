package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// records is what the service zone adds to a service. Immutable.
type records struct {
	service *pool.Service
	txt     []byte // RDATA of the service's own TXT record; empty: none
	alpn    []byte // the parameter of its bindings; empty: none
}

// The RRsets are what they are made from: of a service, under a type of each kind of
// record; others are made by Lookup from what it found, which is in the Answer.
type (
	txtSet records
	whySet pool.Service
)

// own is room in a for a set that is made of something, for ownOf to return.
func own(a *zones.Answer, of any, number uint32, typ wire.Type) *zones.Own {
	a.Own = zones.Own{Of: of, Number: number, Type: typ}
	return &a.Own
}

// ownOf is what own put into an Answer.
func ownOf[T any](o *zones.Own) *T {
	of, ok := o.Of.(*T)
	if !ok {
		panic("service: a set outlived its Answer")
	}
	return of
}

// Encode makes the records of s: pool.Config.Encode. It is called by the pool's
// writer.
func Encode(s *pool.Service) any { return &records{s, metaText(s.Meta()), alpnParam(s.Meta())} }

// recordsOf returns what Encode made of s.
func recordsOf(s *pool.Service) *records {
	r, ok := s.Records().(*records)
	if !ok {
		panic("service: the pool was made without Encode")
	}
	return r
}

// whole answers a service's own name, with the instances of the one that stands in for
// it.
func whole(s, standin *pool.Service, typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	answer(standin.Set(), typ, a)
	switch typ {
	case wire.TypeHTTPS, wire.TypeSVCB:
		binding(standin, typ, a)
		return
	case wire.TypeTXT, wire.TypeANY:
	default:
		return
	}
	if r := recordsOf(s); len(r.txt) > 0 {
		a.Kind = zones.Found
		if typ == wire.TypeTXT {
			a.RRset = (*txtSet)(r)
		}
	}
}

// filtered answers the name of a filter of s; nil matches no registered
// instance.
func filtered(s *pool.Service, set *pool.Set, typ wire.Type, a *zones.Answer) {
	if set == nil {
		nonTerminal(a, s.FiltersOmitted() > 0) // it may be one of those
		return
	}
	a.Kind = zones.NoData
	answer(set, typ, a)
}

// answer finds the RRset of a type.
func answer(s *pool.Set, typ wire.Type, a *zones.Answer) {
	switch typ {
	case wire.TypeA, wire.TypeAAAA, wire.TypeSRV:
		f := familyOf(typ)
		switch {
		case !isAddress(typ) || !isVirtual(s):
			if has(s, f) {
				found(a, (*partSet)(own(a, s, 0, typ)))
			}
		case len(s.Service().VIPs(f)) > 0:
			found(a, (*virtualSet)(own(a, s, 0, typ)))
		}
	case wire.TypeANY:
		if has(s, pool.FamilyA) || has(s, pool.FamilyAAAA) || has(s, pool.FamilySRV) {
			a.Kind = zones.Found
		}
	}
}

// has reports whether some registered instance is of the family.
func has(s *pool.Set, f pool.Family) bool {
	g := s.Group(f)
	return g != nil && g.Members() > 0
}

// answerInstance finds the RRset of a type of one instance.
func answerInstance(s *pool.Service, n uint32, typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	has := false
	switch typ {
	case wire.TypeA, wire.TypeAAAA:
		has = count(s, n, familyOf(typ)) > 0
	case wire.TypeSRV:
		has = s.Port(n) != 0
	case wire.TypeTXT:
		has = len(s.TXT(n)) > 0
	case wire.TypeANY:
		a.Kind = zones.Found // an instance has an address
	}
	if has {
		found(a, (*instanceSet)(own(a, s.Set(), n, typ)))
	}
}

// state completes a result by what is known of the service's source: a stale
// state says so, and is not to live long in caches.
func state(s *pool.Service, res *zones.Result, now int64) { stateOf(s.Origin(), res, now) }

// stateOf is state for what is of a source and not of one service.
func stateOf(src *pool.SourceView, res *zones.Result, now int64) {
	if f, age := src.Freshness(now); f == pool.Stale || f == pool.Expired {
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

// ttlOf is the TTL of records of the picked instances: the group's base, lowered
// to the first moment at which what is said of one of them may change.
func ttlOf(s *pool.Service, g *pool.Group, t *pool.Tier, picks []uint32, now int64) uint32 {
	ttl := g.TTL()
	if t.HasDeadlines() {
		for _, i := range picks {
			ttl = pool.LeftTTL(ttl, s.Deadline(i), now)
		}
	}
	return ttl
}
