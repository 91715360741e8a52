package lb_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

func TestAssignTiers(t *testing.T) {
	const percent = 50
	type tiers = []lb.Tier
	// h is a tier of 100 endpoints.
	h := func(healthy, load int, panics bool) lb.Tier {
		return lb.Tier{Healthy: healthy, Total: 100, Load: load, Panic: panics}
	}
	open := lb.TierRule{FailOpen: true}
	envoy := lb.TierRule{Spill: lb.SpillProportional, PanicPercent: percent}
	for _, c := range []struct {
		name string
		rule lb.TierRule
		want tiers
	}{
		// Envoy's documented figures.
		{"72 % healthy keeps all", envoy, tiers{h(72, 100, false), h(100, 0, false)}},
		{"71 % healthy spills 1 %", envoy, tiers{h(71, 99, false), h(100, 1, false)}},
		{"50 % healthy spills 30 %", envoy, tiers{h(50, 70, false), h(100, 30, false)}},
		{"25 % and 25 % share evenly and panic", envoy, tiers{h(25, 50, true), h(25, 50, true)}},
		{"5 % and 65 %: only the first panics", envoy, tiers{h(5, 7, true), h(65, 93, false)}},
		{"nothing healthy in the first", envoy, tiers{h(0, 0, false), h(100, 100, false)}},
		{"three tiers", envoy, tiers{h(25, 35, false), h(25, 35, false), h(80, 30, false)}},
		{"a low share does not panic while the tiers together can carry the load", envoy, tiers{h(10, 14, false), h(100, 86, false)}},
		{"nothing healthy: by size, in panic", envoy, tiers{
			{Total: 30, Load: 30, Panic: true}, {Total: 70, Load: 70, Panic: true},
		}},
		// Panic off.
		{"no threshold: never panics while one is healthy", lb.TierRule{FailOpen: true, Spill: lb.SpillProportional}, tiers{h(1, 50, false), h(1, 50, false)}},
		{"nothing healthy, fail closed: nothing served", lb.TierRule{}, tiers{h(0, 0, false), h(0, 0, false)}},
		{"nothing healthy, fail open: by size", open, tiers{
			{Total: 1, Load: 34, Panic: true}, {Total: 1, Load: 33, Panic: true}, {Total: 1, Load: 33, Panic: true},
		}},
		{"no endpoints at all", open, tiers{{}, {}}},
		{"no tiers at all", open, nil},
		// When empty.
		{"when-empty: the first with a healthy one takes all", lb.TierRule{Spill: lb.SpillWhenEmpty}, tiers{h(0, 0, false), h(1, 100, false), h(100, 0, false)}},
		{"when-empty: panics below the threshold when no other tier can help", lb.TierRule{Spill: lb.SpillWhenEmpty, PanicPercent: percent}, tiers{h(25, 100, true), h(0, 0, true)}},
		{"auto is when-empty below 6 endpoints", lb.TierRule{}, tiers{{Healthy: 1, Total: 2, Load: 100}, {Healthy: 3, Total: 3}}},
		{"auto is proportional from 6", lb.TierRule{}, tiers{{Healthy: 1, Total: 2, Load: 70}, {Healthy: 4, Total: 4, Load: 30}}},
		{"one healthy of a thousand, alone, carries all", envoy, tiers{{Healthy: 1, Total: 1000, Load: 100, Panic: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := append(tiers(nil), c.want...)
			for i := range got { // what an earlier use has left must not matter
				got[i].Load, got[i].Panic = 77, !got[i].Panic
			}
			lb.AssignTiers(got, c.rule)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	t.Run("loads add up to 100 or all are 0, and only what can be served has any", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			got := make(tiers, rapid.IntRange(0, 5).Draw(t, "tiers"))
			healthy := 0
			for i := range got {
				got[i].Total = rapid.IntRange(0, 300).Draw(t, "total")
				got[i].Healthy = rapid.IntRange(0, got[i].Total).Draw(t, "healthy")
				healthy += got[i].Healthy
			}
			lb.AssignTiers(got, lb.TierRule{
				Spill:        lb.Spill(rapid.IntRange(0, 2).Draw(t, "spill")),
				PanicPercent: rapid.IntRange(0, 100).Draw(t, "panic"),
				FailOpen:     rapid.Bool().Draw(t, "open"),
			})
			sum := 0
			for i, tier := range got {
				sum += tier.Load
				if tier.Load < 0 || tier.Load > 0 && tier.Healthy == 0 && !tier.Panic {
					t.Fatalf("tier %d: %+v", i, tier)
				}
			}
			if sum != 100 && !(sum == 0 && healthy == 0) {
				t.Fatalf("loads add up to %d: %+v", sum, got)
			}
		})
	})
}

func TestDrawTier(t *testing.T) {
	tiers := []lb.Tier{{Load: 70}, {}, {Load: 30}}
	t.Run("draws by load and hands on a word that is uniform within the tier", func(t *testing.T) {
		words := newWords(4)
		seen := make([]int, len(tiers))
		tenths := map[int][]int{0: make([]int, 10), 2: make([]int, 10)}
		for range 100_000 {
			tier, rest := lb.DrawTier(tiers, words.rng.Uint64())
			seen[tier]++
			tenths[tier][int(float64(rest)/math.Exp2(64)*10)]++
		}
		chiSquare(t, "tiers", seen, []float64{.7, 0, .3})
		for tier, counts := range tenths {
			even := make([]float64, 10)
			for i := range even {
				even[i] = .1
			}
			chiSquare(t, "rest within tier", counts, even)
			if tier == 1 {
				t.Error("a tier of load 0 was drawn")
			}
		}
	})
	t.Run("the ends of the range", func(t *testing.T) {
		if tier, _ := lb.DrawTier(tiers, 0); tier != 0 {
			t.Errorf("word 0: tier %d, want 0", tier)
		}
		if tier, rest := lb.DrawTier(tiers, math.MaxUint64); tier != 2 || rest < math.MaxUint64-8 {
			t.Errorf("the last word: tier %d, rest %x, want the end of 2", tier, rest)
		}
	})
	t.Run("nothing to serve is -1", func(t *testing.T) {
		if tier, _ := lb.DrawTier([]lb.Tier{{}, {}}, 5); tier != -1 {
			t.Errorf("tier %d, want -1", tier)
		}
	})
	t.Run("allocates nothing", func(t *testing.T) {
		if n := testing.AllocsPerRun(100, func() { lb.DrawTier(tiers, 1<<63) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
