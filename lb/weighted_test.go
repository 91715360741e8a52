package lb_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

// rfc2782 chooses among picked endpoints as RFC 2782 tells a client to: by
// running sums of the weights sent, those of weight 0 first.
func rfc2782(words *words, weights []uint32) int {
	var total uint64
	for _, w := range weights {
		total += uint64(w)
	}
	place := words.rng.Uint64() >> 1 % (total + 1)
	for i, w := range weights {
		if w == 0 && place == 0 {
			return i
		}
	}
	var sum uint64
	for i, w := range weights {
		if sum += uint64(w); w > 0 && sum >= place {
			return i
		}
	}
	return 0
}

func TestWeighted_ClientShares(t *testing.T) {
	const draws = 200_000
	for _, c := range []struct {
		weights []uint32
		k       int
		want    []float64 // what a client reaches that picks uniformly
	}{
		// w <= W/k: exactly w/W. Drawing one after the other without
		// replacement would give the first .40, and .60 with its SRV weights.
		{[]uint32{3, 1, 1, 1}, 2, []float64{.5, 1. / 6, 1. / 6, 1. / 6}},
		{[]uint32{1, 2, 3, 4}, 2, []float64{.1, .2, .3, .4}},
		{[]uint32{5, 3, 2, 4, 6, 5, 5}, 5, []float64{1. / 6, .1, 2. / 30, 4. / 30, .2, 1. / 6, 1. / 6}},
		// w > W/k: 1/k, and the others by weight over the rest.
		{[]uint32{97, 1, 1, 1}, 2, []float64{.5, 1. / 6, 1. / 6, 1. / 6}},
		{[]uint32{90, 60, 4, 3, 2, 1}, 4, []float64{.25, .25, .2, .15, .1, .05}},
	} {
		p := lb.Weighted(list(c.weights...))
		words := newWords(5)
		uniform, srv := make([]int, len(c.weights)), make([]int, len(c.weights))
		// Equal, and large: RFC 2782 draws from 0 to the sum inclusive, which
		// would favour the first of small ones.
		equal := slices.Repeat([]uint32{1<<15 - 1}, c.k)
		var got []uint32
		for range draws {
			got = p.Pick(got[:0], c.k, words.request())
			uniform[got[words.below(len(got))]]++
			srv[got[rfc2782(words, equal)]]++
		}
		what := fmt.Sprintf("weights %v, k=%d", c.weights, c.k)
		chiSquare(t, what+", uniform client", uniform, c.want)
		chiSquare(t, what+", RFC 2782 client given equal weights", srv, c.want)
	}
}

func TestWeighted_WholeSet(t *testing.T) {
	t.Run("an RFC 2782 client given the real weights reaches each by its weight", func(t *testing.T) {
		const draws = 200_000
		weights := []uint32{1000, 2000, 3000, 4000}
		p := lb.Weighted(list(weights...))
		words := newWords(6)
		seen := make([]int, len(weights))
		var got []uint32
		for range draws {
			got = p.Pick(got[:0], 8, words.request())
			sent := make([]uint32, len(got))
			for at, i := range got {
				sent[at] = weights[i]
			}
			seen[got[rfc2782(words, sent)]]++
		}
		chiSquare(t, "real weights", seen, []float64{.1, .2, .3, .4})
	})
}

// TestWeighted_Circle: the words of the 16 prepared answers of a signed set lie
// evenly spaced, and must cover the endpoints as evenly.
func TestWeighted_Circle(t *testing.T) {
	t.Run("evenly spaced words include each endpoint within one of its share", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			weights := make([]uint32, rapid.IntRange(2, 60).Draw(t, "n"))
			equal := rapid.Bool().Draw(t, "equal")
			for i := range weights {
				weights[i] = 5
				if !equal {
					weights[i] = rapid.Uint32Range(1, 9).Draw(t, "w")
				}
			}
			p := lb.Weighted(list(weights...))
			offset := rapid.Uint64().Draw(t, "offset")
			first := make([]int, len(weights))
			for j := range uint64(16) {
				first[p.Pick(nil, 3, lb.Request{Rand: offset + j<<60})[0]]++
			}
			for i, s := range p.(lb.Sharer).Shares(3) {
				if d := math.Abs(float64(first[i]) - 16*s.First); d >= 1+1e-9 {
					t.Fatalf("endpoint %d first %d times of 16, share %v", i, first[i], s.First)
				}
			}
		})
	})
}

func TestWeighted_Companions(t *testing.T) {
	t.Run("an endpoint of an equal set shares answers with many others", func(t *testing.T) {
		const n, k = 100, 4
		p := lb.Weighted(shaped("equal", n))
		companions := make(map[uint32]bool)
		words := newWords(9)
		var got []uint32
		for range 100_000 {
			got = p.Pick(got[:0], k, words.request())
			for _, i := range got {
				if i == 0 {
					for _, other := range got {
						companions[other] = true
					}
				}
			}
		}
		// One stride would give it 6 companions and itself.
		if len(companions) < 40 {
			t.Errorf("%d companions of %d, want at least 40", len(companions), n-1)
		}
	})
}
