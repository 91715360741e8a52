package authority_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

// benchZone has a name for every way of answering.
const benchZone = `$ORIGIN bench.test.
$TTL 300
@ SOA ns1 hostmaster 1 3600 900 604800 60
@ NS ns1
ns1 A 192.0.2.1
www A 192.0.2.10
www A 192.0.2.11
*.wild A 192.0.2.30
c1 CNAME c2
c2 CNAME c3
c3 CNAME www
sub NS ns.sub
ns.sub A 192.0.2.20
_http._tcp SRV 10 5 80 www
_live._tcp SRV 0 1 80 web.live.test.
_http._tcp SRV 10 5 81 ns1
gone DNAME bench.test.
$GENERATE 1-10000 host-$ A 192.0.2.1
`

// benchQueries is a question for every way of answering.
var benchQueries = []struct {
	name, qname string
	qtype       uint16
}{
	{"A", "www.bench.test.", dns.TypeA},
	{"NODATA", "www.bench.test.", dns.TypeTXT},
	{"NXDOMAIN", "nope.bench.test.", dns.TypeA},
	{"wildcard", "a.b.wild.bench.test.", dns.TypeA},
	{"CNAME chain", "c1.bench.test.", dns.TypeA},
	{"DNAME", "www.gone.bench.test.", dns.TypeA},
	{"referral", "www.sub.bench.test.", dns.TypeA},
	{"SRV", "_http._tcp.bench.test.", dns.TypeSRV},
	{"SRV of another zone's host", "_live._tcp.bench.test.", dns.TypeSRV},
	{"ANY", "www.bench.test.", dns.TypeANY},
	{"dynamic A", "web.live.test.", dns.TypeA},
	{"stale", "stale.live.test.", dns.TypeA},
	{"REFUSED", "www.elsewhere.test.", dns.TypeA},
}

// benchHandler answers from benchZone, from a dynamic zone, and from more zones
// of no interest.
func benchHandler(tb testing.TB, more int) *authority.Handler {
	tb.Helper()
	z, _, err := zonefile.Parse(strings.NewReader(benchZone), "bench", "bench.test.")
	if err != nil {
		tb.Fatal(err)
	}
	live := &dynamic{apex: name(tb, "live.test."), target: name(tb, "www.bench.test.")}
	all := []*zones.Zone{z, zones.NewSourceZone(live.apex, live)}
	for i := range more {
		all = append(all, zones.NewSourceZone(name(tb, fmt.Sprintf("z%d.more.test.", i)), live))
	}
	tree, err := zones.NewTree(all)
	if err != nil {
		tb.Fatal(err)
	}
	h, err := authority.New(authority.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	h.SetTree(tree)
	return h
}

// prepared is a parsed query with what answering it takes.
type prepared struct {
	q    wire.Query
	b    wire.Builder
	buf  []byte
	from dnsserver.Client
}

func prepare(tb testing.TB, qname string, qtype uint16, options ...dns.EDNS0) *prepared {
	tb.Helper()
	m := new(dns.Msg)
	m.SetQuestion(qname, qtype)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = options
	packed, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	p := &prepared{buf: make([]byte, wire.MaxPayload), from: client()}
	if d := wire.ParseQuery(packed, &p.q); d != wire.Proceed {
		tb.Fatalf("disposition %d", d)
	}
	return p
}

func (p *prepared) serve(h *authority.Handler) int {
	p.b.Start(p.buf, &p.q, wire.MaxPayload)
	h.ServeDNS(&p.b, &p.q, &p.from)
	return len(p.b.Finish())
}

// BenchmarkHandler_ServeDNS is lookup and answer, without sockets and parsing.
func BenchmarkHandler_ServeDNS(b *testing.B) {
	for _, more := range []int{0, 10000} {
		h := benchHandler(b, more)
		for _, tt := range benchQueries {
			b.Run(fmt.Sprintf("%s/zones=%d", tt.name, more+2), func(b *testing.B) {
				p := prepare(b, tt.qname, tt.qtype)
				b.ReportAllocs()
				for b.Loop() {
					p.serve(h)
				}
			})
		}
	}
}

// BenchmarkHandler_ServeDNS_parallel shows whether cores get in each other's way.
func BenchmarkHandler_ServeDNS_parallel(b *testing.B) {
	h := benchHandler(b, 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		p := prepare(b, "www.bench.test.", dns.TypeA)
		for pb.Next() {
			p.serve(h)
		}
	})
}
