package service_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

func TestRRset_Append_limits(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	all := registry.Service{Name: "all", Policy: "all"}
	two := registry.Service{Name: "two", MaxAnswers: 2}
	weighed := many("weighed", 3)
	weighed[0].Weight = 5
	s.apply(registry.Batch{
		Reset:     true,
		Instances: slices.Concat(many("big", 300), many("all", 300), many("two", 5), weighed, many("few", 5)),
		Services:  []registry.Service{all, two},
	})
	tests := []struct {
		name, typ string
		size      int
		least     int // records
		most      int
		truncated bool
	}{
		{"big", "A", 512, 8, 8, false},
		{"few", "A", 512, 5, 5, false},
		{"weighed", "A", 512, 1, 1, false},
		{"two", "A", 512, 2, 2, false},
		{"two", "SRV", 1232, 2, 2, false},
		{"weighed", "SRV", 1232, 3, 3, false},
		{"big", "SRV", 1232, 8, 8, false},
		{"big", "SRV", 65535, 300, 300, false},
		{"all", "A", 512, 20, 31, true},
		{"all", "A", 65535, 300, 300, false},
		{"all", "SRV", 512, 1, 12, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %s in %d octets", tt.name, tt.typ, tt.size), func(t *testing.T) {
			s.size = tt.size
			got := s.ask(tt.name+".svc.test", tt.typ)
			if n := len(got.answer); n < tt.least || n > tt.most || got.res.Truncated != tt.truncated {
				t.Errorf("%d answers, truncated %v; want %d to %d, %v", n, got.res.Truncated, tt.least, tt.most, tt.truncated)
			}
			if n := len(slices.Compact(got.answer)); n != got.res.Answers {
				t.Errorf("%d distinct records of %d", n, got.res.Answers)
			}
			if n := got.octets; n > tt.size {
				t.Errorf("%d octets, limit %d", n, tt.size)
			}
		})
	}
}

func TestRRset_Append_weights(t *testing.T) {
	t.Run("a set chosen by weight goes out with equal SRV weights", func(t *testing.T) {
		s, stop := newServer(t, registry.Service{MaxAnswers: 2})
		defer stop()
		list := many("web", 4)
		list[0].Weight = 10
		s.apply(registry.Batch{Reset: true, Instances: list})
		for _, rr := range s.ask("web.svc.test", "SRV").msg.Answer {
			if srv := rr.(*dns.SRV); srv.Weight != 1 {
				t.Errorf("weight %d, want 1", srv.Weight)
			}
		}
	})
	t.Run("under hash the SRV priority is the rank, the same for one client", func(t *testing.T) {
		s, stop := newServer(t, registry.Service{Policy: "hash"})
		defer stop()
		s.apply(registry.Batch{Reset: true, Instances: many("web", 4)})
		s.req.Client = netip.MustParseAddr("192.0.2.7")
		first := s.ask("web.svc.test", "SRV").answer
		var priorities []string
		for _, l := range first {
			priorities = append(priorities, strings.Fields(l)[4])
		}
		if !slices.Equal(priorities, []string{"0", "1", "2", "3"}) {
			t.Errorf("priorities %v, want 0 to 3", priorities)
		}
		if again := s.ask("web.svc.test", "SRV").answer; !slices.Equal(first, again) {
			t.Errorf("%v, then %v", first, again)
		}
		a := s.ask("web.svc.test", "A").answer
		target := strings.Fields(first[0])[7]
		if len(a) != 1 || s.ask(target, "A").answer[0][len(target):] != a[0][len("web.svc.test."):] {
			t.Errorf("A gives %v, SRV prefers %s", a, target)
		}
	})
	t.Run("under hash it is noted when one source asks most", func(t *testing.T) {
		s, stop := newServer(t, registry.Service{Policy: "hash"})
		defer stop()
		s.apply(registry.Batch{Reset: true, Instances: many("web", 4)})
		rng := rand.New(rand.NewPCG(1, 1))
		const n = 8000 // of which some 500 are noted
		for i := range n {
			s.req.Client = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
			if rng.IntN(4) > 0 {
				s.req.Client = netip.MustParseAddr("192.0.2.7")
			}
			s.ask("web.svc.test", "A")
		}
		info, err := s.pool.Service(t.Context(), 1, "web")
		if err != nil || info.OneSource < 0.65 || info.OneSource > 0.85 {
			t.Errorf("%v; one source is said to ask %.2f of the questions, want three quarters", err, info.OneSource)
		}
	})
	t.Run("shares follow the weights for A", func(t *testing.T) {
		s, stop := newServer(t, registry.Service{})
		defer stop()
		list := many("web", 3)
		list[0].Weight, list[1].Weight = 5, 3
		s.apply(registry.Batch{Reset: true, Instances: list})
		count := map[string]int{}
		const n = 9000
		for range n {
			count[s.ask("web.svc.test", "A").answer[0]]++
		}
		chi := 0.0
		for i, want := range []float64{5.0 / 9, 3.0 / 9, 1.0 / 9} {
			d := float64(count[fmt.Sprintf("web.svc.test. 5 IN A 10.9.0.%d", i)]) - want*n
			chi += d * d / (want * n)
		}
		if chi > 13.82 || len(count) != 3 { // p = 0.001 at 2 degrees of freedom
			t.Errorf("chi-square %.1f: %v", chi, count)
		}
	})
}

// TestRRset_Append_scope: how many bits of the client decided (RFC 7871 section
// 7.2.1), which are none where it is not hashed.
func TestRRset_Append_scope(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.0")
	for _, tt := range []struct {
		name    string
		service registry.Service
		qname   string
		bits    uint8
		want    uint8
	}{
		{"a client", registry.Service{Policy: "hash"}, "web", 32, 32},
		{"a client's network", registry.Service{Policy: "hash"}, "web", 20, 20},
		{"a subnet", registry.Service{Policy: "hash", HashOn: "subnet"}, "web", 32, 24},
		{"a subnet that is not wholly known", registry.Service{Policy: "hash", HashOn: "subnet"}, "web", 16, 16},
		{"a name", registry.Service{Policy: "hash", HashOn: "name"}, "web", 32, 0},
		{"a key in the question", registry.Service{Policy: "hash"}, "key._hash.web", 32, 0},
		{"no hash", registry.Service{Policy: "weighted"}, "web", 32, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, stop := newServer(t, tt.service)
			defer stop()
			s.apply(registry.Batch{Instances: many("web", 9)})
			s.req.Client, s.req.Bits = client, tt.bits
			for _, typ := range []string{"A", "SRV"} {
				if got := s.ask(tt.qname+".svc.test", typ).res; got.Scope != tt.want || got.Answers == 0 {
					t.Errorf("%s: scope %d, want %d", typ, got.Scope, tt.want)
				}
			}
		})
	}
}

func TestRRset_Append_hash(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true, Instances: many("web", 10)})
	pick := func(key string) string {
		got := s.ask(key+"._hash.web.svc.test", "SRV").msg
		slices.SortFunc(got.Answer, func(a, b dns.RR) int { return int(a.(*dns.SRV).Priority) - int(b.(*dns.SRV).Priority) })
		return got.Answer[0].(*dns.SRV).Target
	}
	before := map[string]string{}
	for i := range 200 {
		key := fmt.Sprintf("user-%d", i)
		if before[key] = pick(key); pick(key) != before[key] {
			t.Fatalf("%s is not steady", key)
		}
	}
	if n := len(slices.Compact(slices.Sorted(maps.Values(before)))); n != 10 {
		t.Errorf("200 keys reach %d of 10 instances", n)
	}
	gone := "i004.web.svc.test."
	s.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "i004"}}})
	for key, old := range before {
		if now := pick(key); now != old && old != gone {
			t.Errorf("%s moved needlessly from %s to %s", key, old, now)
		}
	}
}

func TestRRset_Append_duplicates(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true, Instances: []registry.Instance{
		instance("web", "a", "10.0.0.1", "fd00::1"), instance("web", "b", "10.0.0.1", "fd00::1"), instance("web", "c", "10.0.0.2"),
	}})
	if got, want := s.ask("web.svc.test", "A").String(), "NOERROR\nweb.svc.test. 5 IN A 10.0.0.1\nweb.svc.test. 5 IN A 10.0.0.2"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.ask("web.svc.test", "AAAA"); len(got.answer) != 1 {
		t.Errorf("got %s", got)
	}
	if got := s.ask("1.0.0.10.in-addr.arpa", "PTR"); len(got.answer) != 2 {
		t.Errorf("got %s", got)
	}
}

func TestRRset_Append_time(t *testing.T) {
	run := func(name string, f func(t *testing.T, s *server)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, stop := newServer(t, registry.Service{TTL: 30 * time.Second})
				defer stop()
				f(t, s)
			})
		})
	}
	run("before any state nothing is known", func(t *testing.T, s *server) {
		for _, name := range []string{"web.svc.test", "8.0.0.10.in-addr.arpa"} {
			if got := s.ask(name, "A"); got.kind != "SERVFAIL" || !slices.Contains(got.ede, wire.EDENotReady) {
				t.Errorf("%s: %s, EDE %v", name, got, got.ede)
			}
		}
		if got := s.ask("svc.test", "NS"); got.kind != "NOERROR" {
			t.Errorf("apex: %s", got)
		}
	})
	run("a snapshot says that it is stale, and is not kept long", func(t *testing.T, s *server) {
		s.apply(registry.Batch{Reset: true, Snapshot: true, AsOf: time.Now().Add(-7 * time.Second), Instances: many("web", 1)})
		got := s.ask("web.svc.test", "A")
		if got.res.TTL != 5 || got.res.EDE != wire.EDEStale || got.res.Age != 7 {
			t.Errorf("result %+v", got.res)
		}
		if got := s.ask("nosuch.svc.test", "A"); got.kind != "NXDOMAIN" || got.res.EDE != wire.EDEStale || got.res.Age != 7 {
			t.Errorf("negative: %s %+v", got, got.res)
		}
	})
	run("so does a state that nothing proves any more", func(t *testing.T, s *server) {
		s.apply(registry.Batch{Reset: true, Instances: many("web", 1)})
		if got := s.ask("web.svc.test", "A"); got.res.TTL != 30 || got.res.EDE != zones.EDENone {
			t.Errorf("fresh: %+v", got.res)
		}
		time.Sleep(12 * time.Second)
		if got := s.ask("web.svc.test", "A"); got.res.TTL != 5 || got.res.EDE != wire.EDEStale || got.res.Age != 12 {
			t.Errorf("stale: %+v", got.res)
		}
	})
	run("the least TTL of those that are in, for all", func(t *testing.T, s *server) {
		list := many("web", 3)
		list[1].TTL = 7 * time.Second
		s.apply(registry.Batch{Reset: true, Instances: list})
		for _, rr := range s.ask("web.svc.test", "A").msg.Answer {
			if rr.Header().Ttl != 7 {
				t.Errorf("TTL %d, want 7", rr.Header().Ttl)
			}
		}
		if got := s.ask("i000.web.svc.test", "A"); got.res.TTL != 30 {
			t.Errorf("TTL of another instance %d, want 30", got.res.TTL)
		}
	})
	run("a draining instance's name lives no longer than the drain", func(t *testing.T, s *server) {
		s.apply(registry.Batch{Reset: true, Instances: many("web", 2), Admin: []registry.Admin{
			{Service: "web", Instance: "i000", State: registry.AdminDrain, Reason: "upgrade", Until: time.Now().Add(8500 * time.Millisecond)},
		}})
		if got := s.ask("i000.web.svc.test", "A"); got.res.TTL != 8 {
			t.Errorf("TTL %d, want 8", got.res.TTL)
		}
		if got := s.ask("web.svc.test", "A"); got.res.TTL != 30 || len(got.answer) != 1 {
			t.Errorf("the service: %s", got)
		}
		want := "NOERROR\n_why.web.svc.test. 1 IN TXT \"i000 out: drain by an administrator until 2000-01-01T00:00:08Z: upgrade\"\n_why.web.svc.test. 1 IN TXT \"i001 in: passing\""
		if got := s.ask("_why.web.svc.test", "TXT").String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRRset_Append_modes(t *testing.T) {
	down := func(svc string) registry.Admin {
		return registry.Admin{Service: svc, Instance: "*", State: registry.AdminDown}
	}
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{
		Reset: true, Instances: slices.Concat(many("open", 2), many("closed", 2), many("drained", 2)),
		Services: []registry.Service{{Name: "closed", Fail: "closed"}},
		Admin:    []registry.Admin{down("open"), down("closed"), {Service: "drained", Instance: "*", State: registry.AdminDrain}},
	})
	for name, want := range map[string]struct {
		kind string
		n    int
		ede  bool
	}{"open": {"NOERROR", 2, true}, "closed": {"NODATA", 0, true}, "drained": {"NODATA", 0, false}} {
		for _, typ := range []string{"A", "SRV"} {
			got := s.ask(name+".svc.test", typ)
			if got.kind != want.kind || len(got.answer) != want.n || slices.Contains(got.ede, wire.EDEOther) != want.ede {
				t.Errorf("%s %s: %s, EDE %v", name, typ, got, got.ede)
			}
		}
		if got := s.ask("i000."+name+".svc.test", "A"); len(got.answer) != 1 {
			t.Errorf("an instance of %s has no address: %s", name, got)
		}
	}
}

// BenchmarkZone_answer is lookup, pick and answer, from a parsed query to the
// written message without its OPT record.
func BenchmarkZone_answer(b *testing.B) {
	for _, n := range []int{5, 500} {
		for _, policy := range []string{"weighted", "round-robin", "hash"} {
			s, stop := newServer(b, registry.Service{Policy: policy})
			s.apply(registry.Batch{Reset: true, Instances: many("web", n)})
			s.req.Now = time.Now().UnixNano()
			s.req.Client = netip.MustParseAddr("192.0.2.1")
			for _, typ := range []string{"A", "SRV"} {
				b.Run(fmt.Sprintf("%s/%s/n=%d", typ, policy, n), func(b *testing.B) {
					s.parse("web.svc.test", typ)
					b.ReportAllocs()
					for b.Loop() {
						s.req.Rand += 0x9e3779b97f4a7c15
						if res := s.reply(); res.Answers == 0 {
							b.Fatal("no answer")
						}
					}
				})
			}
			stop()
		}
	}
}

// BenchmarkZone_answer_many is answers for services asked for in no order, so that little
// of what they read is in a core's caches: one by one, and in batches as the server makes
// them, with Warm counted in.
func BenchmarkZone_answer_many(b *testing.B) {
	for _, services := range []int{1000, 50_000} {
		s, stop := newServer(b, registry.Service{})
		load := registry.Batch{Reset: true}
		for n := range services {
			for i := range 5 {
				load.Instances = append(load.Instances, instance(fmt.Sprintf("service-%05d", n), fmt.Sprintf("i%d", i), fmt.Sprintf("10.%d.%d.%d", 8*i+n>>16, n>>8&255, n&255)))
			}
			if len(load.Instances)+5 > registry.PageMax || n == services-1 {
				load.More = n < services-1
				s.apply(load)
				load = registry.Batch{}
			}
		}
		s.req.Now = time.Now().UnixNano()
		asked := make([]*wire.Query, 1<<14)
		for i := range asked {
			s.parse(fmt.Sprintf("service-%05d.svc.test", rand.IntN(services)), "A")
			asked[i], s.q = s.q, new(wire.Query)
		}
		for _, batch := range []int{1, 4, zones.WarmMax} {
			b.Run(fmt.Sprintf("services=%d/batch=%d", services, batch), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i += batch {
					questions := asked[i&(1<<14-1):][:batch]
					if batch > 1 {
						s.tree.Warm(questions)
					}
					for _, q := range questions {
						s.req.Rand += 0x9e3779b97f4a7c15
						s.q = q
						if res := s.reply(); res.Answers != 5 {
							b.Fatalf("%d answers", res.Answers)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/answer")
			})
		}
		stop()
	}
}
