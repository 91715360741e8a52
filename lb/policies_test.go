package lb_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

func TestByName(t *testing.T) {
	t.Run("every listed name is a policy", func(t *testing.T) {
		want := []string{"weighted", "round-robin", "least-loaded", "hash", "all"}
		if got := lb.Names(); !slices.Equal(got, want) {
			t.Fatalf("Names() = %q, want %q", got, want)
		}
		for _, name := range want {
			policy, err := lb.ByName(name)
			if err != nil || policy == nil {
				t.Errorf("ByName(%q) = %v, %v", name, policy, err)
			}
		}
	})
	t.Run("the error names what was asked for and what there is", func(t *testing.T) {
		_, err := lb.ByName("Weighted")
		want := `unknown policy "Weighted": must be one of weighted, round-robin, least-loaded, hash, all`
		if err == nil || err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
	})
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		weights []uint32
		n       int
		equal   bool
	}{
		{nil, 0, true},
		{[]uint32{0, 0}, 2, true},
		{[]uint32{0, 3, 3}, 2, true},
		{[]uint32{0, 3, 4}, 2, false},
		{[]uint32{5}, 1, true},
	} {
		if n, equal := lb.Candidates(list(c.weights...)); n != c.n || equal != c.equal {
			t.Errorf("Candidates(%v) = %d, %v, want %d, %v", c.weights, n, equal, c.n, c.equal)
		}
	}
}

func TestEffectiveWeight(t *testing.T) {
	for _, c := range []struct {
		registered uint16
		factor     float64
		want       uint32
	}{
		{0, 1, 0},
		{0, 16, 0},
		{1, 1, 1024},
		{1, 0.10, 102},
		{65_535, 16, 65_535 * 16 * 1024},
		{1, 0, 1},
		{3, math.NaN(), 3 * 1024},
		{65_535, 1e9, math.MaxUint32},
		{1, -2, 1},
	} {
		if got := lb.EffectiveWeight(c.registered, c.factor); got != c.want {
			t.Errorf("EffectiveWeight(%d, %v) = %d, want %d", c.registered, c.factor, got, c.want)
		}
	}
}

// TestPicker_Pick holds every policy to the contract of the interface.
func TestPicker_Pick(t *testing.T) {
	for _, name := range lb.Names() {
		t.Run(name+" picks min(k, n) distinct candidates after what is in dst", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				endpoints := list(drawWeights(t, 400)...)
				policy, err := lb.ByName(name)
				if err != nil {
					t.Fatal(err)
				}
				picker := policy(endpoints)
				n, _ := lb.Candidates(endpoints)
				k := rapid.IntRange(-1, len(endpoints)+2).Draw(t, "k")
				r := lb.Request{
					Hash: rapid.Uint64().Draw(t, "hash"),
					Rand: rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, math.MaxUint64})).Draw(t, "rand"),
					Seq:  rapid.Uint64().Draw(t, "seq"),
				}
				got := picker.Pick([]uint32{99}, k, r)
				if got[0] != 99 {
					t.Fatalf("dst was overwritten: %v", got)
				}
				got = got[1:]
				want := max(0, min(k, n))
				if name == "hash" {
					want = min(want, lb.HashRankMax)
				}
				if len(got) != want {
					t.Fatalf("picked %d, want %d", len(got), want)
				}
				seen := make(map[uint32]bool)
				for _, i := range got {
					if seen[i] {
						t.Fatalf("%d picked twice in %v", i, got)
					}
					seen[i] = true
					if endpoints[i].Weight == 0 && n != len(endpoints) {
						t.Fatalf("%d of weight 0 picked while others have weight", i)
					}
				}
				if again := picker.Pick(nil, k, r); !slices.Equal(again, got) {
					t.Fatalf("the same request gave %v, then %v", got, again)
				}
				if again := policy(endpoints).Pick(nil, k, r); !slices.Equal(again, got) {
					t.Fatalf("the same list gave %v, then %v", got, again)
				}
			})
		})
		t.Run(name+" over nothing picks nothing", func(t *testing.T) {
			p := build(t, name, nil)
			if got := p.Pick(nil, 8, lb.Request{Rand: 1, Hash: 2, Seq: 3}); len(got) != 0 {
				t.Errorf("picked %v", got)
			}
			if got := shares(t, p, 8); len(got) != 0 {
				t.Errorf("shares %v", got)
			}
		})
	}
}

// TestPicker_Pick_Allocations holds the promise of the query path.
func TestPicker_Pick_Allocations(t *testing.T) {
	for _, name := range lb.Names() {
		for _, weights := range []string{"equal", "mixed"} {
			for _, n := range []int{1, 5, 12, 64, 256, 257, 500, 50_000} {
				p := build(t, name, shaped(weights, n))
				for _, k := range []int{1, 2, 8, 64} {
					dst := make([]uint32, 0, k)
					words := newWords(3)
					if allocs := testing.AllocsPerRun(50, func() { dst = p.Pick(dst[:0], k, words.request()) }); allocs != 0 {
						t.Errorf("%s %s n=%d k=%d: %v allocations, want 0", name, weights, n, k, allocs)
					}
				}
			}
		}
	}
}

// TestSharer_Shares compares what is promised with what is picked.
func TestSharer_Shares(t *testing.T) {
	const draws = 20_000
	for _, c := range []struct {
		name    string
		weights []uint32
	}{
		{"four with one of half the weight", []uint32{3, 1, 1, 1}},
		{"one that outweighs all", []uint32{1000, 1, 2, 3, 4}},
		{"equal", []uint32{7, 7, 7, 7, 7, 7}},
		{"some of weight 0", []uint32{0, 4, 0, 2, 2, 1}},
		{"all of weight 0", []uint32{0, 0, 0}},
		{"two certain ones", []uint32{50, 40, 5, 4, 3, 2, 1}},
		{"sixteen", []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
		{"large primes", []uint32{65_521, 32_749, 16_381, 8_191, 4_093, 2_039}},
	} {
		for _, name := range lb.Names() {
			for _, k := range slices.Compact([]int{1, 2, len(c.weights) - 1, len(c.weights)}) {
				what := fmt.Sprintf("%s, %s, k=%d", name, c.name, k)
				checkShares(t, what, build(t, name, list(c.weights...)), len(c.weights), k, draws)
			}
		}
	}
}

// checkShares draws and compares inclusion, first place and the choice of a
// client that picks uniformly.
func checkShares(t *testing.T, what string, p lb.Picker, n, k, draws int) {
	t.Helper()
	want := shares(t, p, k)
	included, first, uniform := make([]int, n), make([]int, n), make([]int, n)
	// The seed is fixed: of some 200 comparisons at p = 0.001 a random one would
	// fail a fifth of all runs.
	words := newWords(12)
	var got []uint32
	for range draws {
		got = p.Pick(got[:0], k, words.request())
		first[got[0]]++
		uniform[got[words.below(len(got))]]++
		for _, i := range got {
			included[i]++
		}
	}
	firstWant, uniformWant := make([]float64, n), make([]float64, n)
	for i, s := range want {
		firstWant[i], uniformWant[i] = s.First, s.Uniform
		// Inclusion is not multinomial: each within 4.5 standard deviations.
		sd := math.Sqrt(s.Included * max(0, 1-s.Included) / float64(draws))
		if f := float64(included[i]) / float64(draws); math.Abs(f-s.Included) > 4.5*sd+1e-4 {
			t.Errorf("%s: endpoint %d included %.5f of the time, promised %.5f", what, i, f, s.Included)
		}
	}
	chiSquare(t, what+": first place", first, firstWant)
	chiSquare(t, what+": uniform client", uniform, uniformWant)
}

func TestSharer_Shares_Sums(t *testing.T) {
	for _, name := range lb.Names() {
		t.Run(name+" shares add up to one client and k places", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				endpoints := list(drawWeights(t, 270)...)
				policy, err := lb.ByName(name)
				if err != nil {
					t.Fatal(err)
				}
				n, _ := lb.Candidates(endpoints)
				k := rapid.IntRange(1, n).Draw(t, "k")
				p := policy(endpoints)
				picked := len(p.Pick(nil, k, lb.Request{}))
				var sum lb.Share
				for _, s := range p.(lb.Sharer).Shares(k) {
					if s.Included < 0 || s.Included > 1+1e-6 {
						t.Fatalf("included %v", s.Included)
					}
					sum.Included += s.Included
					sum.First += s.First
					sum.Uniform += s.Uniform
					sum.SRV += s.SRV
				}
				for _, d := range []float64{sum.Included - float64(picked), sum.First - 1, sum.Uniform - 1, sum.SRV - 1} {
					if math.Abs(d) > 1e-4*float64(picked) {
						t.Fatalf("sums %+v for %d picked", sum, picked)
					}
				}
			})
		})
	}
}
