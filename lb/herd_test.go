package lb_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/lb"
)

// The world of the simulation: clients behind caching resolvers, which ask once a TTL
// and send all of theirs to the one instance that they were told.
const (
	herdTTL       = 5.0 // seconds
	herdEnd       = 500.0
	herdWarm      = 200.0 // from when on it counts
	herdReport    = 5.0   // between an instance's reports of its load
	herdResolvers = 200
	herdDemand    = 0.6 // of what all instances together can do
)

// herdRates are what the instances can do, in requests a second. Their weights are
// equal: nobody has told Muster.
var herdRates = []float64{200, 200, 200, 200, 50, 50, 50, 50}

// chooser chooses an instance for a resolver, and learns of their loads: each second
// of their use.
type chooser interface {
	choose(random uint64) int
	report(loads []float64)
	step()
}

// fixed chooses by weights that do not change.
type fixed struct{ picker lb.Picker }

func fixedWeights(weights ...uint32) *fixed {
	endpoints := make([]lb.Endpoint, len(weights))
	for i, w := range weights {
		endpoints[i] = lb.Endpoint{Weight: w * lb.WeightScale}
	}
	return &fixed{lb.Weighted(endpoints)}
}

func (f *fixed) choose(random uint64) int {
	return int(f.picker.Pick(nil, 1, lb.Request{Rand: random})[0])
}
func (*fixed) report([]float64) {}
func (*fixed) step()            {}

// smoothed are loads as the pool keeps them.
type smoothed []float64

func (s smoothed) report(loads []float64) {
	for i, load := range loads {
		s[i] = lb.SmoothLoad(s[i], load, herdReport*time.Second, 2*herdTTL*time.Second)
	}
}

// least chooses as the policy least-loaded does.
type least struct {
	fixed
	smoothed
	factors []float64
}

func newLeast() *least {
	l := &least{factors: slices.Repeat([]float64{1}, len(herdRates)), smoothed: slices.Repeat(smoothed{math.NaN()}, len(herdRates))}
	l.rebuild()
	return l
}

func (l *least) report(loads []float64) { l.smoothed.report(loads) }

func (l *least) step() {
	lb.StepLoadFactors(l.factors, l.smoothed)
	l.rebuild()
}

func (l *least) rebuild() {
	endpoints := make([]lb.Endpoint, len(l.factors))
	for i, f := range l.factors {
		endpoints[i] = lb.Endpoint{Weight: lb.EffectiveWeight(1, f)}
	}
	l.picker = lb.LeastLoaded(endpoints)
}

// strict chooses the instance whose last report was the least.
type strict struct{ last []float64 }

func (s *strict) choose(uint64) int      { return slices.Index(s.last, slices.Min(s.last)) }
func (s *strict) report(loads []float64) { copy(s.last, loads) }
func (*strict) step()                    {}

// herd is what came of a choice: the 99th percentile of the times that requests took, in
// seconds, and the most that came to one instance within a TTL, as a multiple of what it
// can do in one.
type herd struct{ p99, worst float64 }

// simulate has Poisson arrivals from resolvers of unequal size, and instances that serve
// one request after the other, each for an exponential time.
func simulate(c chooser) herd {
	random := rand.New(rand.NewPCG(7, 11))
	demand := 0.0
	for _, r := range herdRates {
		demand += herdDemand * r
	}
	n := len(herdRates)
	told, until := make([]int, herdResolvers), make([]float64, herdResolvers)
	free, busy := make([]float64, n), make([]float64, n) // when it is free; of the second
	window := make([]float64, n)                         // what came in the TTL
	var h herd
	var took []float64
	second, turn := herdReport, herdTTL
	for now := 0.0; now < herdEnd; now += random.ExpFloat64() / demand {
		for ; second <= now; second += herdReport {
			loads := make([]float64, n)
			for i := range loads {
				loads[i] = min(busy[i]/herdReport, 1)
				busy[i] = max(0, busy[i]-herdReport)
			}
			c.report(loads)
		}
		for ; turn <= now; turn += herdTTL {
			c.step()
			for i := range window {
				if turn > herdWarm {
					h.worst = max(h.worst, window[i]/(herdTTL*herdRates[i]))
				}
				window[i] = 0
			}
		}
		r := min(random.IntN(herdResolvers), random.IntN(herdResolvers))
		if now >= until[r] {
			told[r], until[r] = c.choose(random.Uint64()), now+herdTTL
		}
		i := told[r]
		work := random.ExpFloat64() / herdRates[i]
		free[i] = max(free[i], now) + work
		busy[i] += work
		window[i]++
		if now > herdWarm {
			took = append(took, free[i]-now)
		}
	}
	slices.Sort(took)
	h.p99 = took[len(took)*99/100]
	return h
}

// TestLeastLoaded_BehindCaches: caches that hold an answer for a TTL do not make
// least-loaded herd, as they do make the choice of whoever is least loaded; and it finds
// out what instances can do that weights do not say.
func TestLeastLoaded_BehindCaches(t *testing.T) {
	weighted := simulate(fixedWeights(1, 1, 1, 1, 1, 1, 1, 1))
	told := simulate(fixedWeights(4, 4, 4, 4, 1, 1, 1, 1)) // what they can do
	least := simulate(newLeast())
	herding := simulate(&strict{make([]float64, len(herdRates))})
	t.Logf("p99, worst TTL: equal weights %.3f s, %.1f; the right weights %.3f s, %.1f; least-loaded %.3f s, %.1f; the least loaded %.3f s, %.1f",
		weighted.p99, weighted.worst, told.p99, told.worst, least.p99, least.worst, herding.p99, herding.worst)
	if least.p99 > weighted.p99/10 {
		t.Errorf("p99 %.3f s, want a tenth of that of equal weights, %.3f s", least.p99, weighted.p99)
	}
	if least.p99 > 5*told.p99 {
		t.Errorf("p99 %.3f s, want at most five times that of the right weights, %.3f s", least.p99, told.p99)
	}
	if least.worst > 1.5*told.worst {
		t.Errorf("in some TTL %.1f times what an instance can do came to it, with the right weights %.1f: it herds", least.worst, told.worst)
	}
	if herding.worst < 3*least.worst {
		t.Errorf("%.1f times by the choice of the least loaded, and %.1f by least-loaded: this test sees no herds", herding.worst, least.worst)
	}
}
