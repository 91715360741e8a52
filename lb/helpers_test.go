package lb_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

// words makes requests from a fixed seed.
type words struct {
	rng *rand.PCG
	seq uint64
}

func newWords(seed uint64) *words { return &words{rng: rand.NewPCG(seed, 2)} }

func (w *words) request() lb.Request {
	w.seq++
	return lb.Request{Hash: w.rng.Uint64(), Rand: w.rng.Uint64(), Seq: w.seq}
}

// below returns a uniformly random number below n.
func (w *words) below(n int) int { return int(w.rng.Uint64() >> 1 % uint64(n)) }

// list makes endpoints of the given weights, with ids that look like hashes.
func list(weights ...uint32) []lb.Endpoint {
	rng := rand.NewPCG(7, 7)
	endpoints := make([]lb.Endpoint, len(weights))
	for i, w := range weights {
		endpoints[i] = lb.Endpoint{ID: rng.Uint64(), Weight: w}
	}
	return endpoints
}

// shaped makes n endpoints: "equal", or "mixed" with weights of 1 to 10.
func shaped(weights string, n int) []lb.Endpoint {
	w := make([]uint32, n)
	for i := range w {
		w[i] = 1
		if weights == "mixed" {
			w[i] = 1 + uint32(i*7%10)
		}
	}
	return list(w...)
}

func build(tb testing.TB, name string, endpoints []lb.Endpoint) lb.Picker {
	tb.Helper()
	policy, err := lb.ByName(name)
	if err != nil {
		tb.Fatal(err)
	}
	return policy(endpoints)
}

func shares(tb testing.TB, p lb.Picker, k int) []lb.Share {
	tb.Helper()
	s, ok := p.(lb.Sharer)
	if !ok {
		tb.Fatalf("%T is no Sharer", p)
	}
	return s.Shares(k)
}

// drawWeights generates lists of weights: small ones, equal ones, huge ones,
// zeros among them, and one that outweighs all others.
func drawWeights(t *rapid.T, most int) []uint32 {
	n := rapid.IntRange(1, most).Draw(t, "n")
	largest := rapid.SampledFrom([]uint32{0, 1, 3, 10, 65_535, math.MaxUint32}).Draw(t, "largest")
	w := make([]uint32, n)
	for i := range w {
		w[i] = rapid.Uint32Range(0, largest).Draw(t, "w")
	}
	if rapid.Bool().Draw(t, "skewed") {
		w[0] = math.MaxUint32
	}
	return w
}

// chiSquare fails where observed counts do not fit the expected shares at
// p = 0.001. Shares of 0 must not have been seen at all.
func chiSquare(tb testing.TB, what string, observed []int, expected []float64) {
	tb.Helper()
	total := 0
	for _, o := range observed {
		total += o
	}
	statistic, df := 0.0, -1
	for i, e := range expected {
		want := e * float64(total)
		if e == 0 {
			if observed[i] != 0 {
				tb.Errorf("%s: endpoint %d seen %d times, want never", what, i, observed[i])
			}
			continue
		}
		d := float64(observed[i]) - want
		statistic += d * d / want
		df++
	}
	if limit := chiSquareLimit(df); statistic > limit {
		tb.Errorf("%s: chi-square %.1f over the limit %.1f (df %d)\nobserved %v\nexpected %v", what, statistic, limit, df, observed, expected)
	}
}

// chiSquareLimit is the 99.9 % quantile by Wilson and Hilferty's approximation,
// within 1 % of the tables from df 1 on (10.83, 16.27, 27.88, 148.2 for 1, 3, 9,
// 99).
func chiSquareLimit(df int) float64 {
	if df <= 0 {
		return 1e-9
	}
	const z = 3.0902
	c := 2.0 / (9 * float64(df))
	return 1.01 * float64(df) * math.Pow(1-c+z*math.Sqrt(c), 3)
}
