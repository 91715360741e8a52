package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/registry"
)

// fuzzValues are seeds that reach every field.
func fuzzValues() []string {
	return []string{
		fullInstance, `10.0.0.1:80`, `{"address":"10.0.0.1","meta":{"a":"\ud83d\ude00"}}`, `{"checks":[]}`, "{", "\x00", `{"x":[[[[]]]]}`,
		`{"policy":"hash","ttl":"2s","max_answers":"auto","hash_on":"name","fail":"tier","panic_threshold":0.5,"slow_start":0,"spill":"when-empty"}`,
		`{"state":"drain","reason":"r","by":"b","since":"2026-01-02T15:04:05Z","until":"2026-01-02T15:04:05Z"}`,
		`{"state":"failing","reason":"refused","incarnation":7,"since":"2026-01-02T15:04:05Z"}`, `{"state":"freeze"}`, `{"suspect":true}`,
		`{"load":0.5,"active":1,"capacity":2}`, `{"address":"a","version":"v","since":"2026-01-02T15:04:05Z"}`,
		`{"address":"10.0.0.1","checks":[{"type":"dns","name":"_x.y.","record":"aaaa","port":53,"interval":1.5,"status":200}],"port":1}`,
	}
}

// roundTrip holds a decoder to three things: an error is a Problem of one
// printable line; what is accepted is JSON, or bare text; and what is encoded
// from it is decoded as the same.
func roundTrip[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) ([]byte, error)) {
	for _, v := range fuzzValues() {
		f.Add([]byte(v))
	}
	// What was passed over is not encoded.
	ignored := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Ignored" }, cmp.Ignore())
	f.Fuzz(func(t *testing.T, value []byte) {
		v, err := decode(value)
		if err != nil {
			checkProblem(t, registry.NewProblem("k", 1, err))
			return
		}
		if len(value) > 0 && value[0] == '{' && !json.Valid(value) {
			t.Errorf("%q is no JSON and is decoded as %+v", value, v)
		}
		again, err := encode(v)
		if err != nil {
			t.Fatalf("encoding %+v: %v", v, err)
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if diff := cmp.Diff(v, back, compare(), ignored, cmp.Comparer(func(a, b time.Time) bool { return a.Unix() == b.Unix() })); diff != "" {
			t.Errorf("%s\n%s", again, diff)
		}
	})
}

func FuzzDecodeInstance(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Instance, error) { return registry.DecodeInstance("web", "a", v) }, registry.EncodeInstance)
}

func FuzzDecodeRoute(f *testing.F) {
	f.Add([]byte(fullRoute))
	roundTrip(f, func(v []byte) (registry.Route, error) { return registry.DecodeRoute("r", v) }, registry.EncodeRoute)
}

func FuzzDecodeService(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Service, error) { return registry.DecodeService("web", v) }, registry.EncodeService)
}

func FuzzDecodeAdmin(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Admin, error) { return registry.DecodeAdmin("web", "a", v) }, registry.EncodeAdmin)
}

func FuzzDecodeLoad(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Load, error) { return registry.DecodeLoad("web", "a", v) }, registry.EncodeLoad)
}

func FuzzDecodeMember(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Member, error) { return registry.DecodeMember("ns1", v) }, registry.EncodeMember)
}

func FuzzDecodeReport(f *testing.F) {
	roundTrip(f, func(v []byte) (registry.Report, error) { return registry.DecodeReport("web", "a", "ns1", v) }, registry.EncodeReport)
}
