package lb_test

import (
	"slices"
	"testing"

	"github.com/musterdns/muster/lb"
)

// TestFew_Pick/is what the Picker that it was made from picks.
func TestFew_Pick(t *testing.T) {
	words := newWords(1)
	for n := range 18 {
		endpoints := shaped("equal", n)
		if n > 3 {
			endpoints[2].Weight = 0 // no candidate
		}
		p := lb.Weighted(endpoints)
		few, ok := lb.FewOf(p)
		if candidates, _ := lb.Candidates(endpoints); ok != (candidates <= 16) {
			t.Errorf("n=%d: a Few: %t", n, ok)
		}
		if got, want := few.Shares(2), p.(lb.Sharer).Shares(2); ok && !slices.Equal(got, want) {
			t.Errorf("n=%d: shares %v, want %v", n, got, want)
		}
		for range 200 {
			r := words.request()
			for _, k := range []int{0, 1, 3, n, n + 1} {
				if got, want := few.Pick(nil, k, r), p.Pick(nil, k, r); ok && !slices.Equal(got, want) {
					t.Fatalf("n=%d k=%d: %v, want %v", n, k, got, want)
				}
			}
		}
	}
	for name, policy := range map[string]lb.Policy{"weighted": lb.Weighted, "all": lb.All, "hash": lb.Hash, "round-robin": lb.RoundRobin} {
		if _, ok := lb.FewOf(policy(list(1, 3))); ok {
			t.Errorf("%s of unequal weights is a Few", name)
		}
	}
}
