package authority_test

import (
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/wire"
)

func TestNew_errors(t *testing.T) {
	upstream := netip.MustParseAddrPort("192.0.2.53:53")
	tests := []struct {
		name   string
		config authority.Config
		want   string
	}{
		{"a zone that is no name", authority.Config{Access: []authority.Rule{{Zone: "a..b"}}}, `Access[0].Zone: parsing name "a..b"`},
		{"two rules for one zone", authority.Config{Access: []authority.Rule{{Zone: "."}, {Zone: "*"}}}, "Access[1].Zone: . has a rule already"},
		{"a network that is none", authority.Config{Access: []authority.Rule{{Zone: "a", Allow: make([]netip.Prefix, 1)}}}, "Access[0].Allow[0]: not a network"},
		{"a version that is no string", authority.Config{Chaos: authority.Chaos{Version: strings.Repeat("x", 256)}}, "Chaos.Version: 256 octets, at most 255"},
		{"an upstream without a port", authority.Config{Forward: authority.Forward{Upstreams: []netip.AddrPort{netip.AddrPortFrom(upstream.Addr(), 0)}}}, "Forward.Upstreams[0]: 192.0.2.53:0 is no address"},
		{"an upstream that is everywhere", authority.Config{Forward: authority.Forward{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}}}, "Forward.Upstreams[0]: 0.0.0.0:53 is no address"},
		{"too many upstreams", authority.Config{Forward: authority.Forward{Upstreams: slices.Repeat([]netip.AddrPort{upstream}, 9)}}, "Forward.Upstreams: 9, at most 8"},
		{"time that runs backwards", authority.Config{Forward: authority.Forward{Upstreams: []netip.AddrPort{upstream}, Timeout: -time.Second}}, "Forward.Timeout: -1s is negative"},
		{"a client network that is none", authority.Config{Forward: authority.Forward{Upstreams: []netip.AddrPort{upstream}, Allow: make([]netip.Prefix, 1)}}, "Forward.Allow[0]: not a network"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := authority.New(tt.config)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestHandler_SetConfig(t *testing.T) {
	h := benchHandler(t, 0)
	closed := authority.Config{Access: []authority.Rule{{Zone: "*"}}}
	if err := h.SetConfig(closed); err != nil {
		t.Fatal(err)
	}
	if err := h.SetConfig(authority.Config{Access: []authority.Rule{{Zone: ".."}}}); err == nil {
		t.Error("a bad configuration was taken")
	}
	if got, want := asked(t, h, "www.bench.test."), "REFUSED qr"; got != want {
		t.Errorf("after a bad configuration: got %q, want %q", got, want)
	}
	if err := h.SetConfig(authority.Config{}); err != nil {
		t.Fatal(err)
	}
	if got, want := asked(t, h, "www.bench.test."), "NOERROR qr aa"; got != want {
		t.Errorf("after a good one: got %q, want %q", got, want)
	}
}

func asked(t *testing.T, h *authority.Handler, qname string) string {
	t.Helper()
	q := ask(qname, false)
	q.RecursionDesired = false
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return status(exchange(t, h, packed, client()))
}

// TestHandler_refusals: the first refusals of a second say why; a flood of them is no larger
// than its questions but for those, whoever is said to have asked, and so of no use for
// reflection. Who is known is always told.
func TestHandler_refusals(t *testing.T) {
	h := benchHandler(t, 0)
	err := h.SetConfig(authority.Config{Access: []authority.Rule{{Zone: "bench.test.", Allow: []netip.Prefix{}}}})
	if err != nil {
		t.Fatal(err)
	}
	from := client()
	asked, answered, explained := 0, 0, 0
	ask := func(qname string, typ uint16, size uint16) bool {
		t.Helper()
		m := new(dns.Msg)
		m.SetQuestion(qname, typ)
		m.SetEdns0(size, size > 4096)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		r := exchange(t, h, packed, from)
		if r.Rcode != dns.RcodeRefused {
			t.Errorf("%s %s: %s", qname, dns.TypeToString[typ], status(r))
		}
		reply, err := r.Pack()
		if err != nil {
			t.Fatal(err)
		}
		asked, answered = asked+len(packed), answered+len(reply)
		if len(edes(r)) > 0 {
			explained++
		}
		return len(edes(r)) > 0
	}
	if !ask("www.elsewhere.test.", dns.TypeA, 1232) || !ask("www.bench.test.", dns.TypeA, 1232) {
		t.Error("the first refusals say nothing")
	}
	for range 1000 {
		for _, qname := range []string{"www.elsewhere.test.", "www.bench.test.", ".", strings.Repeat("a.", 127)} {
			ask(qname, dns.TypeANY, 1232)
			ask(qname, dns.TypeAXFR, 65535)
		}
	}
	const ede = 6 // octets
	if most := 16 * runtime.GOMAXPROCS(0); explained > most || answered > asked+ede*explained {
		t.Errorf("%d refusals of one second are explained, want %d at most; %d octets for %d", explained, most, answered, asked)
	}
	from.Now = 1e9
	if !ask("www.elsewhere.test.", dns.TypeA, 1232) {
		t.Error("a second later nothing is said")
	}
	from.Known = true
	for range 1000 {
		if !ask("www.elsewhere.test.", dns.TypeA, 1232) {
			t.Fatal("a client that is known is not told")
		}
	}
}

func TestHandler_New(t *testing.T) {
	h, err := authority.New(authority.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asked(t, h, "www.bench.test."), "REFUSED qr"; got != want {
		t.Errorf("before the first tree: got %q, want %q", got, want)
	}
}

func TestHandler_Counts(t *testing.T) {
	h := benchHandler(t, 0)
	for _, qname := range []string{"www.bench.test.", "ns1.bench.test.", "nope.bench.test.", "www.elsewhere.test.", "x.sub.bench.test.", "cold.live.test."} {
		asked(t, h, qname)
	}
	want := []authority.Count{
		{Transport: dnsserver.UDP, Outcome: authority.Answered, Queries: 2},
		{Transport: dnsserver.UDP, Outcome: authority.Referred, Queries: 1},
		{Transport: dnsserver.UDP, Outcome: authority.NXDomain, Queries: 1},
		{Transport: dnsserver.UDP, Outcome: authority.OutsideZones, Queries: 1},
		{Transport: dnsserver.UDP, Outcome: authority.NotReady, Queries: 1},
	}
	if got := slices.Collect(h.Counts()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for c := range h.Counts() {
		if text, err := c.Outcome.MarshalText(); err != nil || string(text) == "unknown" {
			t.Errorf("%d is written %q, %v", c.Outcome, text, err)
		}
	}
}

// FuzzHandler_ServeDNS answers whatever ParseQuery lets proceed with a message
// that another implementation can read, within the client's limit.
func FuzzHandler_ServeDNS(f *testing.F) {
	h := benchHandler(f, 0)
	for _, tt := range benchQueries {
		m := ask(tt.qname, true)
		m.Question[0].Qtype = tt.qtype
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		var q wire.Query
		if wire.ParseQuery(query, &q) != wire.Proceed {
			return
		}
		m := exchange(t, h, query, client())
		if !m.Response || m.Id != q.ID || len(m.Question) != 1 || m.Question[0].Qtype != uint16(q.Type) {
			t.Errorf("the response to %x is %v", query, m)
		}
		if m.Rcode == dns.RcodeNameError && len(m.Ns) == 0 && !m.Truncated {
			t.Errorf("NXDOMAIN without SOA to %x", query)
		}
	})
}
