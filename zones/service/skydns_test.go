package service_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/skydns"
	"github.com/musterdns/muster/zones/service"
)

// applySky puts records below the zone sky.test., or with nothing as a value takes them
// away; whole: they are all that there are.
func (s *server) applySky(whole bool, records map[string]string) {
	s.t.Helper()
	f, err := skydns.New("/skydns/test/sky")
	if err != nil {
		s.t.Fatal(err)
	}
	b := registry.Batch{Reset: whole}
	for path, value := range records {
		key, ok, err := f.Parse(f.Root() + path)
		if err != nil || !ok {
			s.t.Fatalf("%s: %t, %v", path, ok, err)
		}
		if value == "" {
			b.Deleted = append(b.Deleted, key)
			continue
		}
		note, err := f.Note(f.Root()+path, []byte(value))
		if err != nil {
			s.t.Fatalf("%s: %v", path, err)
		}
		b.Notes = append(b.Notes, registry.Note{Key: key, Value: note})
	}
	s.feedSky(b)
}

// feedSky has a batch of notes taken in as the server does, the instances among them too.
func (s *server) feedSky(b registry.Batch) {
	s.t.Helper()
	b.Source = 2
	err := skydns.Watch(once(b), s.sky.Apply).Watch(s.t.Context(), func(b registry.Batch) error { s.feed(b); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
}

// once is a watcher with one batch.
type once registry.Batch

func (o once) Watch(_ context.Context, sink func(registry.Batch) error) error {
	return sink(registry.Batch(o))
}

// However records came, one after the other or all at once, the answers are the same.
func TestSkyTree_IsWhatItsRecordsAre(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true})
	paths := []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/b/a", "b/a/b"}
	values := []string{
		"", `{"host":"10.9.0.1","port":80}`, `{"host":"10.9.0.2","group":"g1"}`, `{"host":"10.9.0.3","group":"g2"}`,
		`{"host":"www.example.com","port":-1}`, `{"text":"x"}`, `{"host":"fd00::1","mail":true}`,
	}
	names := []string{"sky.test", "*.sky.test", "a.*.sky.test"}
	for _, p := range paths {
		labels := strings.Split(p, "/")
		slices.Reverse(labels)
		names = append(names, strings.Join(labels, ".")+".sky.test")
	}
	look := func() map[string]string {
		out := map[string]string{}
		for _, n := range names {
			for _, typ := range []string{"A", "AAAA", "SRV", "MX", "TXT", "CNAME"} {
				a := s.ask(n, typ)
				out[n+" "+typ] = a.kind + " " + strings.Join(a.answer, "; ") + " " + strings.Join(a.extra, "; ")
			}
		}
		return out
	}
	rapid.Check(t, func(rt *rapid.T) {
		s.applySky(true, nil)
		state := map[string]string{}
		for range rapid.IntRange(1, 12).Draw(rt, "changes") {
			p, v := rapid.SampledFrom(paths).Draw(rt, "path"), rapid.SampledFrom(values).Draw(rt, "value")
			s.applySky(false, map[string]string{p: v})
			if state[p] = v; v == "" {
				delete(state, p)
			}
		}
		got := look()
		s.applySky(true, state)
		if want := look(); !maps.Equal(got, want) {
			for k, w := range want {
				if got[k] != w {
					rt.Errorf("%s: %q one by one, %q at once, of %v", k, got[k], w, state)
				}
			}
		}
	})
}

// TestSky_Lookup_patterns: what stands for every name is not looked for in all the zone.
func TestSky_Lookup_patterns(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true})
	records := map[string]string{}
	for i := range 5000 {
		records[fmt.Sprintf("h%04d/a", i)] = `{"host":"10.9.0.1"}`
	}
	s.applySky(true, records)
	for name, want := range map[string]string{"nosuch.*.sky.test": "SERVFAIL", "a.*.sky.test": "NOERROR", "nosuch.h0001.sky.test": "NXDOMAIN", "a.b.*.h0001.sky.test": "NXDOMAIN"} {
		if a := s.ask(name, "A"); a.kind != want {
			t.Errorf("%s: %s, want %s", name, a.kind, want)
		}
	}
}

func TestSky_Lookup(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true})
	if a := s.ask("web.sky.test", "A"); a.kind != "SERVFAIL" {
		t.Errorf("before anything is known: %s", a.kind)
	}
	long := strings.Repeat("y", 300)
	s.applySky(true, map[string]string{
		"web/a": `{"host":"10.9.0.1","port":80,"ttl":9}`, "web/b": `{"host":"10.9.0.1","port":81,"priority":1,"weight":3,"targetstrip":1}`,
		"web/c": `{"host":"fd00::1","port":-1}`, "both": `{"host":"www.example.com","text":"x"}`, "long": `{"text":"` + long + `"}`,
		"own": `{"text":"\"heritage=external-dns,external-dns/owner=me\""}`, "dns/apex/x": `{"host":"10.9.9.9"}`,
		"old": `{"host":"10.9.2.1","ttl":2000000000}`,
		"p":   `{"host":"10.9.1.1"}`, "p/q": `{"host":"10.9.1.2"}`,
	})
	for _, tt := range []struct {
		name, typ, kind string
		want            []string
	}{
		{"web.sky.test", "A", "NOERROR", []string{"web.sky.test. 5 IN A 10.9.0.1"}},
		{"a.web.sky.test", "A", "NOERROR", []string{"a.web.sky.test. 9 IN A 10.9.0.1"}},
		{"web.sky.test", "AAAA", "NOERROR", []string{"web.sky.test. 5 IN AAAA fd00::1"}},
		{"web.sky.test", "SRV", "NOERROR", []string{"web.sky.test. 5 IN SRV 1 3 81 web.sky.test.", "web.sky.test. 5 IN SRV 10 100 80 a.web.sky.test."}},
		{"both.sky.test", "SRV", "NOERROR", []string{"both.sky.test. 5 IN SRV 10 100 0 www.example.com."}},
		{"both.sky.test", "TXT", "NOERROR", []string{`both.sky.test. 5 IN TXT "x"`}},
		{"both.sky.test", "CNAME", "NOERROR", []string{"both.sky.test. 5 IN CNAME www.example.com."}},
		{"long.sky.test", "TXT", "NOERROR", []string{`long.sky.test. 5 IN TXT "` + long[:255] + `" "` + long[255:] + `"`}},
		{"own.sky.test", "TXT", "NODATA", nil},
		{"sky.test", "A", "NOERROR", []string{"sky.test. 5 IN A 10.9.9.9"}},
		{"p.sky.test", "A", "NOERROR", []string{"p.sky.test. 5 IN A 10.9.1.1", "p.sky.test. 5 IN A 10.9.1.2"}},
		{"*.p.sky.test", "A", "NOERROR", []string{"*.p.sky.test. 5 IN A 10.9.1.2"}},
		{"web.sky.test", "HINFO", "NODATA", nil},
		{"old.sky.test", "A", "NOERROR", []string{"old.sky.test. 3600 IN A 10.9.2.1"}},
		{"nosuch.sky.test", "A", "NXDOMAIN", nil},
		{"x.a.web.sky.test", "A", "NXDOMAIN", nil},
	} {
		if a := s.ask(tt.name, tt.typ); a.kind != tt.kind || !slices.Equal(a.answer, tt.want) {
			t.Errorf("%s %s: %s %q, want %s %q", tt.name, tt.typ, a.kind, a.answer, tt.kind, tt.want)
		}
		if a := s.ask(tt.name, tt.typ); a.res.Elsewhere != (tt.name == "both.sky.test" && tt.typ == "SRV") {
			t.Errorf("%s %s: hosts whose addresses are elsewhere: %t", tt.name, tt.typ, a.res.Elsewhere)
		}
	}
}

// TestSky_Append_ttl: what is known to change lowers the TTL, as of a service's (DESIGN's
// rule of TTLs: a failure that is counted, the end of an administrator's word).
func TestSky_Append_ttl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := newServer(t, registry.Service{})
		defer stop()
		s.applySky(true, map[string]string{
			"web/a": `{"host":"10.9.0.1","port":80,"ttl":60}`, "web/b": `{"host":"10.9.0.2","port":80,"ttl":90}`, "other": `{"host":"10.9.0.3","ttl":60}`,
		})
		want := func(name, typ string, ttl uint32) {
			t.Helper()
			a := s.ask(name, typ)
			if len(a.msg.Answer) == 0 || a.res.TTL != ttl || a.msg.Answer[0].Header().Ttl != ttl {
				t.Errorf("%s %s: %s, TTL %d; want %d", name, typ, a, a.res.TTL, ttl)
			}
		}
		want("web.sky.test", "A", 60)
		want("b.web.sky.test", "A", 90)
		s.feed(registry.Batch{Source: 2, Admin: []registry.Admin{
			{Service: "web", Instance: "b", State: registry.AdminUp, Until: time.Now().Add(8500 * time.Millisecond)},
		}})
		want("web.sky.test", "A", 8)
		want("web.sky.test", "SRV", 8)
		want("sky.test", "A", 8)
		want("b.web.sky.test", "A", 8)
		want("a.web.sky.test", "A", 60)
		want("other.sky.test", "A", 60)
		time.Sleep(5 * time.Second)
		want("web.sky.test", "A", 3)
		time.Sleep(5 * time.Second)
		want("web.sky.test", "A", 60)
		s.feed(registry.Batch{Source: 2, Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminDrain}}})
		want("web.sky.test", "A", 90) // of those that are answered
	})
}

// TestSky_Lookup_failover: what stands in for a service that is not well does so in DNS as
// it does in the proxies.
func TestSky_Lookup_failover(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true, Instances: []registry.Instance{instance("spare", "x", "10.7.0.1")}})
	s.applySky(true, map[string]string{"web/a": `{"host":"10.9.0.1","port":80}`, "web": `{"text":"x"}`, "near/n": `{"host":"10.9.0.5","port":81,"ttl":7}`})
	s.feed(registry.Batch{Source: 2, Services: []registry.Service{
		{Name: "web", Failover: []string{"nosuch", "spare.svc.test."}}, {Name: "gone", Failover: []string{"near"}}, {Name: "policy"},
	}})
	want := func(name, typ, want string) {
		t.Helper()
		if got := s.ask(name, typ).String(); got != want {
			t.Errorf("%s %s: %s, want %s", name, typ, got, want)
		}
	}
	want("web.sky.test", "A", "NOERROR\nweb.sky.test. 5 IN A 10.9.0.1")
	want("gone.sky.test", "A", "NOERROR\ngone.sky.test. 7 IN A 10.9.0.5")
	want("gone.sky.test", "SRV", "NOERROR\ngone.sky.test. 7 IN SRV 0 100 81 n.near.sky.test.\n+ n.near.sky.test. 7 IN A 10.9.0.5")
	want("gone.sky.test", "TXT", "NODATA")
	want("policy.sky.test", "A", "NODATA")
	s.feed(registry.Batch{Source: 2, Admin: []registry.Admin{{Service: "web", Instance: "*", State: registry.AdminDrain}}})
	want("web.sky.test", "A", "NOERROR\nweb.sky.test. 5 IN A 10.7.0.1")
	want("web.sky.test", "SRV", "NOERROR\nweb.sky.test. 5 IN SRV 0 1 80 x.spare.svc.test.\n+ x.spare.svc.test. 5 IN A 10.7.0.1")
	want("web.sky.test", "TXT", `NOERROR`+"\n"+`web.sky.test. 5 IN TXT "x"`)
	want("a.web.sky.test", "A", "NODATA")
	s.feed(registry.Batch{Source: 2, Deleted: []registry.Key{{Source: 2, Kind: registry.KindAdmin, Service: "web", Name: "*"}}})
	want("web.sky.test", "A", "NOERROR\nweb.sky.test. 5 IN A 10.9.0.1")
}

// TestSky_Lookup_held: records that vanish with their leases, half of the zone and more,
// are answered for as long as the pool holds their instances; what is deleted goes.
func TestSky_Lookup_held(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := newServer(t, registry.Service{MaxAnswers: 200})
		defer stop()
		s.feedSky(leased(0, 20, true))
		served := func(what string, want int) {
			t.Helper()
			for _, name := range []string{"web.sky.test", "*.sky.test", "sky.test"} {
				if a := s.ask(name, "A"); len(a.answer) != want {
					t.Errorf("%s: %d addresses of %s, want %d", what, len(a.answer), name, want)
				}
			}
		}
		exists := func(what, name, kind string) {
			t.Helper()
			if a := s.ask(name, "A"); a.kind != kind {
				t.Errorf("%s: %s is %s, want %s", what, name, a.kind, kind)
			}
		}
		s.feedSky(gone(true, 0, 8))
		served("8 of 20 are lost", 12)
		exists("one of them", "i03.web.sky.test", "NXDOMAIN")
		s.feedSky(gone(true, 8, 12))
		served("12 of 20 are lost: they are held", 20)
		exists("one of them", "i03.web.sky.test", "NOERROR")
		if n, err := s.sky.Notes(); err != nil || len(n) != 8 {
			t.Errorf("%d records to be kept, %v; want the 8 that are registered", len(n), err)
		}
		s.feedSky(gone(false, 12, 14))
		served("two of those that are left are deleted", 18)
		s.feedSky(leased(3, 4, false))
		s.feedSky(leased(14, 20, true)) // it is read again: i03 has gone meanwhile
		served("a complete state without one that was registered again", 18)
		time.Sleep(62 * time.Second)
		s.feedSky(registry.Batch{AsOf: time.Now()})
		served("after the hold", 6)
		exists("one of them", "i03.web.sky.test", "NXDOMAIN")
		exists("one that is registered", "i15.web.sky.test", "NOERROR")
	})
}

// leased are the records of instances under leases.
func leased(from, to int, reset bool) registry.Batch {
	b := registry.Batch{Reset: reset}
	for i := from; i < to; i++ {
		path := fmt.Sprintf("web/i%02d", i)
		r := &skydns.Record{Path: path, Host: "x", Addr: netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), Port: 80, Weight: 1}
		b.Notes = append(b.Notes, registry.Note{Key: registry.Key{Kind: registry.KindService, Service: path}, Value: r, Incarnation: 1, Leased: true})
	}
	return b
}

// gone is the end of such records.
func gone(lost bool, from, to int) registry.Batch {
	var b registry.Batch
	for i := from; i < to; i++ {
		k := registry.Key{Source: 2, Kind: registry.KindService, Service: fmt.Sprintf("web/i%02d", i)}
		b.Deleted = append(b.Deleted, k)
		if lost {
			b.Lost = append(b.Lost, k)
		}
	}
	return b
}

// The snapshot file has every record, whatever its kind and however many one name has.
func TestSkyTree_Restore(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.applySky(true, map[string]string{
		"web/a": `{"host":"10.9.0.1","port":80,"weight":7,"priority":3,"ttl":9,"group":"g1"}`, "web": `{"host":"www.example.com","targetstrip":1}`,
		"web/a/b": `{"text":"x","mail":true,"host":"fd00::1","port":-1}`,
	})
	want, err := s.sky.Notes()
	if err != nil || len(want) != 3 {
		t.Fatalf("%d notes, %v; want 3", len(want), err)
	}
	again := service.NewSkyTree(mustName("sky.test."))
	if err := again.Restore(registry.Batch{Reset: true, Notes: want}); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Notes(); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v, %v\nwant %v", got, err, want)
	}
	if err := again.Restore(registry.Batch{Reset: true, Notes: []registry.Note{{Value: []byte("{")}}}); err == nil {
		t.Error("a note that is no message is taken")
	}
}
