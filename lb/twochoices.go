package lb

import (
	"math"
	"math/bits"
	"time"
)

// scanMax is up to how many candidates all are compared: below, drawing two
// distinct ones costs as much, and all see more.
const scanMax = 8

// LeastRequests is the proxies' form of the policy least-loaded: the endpoint
// with the fewest requests in flight for its weight, by (active+1)/weight, of
// two that are drawn in proportion to weight (Mitzenmacher 2001); up to 8
// candidates all are compared. Idle ones are equally good: the draw decides
// between them, so that a proxy with little to do keeps to the weights.
//
// The counts are this process's own and exact, so unlike in DNS the choice may
// follow them at once. Endpoints without a Load count as idle.
func LeastRequests(endpoints []Endpoint) Picker { return newTwoChoices(endpoints, false) }

// PeakEWMA picks as LeastRequests does, by (active+1) x cost/weight, the cost
// being the latency as PeakCost keeps it in Load.Cost. An endpoint of which
// nothing is known yet counts as costless while it is idle and as the dearest
// once a request is on its way to find out.
func PeakEWMA(endpoints []Endpoint) Picker { return newTwoChoices(endpoints, true) }

// PeakCost folds a latency into a cost, in seconds: a latency above the cost
// replaces it at once, others pull it down with weight 1-exp(-elapsed/tau)
// (finagle's peak EWMA). elapsed is the time since the cost was last changed.
// Count an error as a slow answer, or a fast failure attracts requests.
func PeakCost(cost, latency float64, elapsed, tau time.Duration) float64 {
	if latency > cost || tau <= 0 {
		return latency
	}
	keep := math.Exp(-float64(max(elapsed, 0)) / float64(tau))
	return cost*keep + latency*(1-keep)
}

// twoChoices is the power of two choices over a draw by weight.
type twoChoices struct {
	line    line
	loads   []*Load   // of the line's candidates
	weights []float64 // likewise; never 0
	peak    bool
}

func newTwoChoices(endpoints []Endpoint, peak bool) Picker {
	index, _ := candidates(endpoints)
	if len(index) == 0 {
		return newUniform(nil, nil)
	}
	weighed := endpoints
	if endpoints[index[0]].Weight == 0 { // all are: they count alike
		weighed = make([]Endpoint, len(endpoints))
		copy(weighed, endpoints)
		for i := range weighed {
			weighed[i].Weight = 1
		}
	}
	p := &twoChoices{line: newLine(index, weighed), peak: peak}
	for _, i := range p.line.index {
		p.loads = append(p.loads, weighed[i].Load)
		p.weights = append(p.weights, float64(weighed[i].Weight))
	}
	return p
}

// Shares implements Sharer: what a proxy with nothing in flight does.
func (p *twoChoices) Shares(k int) []Share { return p.line.shares(k) }

// Pick implements Picker. The second and later ones are a sample by weight.
func (p *twoChoices) Pick(dst []uint32, k int, r Request) []uint32 {
	n := len(p.line.index)
	k = min(k, n)
	if k <= 0 {
		return dst
	}
	first := p.draw(r.Rand)
	best := first
	if n <= scanMax {
		for i := range n {
			if at := (first + i) % n; p.better(at, best) {
				best = at
			}
		}
	} else if second := p.other(first, r.Rand); p.better(second, first) {
		best = second
	}
	from := len(dst)
	dst = append(dst, p.line.index[best])
	if k == 1 {
		return dst
	}
	dst = p.line.pick(dst, k, r.Rand)
	// The best stands first; drop its second mention, or the last one.
	for i := from + 1; i < len(dst); i++ {
		if dst[i] == dst[from] {
			copy(dst[i:], dst[i+1:])
			break
		}
	}
	return dst[:from+k]
}

// draw returns the candidate at a word's place on the line.
func (p *twoChoices) draw(word uint64) int {
	place, _ := bits.Mul64(word, p.line.total())
	return p.line.find(place)
}

// redrawMax bounds the draws for a second candidate; a heavy one may take all.
const redrawMax = 4

// other draws a candidate that is not the first.
func (p *twoChoices) other(first int, word uint64) int {
	for range redrawMax {
		word = mix(word + golden)
		if at := p.draw(word); at != first {
			return at
		}
	}
	return (first + 1) % len(p.line.index)
}

// better reports whether candidate a is to be preferred to b.
func (p *twoChoices) better(a, b int) bool {
	if a == b {
		return false
	}
	x, xIdle := p.burden(a)
	y, yIdle := p.burden(b)
	if xIdle && yIdle && !p.peak {
		return false
	}
	return x < y
}

// burden is what one more request would cost at a candidate.
func (p *twoChoices) burden(at int) (burden float64, idle bool) {
	var active int64
	cost := 1.0
	if l := p.loads[at]; l != nil {
		active = max(l.Active.Load(), 0)
		if p.peak {
			cost = math.Float64frombits(l.Cost.Load())
			if cost == 0 && active > 0 {
				return math.MaxFloat64, false
			}
		}
	} else if p.peak {
		cost = 0
	}
	return float64(active+1) * cost / p.weights[at], active == 0
}
