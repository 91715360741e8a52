package service

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// Head is what a zone says of itself, whatever is registered: SOA and NS at its apex, and
// its name servers' addresses.
type Head struct {
	Apex wire.Name
	// Servers are the name servers, at most ServersMax, the first as the SOA record's
	// MNAME. The parent zone must have the same, so that they are told and not found
	// out. None: ns1 below the apex, with the addresses Hosts.
	Servers     []NameServer
	Hosts       []netip.Addr
	Mailbox     wire.Name     // of who answers for the zone (RNAME); the zero Name: hostmaster below the apex
	TTL         time.Duration // of the apex's records, but NS where Servers are given (1 h); 0: 5 s
	NegativeTTL time.Duration // SOA's MINIMUM; 0: 2 s
	// Refresh, Retry and Expire are what secondaries go by; 0: a minute, 10 s and 7
	// days, as a zone that changes by the second is refreshed often. Where there can be
	// no secondaries the first two are 4 h and 1 h, which nobody goes by and registrars
	// look for.
	Refresh, Retry, Expire time.Duration
}

// NameServer is a name server of a zone. One whose name is right below the zone's apex is
// answered there, with its addresses; another has none here.
type NameServer struct {
	Name      wire.Name
	Addresses []netip.Addr
}

// ServersMax is the most name servers of a zone: as many as the root zone has.
const ServersMax = 13

const (
	// serversTTL is that of the name servers that the configuration gives, in seconds: a
	// resolver whose NS records have run out asks the parent zone's servers anew.
	serversTTL = 3600
	// serialNobody is the serial number of a zone that nobody can take over: the same at
	// all of its servers, each of which sees changes at times of its own, and always, so
	// that the signatures of negative answers outlast changes.
	serialNobody = 1
)

// Reserved lists the service names that a zone needs for itself, for pool.Source.
func (h *Head) Reserved() []string {
	if len(h.Servers) == 0 {
		return []string{nsLabel}
	}
	var out []string
	for i := range h.Servers {
		if below, ok := h.Servers[i].Name.Below(&h.Apex); ok && below == 1 {
			out = append(out, string(h.Servers[i].Name.Label(0)))
		}
	}
	return out
}

// apex is the records that a zone of ours has whatever is registered: SOA and
// NS, and the name servers' addresses.
type apex struct {
	name          wire.Name
	servers       []nameServer
	mailbox       []byte
	ttl, negative uint32
	serversTTL    uint32
	times         [3]uint32     // refresh, retry, expire
	serial        func() uint32 // nil: nobody asks
}

// nameServer is a name server in wire form.
type nameServer struct {
	name      []byte
	label     []byte // of name, which is answered here; empty: it is not
	ttl       uint32
	addresses [2][]netip.Addr // by family
}

type (
	soaSet  apex
	nsSet   apex
	hostSet zones.Own // A or AAAA of a *nameServer
)

// init makes the apex of h. With a serial number it is that of a zone that secondaries can
// take over.
func (x *apex) init(h *Head, serial func() uint32) error {
	if h.TTL < 0 || h.NegativeTTL < 0 {
		return fmt.Errorf("zone %q: ttl %s, negative ttl %s: must not be negative", h.Apex.String(), h.TTL, h.NegativeTTL)
	}
	if h.Apex.Len()+len("hostmaster")+1 > 255 {
		return errors.New("zone: the name is too long to have names below it")
	}
	if len(h.Servers) > ServersMax {
		return fmt.Errorf("zone %q: %d name servers: must be %d at most", h.Apex.String(), len(h.Servers), ServersMax)
	}
	x.name, x.serial = h.Apex, serial
	if x.mailbox = bytes.Clone(h.Mailbox.Wire()); len(x.mailbox) == 0 {
		x.mailbox = prepend("hostmaster", h.Apex.Wire())
	}
	x.ttl, x.negative = seconds(h.TTL, ttlDefault), seconds(h.NegativeTTL, negativeDefault)
	refresh, retry := 4*time.Hour, time.Hour
	if serial != nil {
		refresh, retry = time.Minute, 10*time.Second
	}
	for i, d := range [...]time.Duration{cmp.Or(h.Refresh, refresh), cmp.Or(h.Retry, retry), cmp.Or(h.Expire, 7*24*time.Hour)} {
		x.times[i] = uint32(min(max(d/time.Second, 1), math.MaxInt32))
	}
	x.serversTTL = serversTTL
	servers := h.Servers
	if len(servers) == 0 {
		var ns1 wire.Name
		ns1.Set(prepend(nsLabel, h.Apex.Wire()))
		servers, x.serversTTL = []NameServer{{ns1, h.Hosts}}, x.ttl
	}
	for i := range servers {
		if err := x.addServer(&servers[i]); err != nil {
			return err
		}
	}
	return nil
}

// addServer adds a name server.
func (x *apex) addServer(s *NameServer) error {
	below, inside := s.Name.Below(&x.name)
	if s.Name.Len() == 0 || inside && below != 1 {
		return fmt.Errorf("zone %q: name server %q: must lie right below the zone's apex, or outside the zone", x.name.String(), s.Name.String())
	}
	n := nameServer{name: bytes.Clone(s.Name.Wire()), ttl: x.serversTTL}
	if inside {
		n.label = bytes.Clone(s.Name.Label(0))
		for _, a := range s.Addresses {
			switch a = a.Unmap(); {
			case a.Is4():
				n.addresses[pool.FamilyA] = append(n.addresses[pool.FamilyA], a)
			case a.Is6():
				n.addresses[pool.FamilyAAAA] = append(n.addresses[pool.FamilyAAAA], a)
			}
		}
	}
	x.servers = append(x.servers, n)
	return nil
}

func prepend(label string, name []byte) []byte {
	return slices.Concat([]byte{uint8(len(label))}, []byte(label), name)
}

// seconds is d within the bounds of a TTL, def when it is 0.
func seconds(d, def time.Duration) uint32 {
	if d == 0 {
		d = def
	}
	return uint32(min(max(d, registry.TTLMin), registry.TTLMax) / time.Second)
}

// lookup answers the apex and the name servers below it; false: the name is neither.
func (x *apex) lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) bool {
	if below == 0 {
		a.Kind = zones.NoData
		switch typ {
		case wire.TypeSOA:
			found(a, (*soaSet)(x))
		case wire.TypeNS:
			found(a, (*nsSet)(x))
		case wire.TypeANY:
			a.Kind = zones.Found
		}
		return true
	}
	if below > 1 {
		return false
	}
	for i := range x.servers {
		if s := &x.servers[i]; string(s.label) == string(name.Label(0)) {
			s.answer(typ, a)
			return true
		}
	}
	return false
}

// answer answers a name server's own name.
func (s *nameServer) answer(typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NoData
	switch {
	case isAddress(typ) && len(s.addresses[familyOf(typ)]) > 0:
		found(a, (*hostSet)(own(a, s, 0, typ)))
	case typ == wire.TypeANY && len(s.addresses[pool.FamilyA])+len(s.addresses[pool.FamilyAAAA]) > 0:
		a.Kind = zones.Found
	}
}

// rdata writes the SOA's RDATA (RFC 1035 section 3.3.13) into buf.
func (s *soaSet) rdata(buf []byte) []byte {
	buf = append(append(buf, s.servers[0].name...), s.mailbox...)
	serial := uint32(serialNobody)
	if s.serial != nil {
		serial = s.serial()
	}
	for _, n := range [...]uint32{serial, s.times[0], s.times[1], s.times[2], s.negative} {
		buf = binary.BigEndian.AppendUint32(buf, n)
	}
	return buf
}

// Append implements zones.RRset.
func (s *soaSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	if r.Section == wire.Authority {
		res.TTL = s.negative // RFC 2308 section 3
	}
	var buf [2*255 + 20]byte
	_, ok := b.RRCompress(r.Section, owner, wire.TypeSOA, wire.ClassIN, res.TTL, s.rdata(buf[:0]))
	return one(res, ok)
}

// one completes the result of a set of one record.
func one(res zones.Result, ok bool) zones.Result {
	if ok {
		res.Answers = 1
	} else {
		res.Truncated = true
	}
	return res
}

// All implements zones.RRset.
func (s *soaSet) All(yield func([]byte) bool) { yield(s.rdata(nil)) }

// Append implements zones.RRset.
func (s *nsSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.serversTTL, EDE: zones.EDENone}
	var refs [ServersMax]wire.Ref
	for i := range s.servers {
		var ok bool
		if refs[i], ok = b.RRName(r.Section, owner, wire.TypeNS, wire.ClassIN, s.serversTTL, nil, s.servers[i].name, true); !ok {
			res.Truncated = true
			return res
		}
		res.Answers++
	}
	if r.Bare {
		return res
	}
	for i := range s.servers {
		for _, addresses := range s.servers[i].addresses { // as many as fit
			res.Additional += place{b, wire.Additional, refs[i], s.serversTTL}.list(addresses)
		}
	}
	return res
}

// All implements zones.RRset.
func (s *nsSet) All(yield func([]byte) bool) {
	for i := range s.servers {
		if !yield(s.servers[i].name) {
			return
		}
	}
}

// list are the addresses.
func (o *hostSet) list() (s *nameServer, addresses []netip.Addr) {
	s = ownOf[nameServer]((*zones.Own)(o))
	return s, s.addresses[familyOf(o.Type)]
}

// Append implements zones.RRset.
func (o *hostSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	s, addresses := o.list()
	n := place{b, r.Section, owner, s.ttl}.list(addresses)
	return zones.Result{TTL: s.ttl, EDE: zones.EDENone, Answers: n, Truncated: n < len(addresses)}
}

// All implements zones.RRset.
func (o *hostSet) All(yield func([]byte) bool) {
	_, addresses := o.list()
	yieldAddresses(addresses, yield)
}
