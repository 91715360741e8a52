package lb_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/musterdns/muster/lb"
)

// TestHashIDs/picks, and shares, what Hash does of endpoints of equal weights.
func TestHashIDs(t *testing.T) {
	words := newWords(1)
	for _, n := range []int{0, 1, 2, 10, 70, 256, 257} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			endpoints := shaped("equal", n)
			ids := make([]uint64, n)
			for i := range endpoints {
				ids[i] = endpoints[i].ID
				endpoints[i].Weight = 3 // no power of two: scores are rounded
			}
			p, want := lb.HashIDs(ids), lb.Hash(endpoints)
			for range 200 {
				r := words.request()
				for _, k := range []int{0, 1, 3, n, n + 1} {
					got := p.Pick([]uint32{7}, k, r)
					if w := want.Pick([]uint32{7}, k, r); !slices.Equal(got, w) {
						t.Fatalf("k=%d: %v, want %v", k, got, w)
					}
				}
			}
			got, w := p.(lb.Sharer).Shares(2), want.(lb.Sharer).Shares(2)
			if !slices.EqualFunc(got, w, func(a, b lb.Share) bool {
				return a.SRV == b.SRV && math.Abs(a.First-b.First)+math.Abs(a.Uniform-b.Uniform)+math.Abs(a.Included-b.Included) < 1e-9
			}) {
				t.Errorf("shares %v, want %v", got[:min(n, 3)], w[:min(n, 3)])
			}
		})
	}
}
