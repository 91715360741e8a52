package authority_test

import (
	"net/netip"
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

// TestHandler_refusals: a refusal over UDP is no larger than the question, whoever is said
// to have asked it: it is of no use for reflection.
func TestHandler_refusals(t *testing.T) {
	h := benchHandler(t, 0)
	err := h.SetConfig(authority.Config{Access: []authority.Rule{{Zone: "bench.test.", Allow: []netip.Prefix{}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, qname := range []string{"www.elsewhere.test.", "www.bench.test.", ".", strings.Repeat("a.", 127)} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeANY, dns.TypeTXT, dns.TypeAXFR} {
			for _, edns := range []func(*dns.Msg){func(*dns.Msg) {}, func(m *dns.Msg) { m.SetEdns0(1232, false) }, func(m *dns.Msg) { m.SetEdns0(65535, true) }} {
				m := new(dns.Msg)
				m.SetQuestion(qname, typ)
				edns(m)
				packed, err := m.Pack()
				if err != nil {
					t.Fatal(err)
				}
				r := exchange(t, h, packed, client())
				if r.Rcode != dns.RcodeRefused {
					t.Errorf("%s %s: %s", qname, dns.TypeToString[typ], status(r))
				}
				r.Compress = true
				if reply, err := r.Pack(); err != nil || len(reply) > len(packed) {
					t.Errorf("%s %s: %d octets for %d: %v", qname, dns.TypeToString[typ], len(reply), len(packed), err)
				}
			}
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
