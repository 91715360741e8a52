package service_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/skydns"
)

// TestRRset_Append_ttlOfLeases: in CVE-2025-58063 a lease's id, cut to 32 bits, was the
// TTL, so that caches kept answers for decades. Whatever a record's lease, revisions and
// own wish: the TTL is that of the same record without them, and no more than the ceiling.
func TestRRset_Append_ttlOfLeases(t *testing.T) {
	const ceiling = uint32(registry.TTLMax / time.Second)
	s, stop := newServer(t, registry.Service{})
	defer stop()
	f, err := skydns.New("/skydns/test/sky")
	if err != nil {
		t.Fatal(err)
	}
	read := func(fail func(string, ...any), path, value string) registry.Note {
		key, _, err := f.Parse(f.Root() + path)
		if err != nil {
			fail("%s: %v", path, err)
		}
		note, err := f.Note(f.Root()+path, []byte(value))
		if err != nil {
			fail("%s: %v", path, err)
		}
		return registry.Note{Key: key, Value: note, Incarnation: 1}
	}
	questions := [][2]string{
		{"web.svc.test", "A"},
		{"web.svc.test", "SRV"},
		{"i.web.svc.test", "A"},
		{"1.0.0.10.in-addr.arpa", "PTR"},
		{"a.sky.test", "A"},
		{"a.sky.test", "SRV"},
		{"t.sky.test", "TXT"},
		{"c.sky.test", "CNAME"},
	}
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.Int64Range(1, math.MaxInt64), rapid.SampledFrom([]int64{1, 1<<32 - 1, 1 << 32, 7587878787878787878}))
		wish := rapid.Int64Range(0, 1<<33).Draw(t, "ttl")
		ask := func(plain bool) map[[2]string]uint32 {
			in := instance("web", "i", "10.0.0.1")
			in.TTL = min(time.Duration(wish)*time.Second, registry.TTLMax)
			var notes []registry.Note
			for path, text := range map[string]string{"a": `"host":"10.9.0.1","port":80`, "t": `"text":"x"`, "c": `"host":"www.example.com"`} {
				notes = append(notes, read(t.Fatalf, path, fmt.Sprintf(`{%s,"ttl":%d}`, text, min(wish, math.MaxUint32))))
			}
			if !plain {
				in.Leased, in.Incarnation, in.Revision = true, number.Draw(t, "incarnation"), number.Draw(t, "revision")
				for i := range notes {
					notes[i].Leased, notes[i].Incarnation, notes[i].Revision = true, in.Incarnation, in.Revision
				}
			}
			s.apply(registry.Batch{Reset: true, Instances: []registry.Instance{in}})
			s.feedSky(registry.Batch{Reset: true, Notes: notes})
			out := map[[2]string]uint32{}
			for _, q := range questions {
				a := s.ask(q[0], q[1])
				if len(a.msg.Answer) == 0 {
					t.Fatalf("%v: %s", q, a)
				}
				for _, rr := range append(a.msg.Answer, a.msg.Extra...) {
					out[q] = max(out[q], rr.Header().Ttl)
				}
			}
			return out
		}
		without, with := ask(true), ask(false)
		for q, ttl := range with {
			if ttl > ceiling || ttl != without[q] {
				t.Errorf("%v: TTL %d under a lease, %d without, at most %d", q, ttl, without[q], ceiling)
			}
		}
	})
}
