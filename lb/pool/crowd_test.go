package pool_test

import (
	"math/rand/v2"
	"testing"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestCrowd_Share(t *testing.T) {
	for _, tc := range []struct {
		name     string
		part     float64 // of the questions that source 7 asks
		min, max float64
	}{
		{"all from one source", 1, 1, 1},
		{"four fifths from one", 0.8, 0.75, 0.85},
		{"a third from one", 0.33, 0, 0},
		{"from everywhere", 0, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c pool.Crowd
			rng := rand.New(rand.NewPCG(1, 1))
			for n := range 50_000 {
				source := uint64(1000 + n)
				if rng.Float64() < tc.part {
					source = 7
				}
				c.Note(source)
			}
			if got := c.Share(); got < tc.min || got > tc.max {
				t.Errorf("share %.2f, want %.2f to %.2f", got, tc.min, tc.max)
			}
		})
	}
	t.Run("few questions say nothing", func(t *testing.T) {
		var c pool.Crowd
		for range 50 {
			c.Note(7)
		}
		if c.Share() != 0 {
			t.Errorf("share %v of 50 questions, want 0", c.Share())
		}
	})
}

func TestService_Crowd(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1"), Services: []registry.Service{{Name: "web", Policy: "hash"}}})
		c := e.find("web").Crowd()
		for range 200 {
			c.Note(7)
		}
		e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2")})
		info, err := e.pool.Service(t.Context(), 1, "web")
		if err != nil || e.find("web").Crowd() != c || info.OneSource != 1 {
			t.Errorf("after a change: %v, share %v; want the same counts, and 1", err, info.OneSource)
		}
		e.apply(registry.Batch{Services: []registry.Service{{Name: "web", Policy: "weighted"}}})
		if e.find("web").Crowd() != nil {
			t.Error("a service that does not hash counts sources")
		}
	})
}
