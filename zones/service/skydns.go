package service

import (
	"errors"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// SkyConfig configures a zone of source skydns.
type SkyConfig struct {
	Head   Head // whose TTL is that of records that have none, too
	View   *pool.View
	Source registry.SourceID // has those of the records that are instances
	Tree   *SkyTree
}

// Sky answers the names of a zone of SkyDNS records. A name is answered with the record
// at it and all below; CNAME and PTR with the record at it alone. A record that is an
// instance is left out while the instance may not be answered. The name of a service that
// another stands in for has that one's instances as A, AAAA and SRV, as the proxies have.
// It is immutable and safe for concurrent use.
//
// It differs from CoreDNS on purpose: a bad record is left out alone, a name has one
// CNAME at most and none beside addresses, a host and a text are both answered, a record
// does not hide behind those below it, weights are given as they are, a set has one TTL,
// its least, no more than an hour, and what has no TTL the zone's; a pattern is looked
// for among some thousand names, and SERVFAIL if it is none of those.
type Sky struct {
	apex   apex
	view   *pool.View
	source registry.SourceID
	tree   *SkyTree
}

var _ zones.Source = (*Sky)(nil)

// NewSky returns the zone of cfg.
func NewSky(cfg SkyConfig) (*Sky, error) {
	if cfg.View == nil || cfg.Tree == nil || cfg.Source == 0 {
		return nil, errors.New("skydns zone: View, Tree and Source: must be set")
	}
	z := &Sky{view: cfg.View, source: cfg.Source, tree: cfg.Tree}
	if err := z.apex.init(&cfg.Head, nil); err != nil {
		return nil, err
	}
	cfg.Tree.zone.Store(z)
	return z, nil
}

// SOA implements zones.Source.
func (z *Sky) SOA() zones.RRset { return (*soaSet)(&z.apex) }

// Lookup implements zones.Source. A question with a label * or any allocates.
func (z *Sky) Lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	a.Type, a.EDE = typ, zones.EDENone
	if below == 0 && (typ == wire.TypeSOA || typ == wire.TypeNS) {
		z.apex.lookup(name, below, typ, a)
		return
	}
	state, root := z.view.Source(z.source), z.tree.root.Load()
	if root == nil {
		a.Kind, a.EDE = zones.ServFail, wire.EDENotReady
		return
	}
	if !ready(state, a) {
		return
	}
	held := state.Held(state.Clock())
	n := root.find(name, below).standing(held)
	s, standin := z.service(name, below), (*pool.Service)(nil)
	if s != nil && ofInstances(typ) {
		standin = z.view.Standin(s)
	}
	switch {
	case standin != s && standin != nil: // as the proxies forward
		a.Kind = zones.NoData
		answer(standin.Set(), typ, a)
	case below == 0:
		n = root
		if own := root.child([]byte("dns")); own != nil && own.child([]byte("apex")).standing(held) != nil {
			n = own.child([]byte("apex"))
		}
		a.Kind = zones.NoData
		answerSky(n.answered(held), n.record, typ, a)
	case n != nil:
		a.Kind = zones.NoData
		answerSky(n.answered(held), n.record, typ, a)
	case s != nil:
		a.Kind = zones.NoData // it has a policy, and no record
	case z.apex.lookup(name, below, typ, a):
		return
	default:
		a.Kind = zones.NXDomain
		z.pattern(root, name, below, held, typ, a)
	}
	if a.Kind == zones.NoData || a.Kind == zones.NXDomain {
		explain(state, a)
	}
}

// service is the service of a name; nil: there is none.
func (z *Sky) service(name *wire.Name, below int) *pool.Service {
	if below == 0 {
		return nil
	}
	s := z.view.Find(z.source, relative(name, 0, below))
	if s == nil || s.Ancestor() {
		return nil
	}
	return s
}

// ofInstances reports whether records of a type are what another service's instances may
// stand in with.
func ofInstances(typ wire.Type) bool {
	return typ == wire.TypeA || typ == wire.TypeAAAA || typ == wire.TypeSRV
}

// pattern answers a question with a label that stands for every one.
func (z *Sky) pattern(root *skyNode, name *wire.Name, below int, held bool, typ wire.Type, a *zones.Answer) {
	for i := range below {
		if isAny(name.Label(i)) {
			visits := skyVisits
			all := root.matching(nil, name, below-1, held, &visits)
			switch {
			case len(all) > 0:
				a.Kind = zones.NoData
				answerSky(newSkySet(z.tree, all), nil, typ, a)
			case visits < 0:
				a.Kind = zones.ServFail // what there is was not all looked at
			}
			return
		}
	}
}

// answerSky finds the RRset of a type of a name that exists, which has a set, and a record
// of its own, self; nil: none.
func answerSky(s *skySet, self *skyRecord, typ wire.Type, a *zones.Answer) {
	switch typ {
	case wire.TypeCNAME, wire.TypePTR:
		if self != nil && self.host != nil {
			found(a, (*skyPointer)(own(a, self, 0, typ)))
		}
	case wire.TypeANY:
		if len(s.records) > 0 {
			a.Kind = zones.Found
		}
	default:
		for k := range skyKinds {
			if skyKinds[k].typ == typ && s.has[k] {
				found(a, (*skyRecords)(own(a, s, uint32(k), typ)))
				return
			}
		}
		if isAddress(typ) && s.alias != nil {
			a.Kind, a.Type, a.Target = zones.Alias, wire.TypeCNAME, s.alias.host
			a.RRset = (*skyPointer)(own(a, s.alias, 0, wire.TypeCNAME))
		}
	}
}
