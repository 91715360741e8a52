package service

import (
	"bytes"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The labels of DNS-SD (RFC 6763 sections 9 and 11).
const (
	labelDNSSD    = "_dns-sd"
	labelServices = "_services"
	labelAt       = '@' // between instance and service in one label
	labelMax      = 63
)

// The RRsets of DNS-SD: the ports that services have, the instances with one of
// them, and the domain to browse.
type (
	portsSet  pool.Listing
	browseSet pool.Listing
	domainSet apex
)

// browse answers the names below `_tcp.Z` and `_udp.Z`: services asked for by
// RFC 2782 and, of the same form, those of DNS-SD.
func (z *Zone) browse(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	port, proto := name.Label(below-2), name.Label(below-1)
	udp := string(proto) == labelUDP
	if udp && string(port) == labelDNSSD {
		z.browseZone(name, below, typ, a)
		return
	}
	if len(port) < 2 || !unregistered(port) {
		return
	}
	if below == 2 {
		z.byProtocol(name, below, typ, a)
	}
	listing := z.view.PortServices(z.source, port[1:], udp)
	switch {
	case listing == nil:
	case below == 2:
		if a.Kind == zones.NXDomain {
			a.Kind = zones.NoData
		}
		switch typ {
		case wire.TypePTR:
			found(a, (*browseSet)(listing))
		case wire.TypeANY:
			a.Kind = zones.Found
		}
	case below == 3:
		z.portOfInstance(name.Label(0), port[1:], udp, typ, a)
	}
}

// browseZone answers `_dns-sd._udp.Z` and the names below it.
func (z *Zone) browseZone(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	if below == 2 {
		a.Kind = zones.NoData
	}
	if below != 3 {
		return
	}
	var set zones.RRset
	switch string(name.Label(0)) {
	case labelServices: // section 9
		a.Kind = zones.NoData
		if l := z.view.Ports(z.source); l != nil {
			set = (*portsSet)(l)
		}
	case "b", "db", "lb": // section 11: the domains to browse, the default among them
		a.Kind = zones.NoData
		set = (*domainSet)(&z.apex)
	}
	switch {
	case set == nil:
	case typ == wire.TypePTR:
		found(a, set)
	case typ == wire.TypeANY:
		a.Kind = zones.Found
	}
}

// portOfInstance answers `web-1@web._http._tcp.Z`. The service's name may have
// several labels, with dots between them: "web-1@web.prod".
func (z *Zone) portOfInstance(label, port []byte, udp bool, typ wire.Type, a *zones.Answer) {
	id, service, ok := bytes.Cut(label, []byte{labelAt})
	if !ok {
		return
	}
	var buf [labelMax + 1]byte
	key, ok := dotted(buf[:0], service)
	if !ok {
		return
	}
	s := z.view.Find(z.source, key)
	if s == nil || s.Ancestor() {
		return
	}
	i := s.Instance(id)
	set := s.Filter(pool.FilterPort, port, udp)
	if i < 0 || set == nil || portOf(set, uint32(i)) == 0 {
		return
	}
	a.Kind = zones.NoData
	switch typ {
	case wire.TypeSRV, wire.TypeTXT:
		found(a, (*instanceSet)(own(a, set, uint32(i), typ)))
	case wire.TypeANY:
		a.Kind = zones.Found
	}
}

// dotted appends a name with dots in wire form, without a root.
func dotted(dst, name []byte) ([]byte, bool) {
	for {
		label, rest, more := bytes.Cut(name, []byte{'.'})
		if len(label) == 0 || len(label) > labelMax {
			return nil, false
		}
		dst = append(append(dst, uint8(len(label))), label...)
		if !more {
			return dst, true
		}
		name = rest
	}
}

// listingResult begins the result of what is read from a listing.
func listingResult(src *pool.SourceView, r *zones.Request) zones.Result {
	res := zones.Result{TTL: src.TTL(), EDE: zones.EDENone}
	stateOf(src, &res, r.Now)
	return res
}

// appendPort appends `_http._tcp` in wire form.
func appendPort(dst []byte, name string, udp bool) []byte {
	dst = append(append(dst, uint8(len(name)+1), '_'), name...)
	proto := labelTCP
	if udp {
		proto = labelUDP
	}
	return append(append(dst, uint8(len(proto))), proto...)
}

// nameMax is room for a name that may turn out to be too long.
const nameMax = 512

// pointer writes a PTR record; false: it did not fit.
func pointer(b *wire.Builder, owner wire.Ref, r *zones.Request, res *zones.Result, name []byte) bool {
	if len(name) > 255 {
		return true // no name (RFC 1035 section 2.3.4)
	}
	if _, ok := b.RRName(r.Section, owner, wire.TypePTR, wire.ClassIN, res.TTL, nil, name, true); !ok {
		res.Truncated = true
		return false
	}
	res.Answers++
	return true
}

// name appends the n-th port's name.
func (s *portsSet) name(dst []byte, n int) []byte {
	l := (*pool.Listing)(s)
	port, udp := pool.SplitPort(l.At(n))
	return append(appendPort(dst, port, udp), l.Origin().Apex()...)
}

// Append implements zones.RRset.
func (s *portsSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	l := (*pool.Listing)(s)
	res := listingResult(l.Origin(), r)
	var buf [nameMax]byte
	for n := range l.Len() {
		if !pointer(b, owner, r, &res, s.name(buf[:0], n)) {
			break
		}
	}
	return res
}

// All implements zones.RRset.
func (s *portsSet) All(yield func([]byte) bool) {
	for n := range (*pool.Listing)(s).Len() {
		if !yield(s.name(nil, n)) {
			return
		}
	}
}

// browser walks over the instances of a listing that may be answered now, and
// makes their names. Instances whose name makes no label together with their
// service's are left out.
type browser struct {
	listing *pool.Listing
	port    string
	udp     bool
	tiers   []pool.Tier // of the service under way
	service *pool.Service
	next    int // service
	at      int // instance of tiers[0]
}

func newBrowser(l *pool.Listing) browser {
	c := browser{listing: l}
	c.port, c.udp = l.Port()
	return c
}

// name appends the next instance's name; false: there is none any more.
func (c *browser) name(dst []byte) ([]byte, bool) {
	for {
		for len(c.tiers) > 0 && c.at == c.tiers[0].Size() {
			c.tiers, c.at = c.tiers[1:], 0
		}
		if len(c.tiers) == 0 {
			if c.next == c.listing.Len() {
				return nil, false
			}
			c.open(c.listing.Service(c.next))
			c.next++
			continue
		}
		i := c.tiers[0].At(c.at)
		c.at++
		if name, ok := appendInstance(dst, c.service, i); ok {
			return append(appendPort(name, c.port, c.udp), c.listing.Origin().Apex()...), true
		}
	}
}

// open begins a service; nil: it has gone meanwhile.
func (c *browser) open(s *pool.Service) {
	if s == nil {
		return
	}
	if set := s.Filter(pool.FilterPort, []byte(c.port), c.udp); set != nil {
		c.service, c.tiers = s, set.Group(pool.FamilySRV).Tiers()
	}
}

// Append implements zones.RRset.
func (s *browseSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	l := (*pool.Listing)(s)
	res := listingResult(l.Origin(), r)
	var buf [nameMax]byte
	c := newBrowser(l)
	for {
		name, ok := c.name(buf[:0])
		if !ok || !pointer(b, owner, r, &res, name) {
			return res
		}
	}
}

// All implements zones.RRset.
func (s *browseSet) All(yield func([]byte) bool) {
	c := newBrowser((*pool.Listing)(s))
	for {
		name, ok := c.name(nil)
		if !ok || !yield(name) {
			return
		}
	}
}

// appendInstance appends the label "web-1@web.prod"; false: it is too long.
func appendInstance(dst []byte, s *pool.Service, i uint32) ([]byte, bool) {
	dst = append(append(dst, s.Label(i)...), labelAt)
	for rest := s.Wire(); rest != ""; {
		size := int(rest[0])
		dst = append(dst, rest[1:1+size]...)
		if rest = rest[1+size:]; rest != "" {
			dst = append(dst, '.')
		}
	}
	dst[0] = uint8(min(len(dst)-1, 255))
	return dst, dst[0] <= labelMax
}

// Append implements zones.RRset.
func (s *domainSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	pointer(b, owner, r, &res, s.name.Wire())
	return res
}

// All implements zones.RRset.
func (s *domainSet) All(yield func([]byte) bool) { yield(s.name.Wire()) }
