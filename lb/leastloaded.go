package lb

import (
	"math"
	"time"
)

// LeastLoaded picks as Weighted does. What makes it follow load is that the
// weights are adjusted by the reports of load: a strict choice of the least
// loaded would send every cache in the same direction at once. The caller keeps
// one factor an instance, starting at 1, moves them by StepLoadFactors once
// each TTL, and rebuilds with EffectiveWeight(weight, factor).
func LeastLoaded(endpoints []Endpoint) Picker { return Weighted(endpoints) }

// A factor stays within loadFactorMax of 1 in either direction, so that a wrong
// report can neither starve an instance nor flood it without limit, and moves
// by at most loadStepMax a step, since what a step does is seen only after the
// caches have run out.
const (
	loadFactorMax = 16
	loadStepMax   = 2
	// loadFloor is the least utilisation that counts: below it, loads differ by
	// noise alone.
	loadFloor = 0.01
)

// StepLoadFactors moves the load factors of one service's instances by one
// step, in place. loads[i] is the smoothed utilisation of the instance of
// factors[i] (any unit, the same for all); NaN, infinite or negative stands for
// none or a stale one, and lets the factor glide back to 1, the plain weight.
//
// The target is the geometric mean of the loads. A factor is multiplied by the
// square root of target/load, kept within half to twice its last value and
// within 1/16 to 16. The square root is there for stability: the loads lag
// behind by a TTL and their smoothing, and the full quotient would overshoot.
// The factor builds on its last value: one computed from the plain weight
// afresh would undo the correction as soon as it had worked.
func StepLoadFactors(factors, loads []float64) {
	// Both are means of logarithms. Taking drift off keeps the product of the
	// fresh factors at 1, or clamping would let all of them drift to one end.
	var target, drift, fresh float64
	for i, load := range loads {
		if loadKnown(load) {
			target += math.Log(max(load, loadFloor))
			drift += math.Log(factors[i])
			fresh++
		}
	}
	target /= max(fresh, 1)
	drift /= max(fresh, 1)
	for i, load := range loads {
		last := factors[i]
		next := 1.0
		if loadKnown(load) {
			next = last * math.Exp((target-math.Log(max(load, loadFloor)))/2-drift)
		}
		next = min(max(next, last/loadStepMax), last*loadStepMax)
		factors[i] = min(max(next, 1.0/loadFactorMax), loadFactorMax)
	}
}

func loadKnown(load float64) bool { return load >= 0 && load <= math.MaxFloat64 }

// SmoothLoad folds a reported utilisation into the smoothed one: the weight of
// what came before halves every halfLife (at least two TTLs, or the factors
// chase their own effect). A first report (smoothed is NaN) or a halfLife of 0
// counts whole.
func SmoothLoad(smoothed, report float64, elapsed, halfLife time.Duration) float64 {
	if math.IsNaN(smoothed) || halfLife <= 0 {
		return report
	}
	keep := math.Exp2(-float64(max(elapsed, 0)) / float64(halfLife))
	return smoothed*keep + report*(1-keep)
}
