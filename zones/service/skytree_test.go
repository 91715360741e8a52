package service_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/skydns"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/service"
)

// hosts are notes of n records right below the apex, by their numbers.
func hosts(t testing.TB, first, n int) registry.Batch {
	t.Helper()
	b := registry.Batch{}
	for i := range n {
		path := fmt.Sprintf("h%06d", first+i)
		r, err := skydns.Decode(path, []byte(`{"host":"10.9.0.1"}`))
		if err != nil {
			t.Fatal(err)
		}
		b.Notes = append(b.Notes, registry.Note{Key: registry.Key{Kind: registry.KindService, Service: path}, Value: r})
	}
	return b
}

// deleted are the deletions of hosts.
func deleted(first, n int) registry.Batch {
	b := registry.Batch{}
	for i := range n {
		b.Deleted = append(b.Deleted, registry.Key{Kind: registry.KindService, Service: fmt.Sprintf("h%06d", first+i)})
	}
	return b
}

// TestSkyTree_Apply_batch: a batch makes a node anew once, however many of the names below
// it change; once a record it would copy 160 KB a record here, 320 MB.
func TestSkyTree_Apply_batch(t *testing.T) {
	tree := service.NewSkyTree(mustName("sky.test."))
	notes := func(first, n int) registry.Batch { return hosts(t, first, n) }
	whole := notes(0, 20_000)
	whole.Reset = true
	tree.Apply(whole)
	changes := notes(19_000, 2000)
	changes.Deleted = deleted(0, 1000).Deleted
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tree.Apply(changes)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("a batch of 3,000 changes took %d bytes", got)
	}
	if got, err := tree.Notes(); err != nil || len(got) != 20_000 || got[0].Key.Service != "h001000" || got[19_999].Key.Service != "h020999" {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// TestSkyTree_Apply_siblings: what a change costs grows with the logarithm of the names
// beside its own: of octets allocated, which no machine's load changes, thrice for a
// thousand times as many.
func TestSkyTree_Apply_siblings(t *testing.T) {
	cost := func(n int) uint64 {
		tree := service.NewSkyTree(mustName("sky.test."))
		whole := hosts(t, 0, n)
		whole.Reset = true
		tree.Apply(whole)
		const changes = 200
		batches := make([]registry.Batch, 0, 2*changes)
		for i := range changes {
			at := i * n / changes
			batches = append(batches, deleted(at, 1), hosts(t, at, 1))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, b := range batches {
			tree.Apply(b)
		}
		runtime.ReadMemStats(&after)
		if got, err := tree.Notes(); err != nil || len(got) != n {
			t.Errorf("%d records of %d, %v", len(got), n, err)
		}
		return (after.TotalAlloc - before.TotalAlloc) / (2 * changes)
	}
	few, many := cost(200), cost(200_000)
	t.Logf("octets a change: %d among 200 names, %d among 200,000", few, many)
	if many > 3*few {
		t.Errorf("a change among 200,000 names takes %d octets, among 200 %d", many, few)
	}
}

// TestSkyTree_Apply_many: however names come and go, in whatever batches, the tree has those
// that are there, in order, finds each, and answers with the first of them.
func TestSkyTree_Apply_many(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(registry.Batch{Reset: true})
	rapid.Check(t, func(rt *rapid.T) {
		s.sky.Apply(registry.Batch{Reset: true})
		there := map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(rt, "batches") {
			first := rapid.IntRange(0, 2000).Draw(rt, "first")
			n := rapid.SampledFrom([]int{1, 2, 70, 700}).Draw(rt, "names")
			if rapid.Bool().Draw(rt, "come") {
				s.sky.Apply(hosts(t, first, n))
				for _, note := range hosts(t, first, n).Notes {
					there[note.Key.Service] = true
				}
				continue
			}
			s.sky.Apply(deleted(first, n))
			for _, k := range deleted(first, n).Deleted {
				delete(there, k.Service)
			}
		}
		notes, err := s.sky.Notes()
		if err != nil {
			rt.Fatal(err)
		}
		want := slices.Sorted(maps.Keys(there))
		got := make([]string, 0, len(notes))
		for _, n := range notes {
			got = append(got, n.Key.Service)
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%d names, want %d: %v", len(got), len(want), cmp.Diff(want, got))
		}
		for i := 0; i <= 2700; i += 13 {
			path := fmt.Sprintf("h%06d", i)
			if kind := s.ask(path+".sky.test", "A").kind; (kind == "NOERROR") != there[path] {
				rt.Errorf("%s is %s, there: %t", path, kind, there[path])
			}
		}
		apex := s.all("sky.test.")
		whole := registry.Batch{Reset: true}
		for _, path := range want {
			whole.Notes = append(whole.Notes, hosts(t, number(rt, path), 1).Notes...)
		}
		s.sky.Apply(whole)
		if again := s.all("sky.test."); !slices.Equal(apex, again) || len(again) != min(len(want), 128) {
			rt.Errorf("the apex has %q one by one, %q at once", apex, again)
		}
	})
}

// all are the SRV records of a name, none of them left out for room.
func (s *server) all(name string) (out []string) {
	n := mustName(name)
	var a zones.Answer
	if s.tree.Lookup(&n, wire.TypeSRV, &a); a.Kind == zones.Found {
		for rdata := range a.RRset.All {
			out = append(out, string(rdata))
		}
	}
	return out
}

// number is that of a host by its path.
func number(t *rapid.T, path string) (n int) {
	if _, err := fmt.Sscanf(path, "h%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// BenchmarkSkyTree_Apply is a change of one name beside others.
func BenchmarkSkyTree_Apply(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("siblings=%d", n), func(b *testing.B) {
			tree := service.NewSkyTree(mustName("sky.test."))
			whole := hosts(b, 0, n)
			whole.Reset = true
			tree.Apply(whole)
			change := hosts(b, n/2, 1)
			b.ReportAllocs()
			for b.Loop() {
				tree.Apply(change)
			}
		})
	}
}
