package authority_test

import (
	"strings"
	"testing"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// dynamic is a zone that answers by itself, as a registry does. Its names:
//
//	web     an A record          alias   a CNAME to where the script says
//	stale   an A record, EDE 3   gone    NXDOMAIN, EDE 3
//	aged    the same, EDE 3 from Lookup too
//	ill     NODATA from Append   cold    ServFail
//	near    an A record by the first 20 bits of the client
//	_why.web  a TXT record
type dynamic struct {
	apex   wire.Name
	target wire.Name
}

// newDynamic reads "APEX ALIAS-TARGET".
func newDynamic(t *testing.T, line string) *zones.Zone {
	apex, target, _ := strings.Cut(line, " ")
	d := &dynamic{apex: name(t, apex), target: name(t, target)}
	return zones.NewSourceZone(d.apex, d)
}

func name(t testing.TB, s string) wire.Name {
	t.Helper()
	n, err := wire.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (d *dynamic) SOA() zones.RRset { return (*dynamicSOA)(d) }

func (d *dynamic) Lookup(n *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NXDomain
	if below == 0 {
		a.Kind = zones.NoData
		return
	}
	a.Own.Number = uint32(below)
	a.RRset = (*picked)(&a.Own)
	has := wire.TypeA
	switch label := string(n.Label(0)); label {
	case "web":
		a.Own.Of = traits{}
	case "stale":
		a.Own.Of = traits{ede: wire.EDEStale, age: 42}
	case "aged":
		a.Own.Of = traits{ede: wire.EDEStale, age: 42}
		a.EDE, a.Age = wire.EDEStale, 41
	case "near":
		a.Own.Of = traits{near: true}
	case "ill":
		a.Own.Of = traits{none: true}
	case "_why":
		has, a.RRset = wire.TypeTXT, why{}
	case "alias":
		a.Kind, a.Type, a.Target, a.RRset = zones.Alias, wire.TypeCNAME, d.target.Wire(), (*cname)(d)
		return
	case "cold":
		a.Kind = zones.ServFail
		return
	case "gone":
		a.EDE, a.Age = wire.EDEStale, 7
		return
	default:
		return
	}
	a.Kind = zones.NoData
	if typ == has || typ == wire.TypeANY {
		a.Kind = zones.Found
	}
}

// picked is an A record, 192.0.2.N with N what Lookup found, of some traits.
type picked zones.Own

type traits struct {
	none bool
	near bool
	ede  uint16
	age  uint32
}

func (p *picked) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{EDE: zones.EDENone, TTL: 5}
	t, _ := p.Of.(traits)
	if t.ede != 0 {
		res.EDE, res.Age = t.ede, t.age
	}
	last := byte(p.Number)
	if t.near {
		client := r.Client.As4()
		last, res.Scope = client[2], min(r.Bits, 20)
	}
	if !t.none && b.A(r.Section, owner, res.TTL, [4]byte{192, 0, 2, last}) {
		res.Answers = 1
	}
	return res
}
func (*picked) All(func([]byte) bool) {}

type why struct{}

func (why) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, 1, []byte("\x02ok"))
	return zones.Result{Answers: 1, EDE: zones.EDENone, TTL: 1}
}
func (why) All(func([]byte) bool) {}

type cname dynamic

func (c *cname) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	_, ok := b.RRName(r.Section, owner, wire.TypeCNAME, wire.ClassIN, 5, nil, c.target.Wire(), true)
	return zones.Result{Answers: 1, Truncated: !ok, EDE: zones.EDENone, TTL: 5}
}
func (*cname) All(func([]byte) bool) {}

type dynamicSOA dynamic

func (s *dynamicSOA) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	rdata := append(append([]byte("\x02ns\x00"), "\x04root\x00"...), make([]byte, 20)...)
	_, ok := b.RRCompress(r.Section, owner, wire.TypeSOA, wire.ClassIN, 2, rdata)
	return zones.Result{Answers: 1, Truncated: !ok, EDE: zones.EDENone, TTL: 2}
}
func (*dynamicSOA) All(func([]byte) bool) {}
