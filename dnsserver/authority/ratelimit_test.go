package authority_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/wire"
)

// limited is a handler with a limit of 200 a second.
func limited(tb testing.TB, edit func(*authority.RateLimit)) *authority.Handler {
	tb.Helper()
	h := benchHandler(tb, 0)
	c := authority.Config{RateLimit: authority.RateLimit{PerSecond: 200, Slip: 2}}
	if edit != nil {
		edit(&c.RateLimit)
	}
	if err := h.SetConfig(c); err != nil {
		tb.Fatal(err)
	}
	return h
}

// asker asks one question after the other, at times of the test's choosing.
type asker struct {
	prepared
	rand *rand.Rand
}

func newAsker(tb testing.TB, from, qname string, options ...dns.EDNS0) *asker {
	p := prepare(tb, qname, dns.TypeA, options...)
	p.from.Addr = netip.AddrPortFrom(netip.MustParseAddr(from), 53)
	return &asker{prepared: *p, rand: rand.New(rand.NewPCG(1, 2))}
}

// ask asks at a time, and returns what came: "full", "TC", "BADCOOKIE" or
// "nothing".
func (a *asker) ask(h *authority.Handler, at time.Duration) string {
	a.from.Now = 1_700_000_000e9 + int64(at)
	a.from.Rand = a.rand.Uint64()
	a.b.Start(a.buf, &a.q, wire.MaxPayload)
	if h.ServeDNS(&a.b, &a.q, &a.from) == dnsserver.Drop {
		return "nothing"
	}
	msg := a.b.Finish()
	switch {
	case a.b.RCode() == wire.RCodeBadCookie:
		return "BADCOOKIE"
	case msg[2]&2 != 0 && msg[7] == 0:
		return "TC"
	}
	return "full"
}

// TestHandler_RateLimit_Flood: of 10,000 questions a second for one name from one
// /24 at most 5 % get a full answer, and clients of other networks lose none.
func TestHandler_RateLimit_Flood(t *testing.T) {
	for _, net := range []struct{ name, flood, other string }{
		{"IPv4", "192.0.2.%d", "198.51.100.1"},
		{"IPv6", "2001:db8:0:1%02x::1", "2001:db8:1::1"},
	} {
		t.Run(net.name, func(t *testing.T) {
			h := limited(t, nil)
			flood, other := newAsker(t, "192.0.2.1", "www.bench.test."), newAsker(t, net.other, "www.bench.test.")
			got, lost := map[string]int{}, 0
			const seconds, rate = 5, 10_000
			for i := range seconds * rate {
				at := time.Duration(i) * time.Second / rate
				flood.from.Addr = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(net.flood, i%256)), 53)
				got[flood.ask(h, at)]++
				if i%100 == 0 && other.ask(h, at) != "full" { // 100 a second
					lost++
				}
			}
			if all := seconds * rate; got["full"] > all*5/100 || got["full"] < 200*seconds || lost != 0 {
				t.Errorf("of %d: %v; want at most 5 %% full, and at least 200 a second; others lost %d", all, got, lost)
			}
			if share := float64(got["TC"]) / float64(got["TC"]+got["nothing"]); share < 0.47 || share > 0.53 {
				t.Errorf("%v: a share of %.2f of the rest has TC, want a half", got, share)
			}
			// A quiet second later everything is as before.
			if s := flood.ask(h, (seconds+1)*time.Second); s != "full" {
				t.Errorf("after the flood: %s", s)
			}
		})
	}
}

// burst asks the names in turn within a millisecond, and returns how many got a
// full answer.
func burst(t *testing.T, h *authority.Handler, n int, edit func(*asker), names ...string) int {
	t.Helper()
	askers := make([]*asker, len(names))
	for i, name := range names {
		askers[i] = newAsker(t, "192.0.2.1", name)
		if edit != nil {
			edit(askers[i])
		}
	}
	full := 0
	for i := range n {
		if askers[i%len(askers)].ask(h, time.Duration(i)*time.Microsecond) == "full" {
			full++
		}
	}
	return full
}

func TestHandler_RateLimit_WhatIsLike(t *testing.T) {
	random := func(format string) []string {
		var names []string
		for i := range 400 {
			names = append(names, fmt.Sprintf(format, i))
		}
		return names
	}
	for _, tt := range []struct {
		name  string
		names []string
		want  int
	}{
		{"one name", []string{"www.bench.test."}, 200},
		{"two names are two", []string{"www.bench.test.", "ns1.bench.test."}, 400},
		{"a name's letters in another case are the same", []string{"www.bench.test.", "WWW.bench.test."}, 200},
		{"random names of a zone are one", random("r%d.bench.test."), 200},
		{"random names of a wildcard are one", random("r%d.wild.bench.test."), 200},
		{"random names of a delegation are one", random("r%d.sub.bench.test."), 200},
		{"names in no zone are one", random("r%d.elsewhere.test."), 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := burst(t, limited(t, nil), 400, nil, tt.names...); got != tt.want {
				t.Errorf("%d of 400 got a full answer, want %d", got, tt.want)
			}
		})
	}
}

func TestHandler_RateLimit_Exempt(t *testing.T) {
	exempt := func(c *authority.RateLimit) { c.Exempt = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")} }
	for _, tt := range []struct {
		name   string
		config func(*authority.RateLimit)
		client func(*asker)
		want   int
	}{
		{"a client with a valid cookie (RFC 7873 section 5.2.5)", nil, func(a *asker) { a.from.Known = true }, 400},
		{"a client over TCP", nil, func(a *asker) { a.from.Transport = dnsserver.TCP }, 400},
		{"a network that is exempt", exempt, nil, 400},
		{"everyone, without a limit", func(c *authority.RateLimit) { c.PerSecond = 0 }, nil, 400},
		{"nobody else", nil, nil, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := burst(t, limited(t, tt.config), 400, tt.client, "www.bench.test."); got != tt.want {
				t.Errorf("%d of 400 got a full answer, want %d", got, tt.want)
			}
		})
	}
}

// TestHandler_RateLimit_BadCookie: RFC 7873 section 5.2.3. Who has a cookie of its
// own gets ours in place of TC, and comes back with it over UDP.
func TestHandler_RateLimit_BadCookie(t *testing.T) {
	h := limited(t, func(c *authority.RateLimit) { c.Slip = 1 })
	a := newAsker(t, "192.0.2.1", "www.bench.test.", &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
	for i := range 300 {
		want := "full"
		if i >= 200 {
			want = "BADCOOKIE"
		}
		if got := a.ask(h, 0); got != want {
			t.Fatalf("response %d: %s, want %s", i, got, want)
		}
	}
	counts := map[authority.Outcome]uint64{}
	for c := range h.Counts() {
		counts[c.Outcome] = c.Queries
	}
	if counts[authority.Answered] != 200 || counts[authority.CookieWanted] != 100 {
		t.Errorf("counted %v", counts)
	}
}

// TestHandler_RateLimit_Bounded: more networks than there are buckets cost no
// memory, only exactness, which is counted.
func TestHandler_RateLimit_Bounded(t *testing.T) {
	h := limited(t, nil)
	a := newAsker(t, "192.0.2.1", "www.bench.test.")
	for i := range 200_000 { // the table has 131,072 buckets
		a.from.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), 53)
		if s := a.ask(h, 0); s != "full" {
			t.Fatalf("the first question of network %d gets %s", i, s)
		}
	}
	if h.RateLimitEvictions() == 0 {
		t.Error("no bucket was lost, or none was counted")
	}
}

// TestHandler_RateLimit_Shared: workers side by side give no more than one would.
func TestHandler_RateLimit_Shared(t *testing.T) {
	h := limited(t, nil)
	var full atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		a := newAsker(t, "192.0.2.1", "www.bench.test.")
		workers.Go(func() {
			for range 1000 {
				if a.ask(h, 0) == "full" {
					full.Add(1)
				}
			}
		})
	}
	workers.Wait()
	if n := full.Load(); n > 200 || n < 190 { // one that loses a race may be refused early
		t.Errorf("%d full answers, want 200", n)
	}
}

func TestNew_RateLimitErrors(t *testing.T) {
	for _, bad := range []authority.RateLimit{{PerSecond: -1}, {PerSecond: authority.RateMax + 1}, {PerSecond: 1, Slip: -1}} {
		if _, err := authority.New(authority.Config{RateLimit: bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func BenchmarkHandler_RateLimit(b *testing.B) {
	for name, from := range map[string]string{"counted": "192.0.2.1", "exempt": "127.0.0.1"} {
		b.Run(name, func(b *testing.B) {
			h := limited(b, func(c *authority.RateLimit) {
				c.PerSecond = authority.RateMax
				c.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			})
			a := newAsker(b, from, "www.bench.test.")
			b.ReportAllocs()
			for b.Loop() {
				a.from.Now += 2000
				a.serve(h)
			}
		})
	}
}
