package service

import (
	"bytes"
	"context"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

var _ zones.Exporter = (*Zone)(nil)

// Export implements zones.Exporter: the apex, every service with all its instances
// that may be answered now, the names of its ports, tags and zones with theirs, and
// every instance by its own name. What is made on asking is left out: `_hash`,
// `_why`, and the names of DNS-SD.
func (z *Zone) Export(ctx context.Context) ([]zones.Record, error) {
	if z.everything == nil {
		return nil, zones.ErrNoExport
	}
	var a zones.Answer
	if !ready(z.view.Source(z.source), &a) {
		return nil, errNotReady
	}
	services, serial, err := z.everything(ctx, z.source)
	if err != nil {
		return nil, err
	}
	e := exporter{}
	apex := z.apex // whose serial is that of the services
	apex.serial = func() uint32 { return serial }
	apex.export(&e)
	for _, s := range services {
		e.service(s)
	}
	return e.records, nil
}

// exporter gathers records.
type exporter struct{ records []zones.Record }

// add adds a set.
func (e *exporter) add(owner []byte, typ wire.Type, ttl uint32, set zones.RRset) {
	if len(owner) > 255 {
		return // no name (RFC 1035 section 2.3.4)
	}
	for rdata := range set.All {
		e.records = append(e.records, zones.Record{Owner: owner, Type: typ, TTL: ttl, RData: bytes.Clone(rdata)})
	}
}

func (x *apex) export(e *exporter) {
	name := x.name.Wire()
	e.add(name, wire.TypeSOA, x.ttl, (*soaSet)(x))
	e.add(name, wire.TypeNS, x.serversTTL, (*nsSet)(x))
	for i := range x.servers {
		s := &x.servers[i]
		e.name(s.name, s.ttl, s.answer)
	}
}

// exported are the types that the names of a service and of its parts may have.
var exported = [...]wire.Type{wire.TypeA, wire.TypeAAAA, wire.TypeSRV, wire.TypeTXT, wire.TypeHTTPS, wire.TypeSVCB}

// name adds what a name has of the exported types, found by answer.
func (e *exporter) name(owner []byte, ttl uint32, answer func(typ wire.Type, a *zones.Answer)) {
	for _, typ := range exported {
		a := zones.Answer{Kind: zones.NoData}
		if answer(typ, &a); a.Kind == zones.Found && a.RRset != nil {
			e.add(owner, typ, ttl, a.RRset)
		}
	}
}

func (e *exporter) service(s *pool.Service) {
	own := []byte(s.Absolute())
	ttl := s.TTL()
	for _, f := range []pool.Family{pool.FamilyA, pool.FamilyAAAA, pool.FamilySRV} {
		if g := s.Set().Group(f); g != nil && g.Members() > 0 {
			ttl = min(ttl, g.TTL())
		}
	}
	e.name(own, ttl, func(typ wire.Type, a *zones.Answer) { whole(s, s, typ, a) })
	if first := own[1 : 1+own[0]]; len(first) < labelMax && has(s.Set(), pool.FamilySRV) {
		for _, proto := range []string{labelTCP, labelUDP} { // as byProtocol has it
			owner := prepend("_"+string(first), prepend(proto, own[1+len(first):]))
			e.add(owner, wire.TypeSRV, ttl, &partSet{Of: s.Set(), Type: wire.TypeSRV})
		}
	}
	for set := range s.Filters() {
		e.name(filterName(set, own), ttl, func(typ wire.Type, a *zones.Answer) { filtered(s, set, typ, a) })
	}
	for i := range uint32(s.Len()) {
		owner := slices.Concat(s.Label(i), own)
		e.name(owner, s.InstanceTTL(i), func(typ wire.Type, a *zones.Answer) { answerInstance(s, i, typ, a) })
	}
}

// filterName is the name that a part of a service is asked for by.
func filterName(set *pool.Set, service []byte) []byte {
	switch set.Kind() {
	case pool.FilterTag:
		return prepend(set.Name(), prepend(labelTag, service))
	case pool.FilterZone:
		return prepend(set.Name(), prepend(labelZone, service))
	case pool.FilterPort:
		if set.UDP() {
			return prepend("_"+set.Name(), prepend(labelUDP, service))
		}
		return prepend("_"+set.Name(), prepend(labelTCP, service))
	case pool.FilterNone:
	}
	return service
}
