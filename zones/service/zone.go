package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// The defaults of zones.
const (
	ttlDefault      = 5 * time.Second
	negativeDefault = 2 * time.Second // what is not there now may be there in a moment
)

// nsLabel is the label below the apex of the name server of a zone that names none; no
// service may have it (Head.Reserved).
const nsLabel = "ns1"

// Config configures a service zone.
type Config struct {
	Head   Head
	View   *pool.View
	Source registry.SourceID // whose services the zone has
	// Whole is pool.Pool.Whole, for transfers of the zone, whose serial number then rises
	// with every change; nil: there are none, and it stays.
	Whole func(ctx context.Context, source registry.SourceID) ([]*pool.Service, uint32, error)
}

// Zone answers the names of one service zone. It is immutable and safe for
// concurrent use.
type Zone struct {
	apex   apex
	view   *pool.View
	source registry.SourceID

	everything func(ctx context.Context, source registry.SourceID) ([]*pool.Service, uint32, error)
}

var (
	_ zones.Source = (*Zone)(nil)
	_ zones.Warmer = (*Zone)(nil)
)

// New returns the zone of cfg.
func New(cfg Config) (*Zone, error) {
	if cfg.View == nil {
		return nil, errors.New("service zone: View: must be set")
	}
	if cfg.Source == 0 {
		return nil, fmt.Errorf("service zone %q: Source: must be set", cfg.Head.Apex.String())
	}
	z := &Zone{view: cfg.View, source: cfg.Source, everything: cfg.Whole}
	var serial func() uint32
	if cfg.Whole != nil {
		serial = serialOf(cfg.View, cfg.Source)
	}
	if err := z.apex.init(&cfg.Head, serial); err != nil {
		return nil, err
	}
	return z, nil
}

// serialOf returns the serial of a source: 0 while it is not known.
func serialOf(view *pool.View, source registry.SourceID) func() uint32 {
	return func() uint32 {
		if s := view.Source(source); s != nil {
			return s.Serial()
		}
		return 0
	}
}

// errNotReady is the error of Export while nothing is known, or nothing fresh
// enough.
var errNotReady = errors.New("the registry's state is not known, or too old")

// SOA implements zones.Source.
func (z *Zone) SOA() zones.RRset { return (*soaSet)(&z.apex) }

// Lookup implements zones.Source.
func (z *Zone) Lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	a.Type, a.EDE = typ, zones.EDENone
	if z.apex.lookup(name, below, typ, a) {
		return
	}
	state := z.view.Source(z.source)
	if !ready(state, a) {
		return
	}
	z.find(state, name, below, typ, a)
	if a.Kind == zones.NoData || a.Kind == zones.NXDomain {
		explain(state, a)
	}
}

// Hash implements zones.Warmer. The labels before a service's name are no part of it.
func (z *Zone) Hash(name *wire.Name, below int) uint64 {
	skip := 0
	for skip < below && unregistered(name.Label(skip)) {
		skip++
	}
	return z.view.Hash(z.source, relative(name, skip, below))
}

// Warm implements zones.Warmer.
func (z *Zone) Warm(step int, hash uint64) uint64 { return z.view.Warm(step, hash) }

// ready reports whether a source's state may be answered from, and fills a if
// not: nothing known yet is no proof that a name does not exist.
func ready(state *pool.SourceView, a *zones.Answer) bool {
	if state == nil {
		a.Kind, a.EDE = zones.ServFail, wire.EDENotReady
		return false
	}
	switch f, age := state.Freshness(state.Clock()); f {
	case pool.NotReady:
		a.Kind, a.EDE = zones.ServFail, wire.EDENotReady // RFC 8914 section 4.15
		return false
	case pool.Expired:
		a.Kind, a.EDE, a.Age = zones.ServFail, wire.EDENoReachable, age
		return false
	case pool.Fresh, pool.Stale:
	}
	return true
}

// explain adds to a negative answer that it is stale.
func explain(state *pool.SourceView, a *zones.Answer) {
	if f, age := state.Freshness(state.Clock()); f == pool.Stale {
		a.EDE, a.Age = wire.EDEStale, age
	}
}

// found fills a with a set.
func found(a *zones.Answer, set zones.RRset) { a.Kind, a.RRset = zones.Found, set }
