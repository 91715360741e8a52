package service_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a pool with a service zone and a reverse zone over it.
type server struct {
	t    testing.TB
	pool *pool.Pool
	tree *zones.Tree
	sky  *service.SkyTree // of sky.test.
	sink func(registry.Batch) error

	buf  [65535]byte
	b    wire.Builder
	q    *wire.Query
	a    zones.Answer
	req  zones.Request
	size int // the client's limit
}

func mustName(s string) wire.Name {
	n, err := wire.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

// newServer runs a server until stop is called.
func newServer(t testing.TB, defaults registry.Service) (*server, func()) {
	t.Helper()
	defaults.Name = "*"
	p, err := pool.New(pool.Config{
		Encode: service.Encode,
		Settings: pool.Settings{Reverse: true, ChurnHold: time.Minute, Sources: []pool.Source{{
			ID: 1, Zone: "svc.test.", Defaults: []registry.Service{defaults}, Reserved: []string{"ns1"},
		}, {
			ID: 2, Zone: "sky.test.", Defaults: []registry.Service{defaults}, OwnTTLs: true,
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	apex := mustName("svc.test.")
	z, err := service.New(service.Config{
		Head: service.Head{Apex: apex, Hosts: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}},
		View: p.View(), Source: 1, Whole: p.Whole,
	})
	if err != nil {
		t.Fatal(err)
	}
	all := []*zones.Zone{zones.NewSourceZone(apex, z)}
	for _, name := range []string{"10.in-addr.arpa.", "d.f.ip6.arpa."} {
		r, err := service.NewReverse(service.ReverseConfig{View: p.View(), Head: service.Head{
			Apex: mustName(name), Servers: []service.NameServer{{Name: mustName("ns1.svc.test.")}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, zones.NewSourceZone(mustName(name), r))
	}
	apex = mustName("sky.test.")
	sky := service.NewSkyTree(apex)
	of, err := service.NewSky(service.SkyConfig{Head: service.Head{Apex: apex}, View: p.View(), Source: 2, Tree: sky})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := zones.NewTree(append(all, zones.NewSourceZone(apex, of)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	s := &server{t: t, pool: p, tree: tree, sky: sky, sink: p.Sink(ctx), q: new(wire.Query), size: 1232}
	s.feed(registry.Batch{Source: 2, Reset: true})
	return s, func() { cancel(); <-done }
}

func (s *server) apply(b registry.Batch) {
	s.t.Helper()
	b.Source = 1
	s.feed(b)
}

// feed sinks a batch of a source and waits until the writer has it.
func (s *server) feed(b registry.Batch) {
	s.t.Helper()
	if b.AsOf.IsZero() {
		b.AsOf = time.Now()
	}
	if err := s.sink(b); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.pool.Status(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// parse makes a query.
func (s *server) parse(name, typ string) {
	s.t.Helper()
	var m dns.Msg
	m.SetQuestion(dns.Fqdn(name), dns.StringToType[typ])
	m.SetEdns0(uint16(s.size), false)
	msg, err := m.Pack()
	if err != nil {
		s.t.Fatal(err)
	}
	if d := wire.ParseQuery(msg, s.q); d != wire.Proceed {
		s.t.Fatalf("%s %s: disposition %d", name, typ, d)
	}
}

// reply answers the parsed query as the authority does, without negative
// sections, which are its matter.
func (s *server) reply() zones.Result {
	s.b.Start(s.buf[:], s.q, s.size)
	s.tree.Lookup(&s.q.Name, s.q.Type, &s.a)
	s.req.Hash, s.req.Hashed, s.req.Type = s.a.Hash, s.a.Hashed, s.q.Type
	if s.a.Kind != zones.Found || s.a.RRset == nil {
		return zones.Result{EDE: s.a.EDE, Age: s.a.Age}
	}
	return s.a.RRset.Append(&s.b, wire.RefQName, &s.req)
}

// answer is a reply as miekg/dns reads it.
type answer struct {
	kind   string
	res    zones.Result
	msg    dns.Msg
	answer []string
	extra  []string
	ede    []uint16
	octets int
}

var kinds = map[zones.Kind]string{
	zones.Refused: "REFUSED", zones.Found: "NOERROR", zones.NoData: "NODATA", zones.NXDomain: "NXDOMAIN", zones.ServFail: "SERVFAIL",
}

// ask asks a question. Records are sorted and have single spaces.
func (s *server) ask(name, typ string) answer {
	s.t.Helper()
	s.parse(name, typ)
	s.req.Now = time.Now().UnixNano()
	s.req.Rand += 0x9e3779b97f4a7c15
	out := answer{res: s.reply()}
	out.kind = kinds[s.a.Kind]
	if s.a.Kind == zones.Found && s.a.RRset != nil && out.res.Answers == 0 && !out.res.Truncated {
		out.kind = "NODATA"
	}
	if out.res.EDE != zones.EDENone {
		out.ede = append(out.ede, out.res.EDE)
	}
	packed := s.b.Finish()
	out.octets = len(packed)
	if err := out.msg.Unpack(packed); err != nil {
		s.t.Fatalf("%s %s: %v", name, typ, err)
	}
	if opt := out.msg.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				out.ede = append(out.ede, e.InfoCode)
			}
		}
	}
	for _, rr := range out.msg.Answer {
		out.answer = append(out.answer, line(rr))
	}
	for _, rr := range out.msg.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			out.extra = append(out.extra, line(rr))
		}
	}
	if len(out.answer) != out.res.Answers || len(out.extra) != out.res.Additional {
		s.t.Errorf("%s %s: %d answers, %d additional; the result says %+v", name, typ, len(out.answer), len(out.extra), out.res)
	}
	slices.Sort(out.answer)
	slices.Sort(out.extra)
	return out
}

func line(rr dns.RR) string { return strings.Join(strings.Fields(rr.String()), " ") }

// String is the outcome and the records, a line each.
func (a answer) String() string {
	out := a.kind
	for _, l := range a.answer {
		out += "\n" + l
	}
	for _, l := range a.extra {
		out += "\n+ " + l
	}
	return out
}

func instance(svc, id string, addrs ...string) registry.Instance {
	i := registry.Instance{Service: svc, ID: id, Port: 80, Weight: 1, Incarnation: 1}
	for _, a := range addrs {
		i.Addresses = append(i.Addresses, netip.MustParseAddr(a))
	}
	return i
}

// many makes n instances of a service.
func many(svc string, n int) []registry.Instance {
	var list []registry.Instance
	for i := range n {
		list = append(list, instance(svc, fmt.Sprintf("i%03d", i), fmt.Sprintf("10.9.%d.%d", i/256, i%256)))
	}
	return list
}
