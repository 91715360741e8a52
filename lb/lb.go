// Package lb chooses endpoints. It is a function of (endpoints, request): the
// caller brings the random word, the hash and the counter, and the package has
// no clock, no randomness and no input or output of its own.
//
// A policy is built once over a list of endpoints and is immutable from then
// on. An endpoint of weight 0 is a candidate only when all weights are 0;
// every policy holds to that, and "n" below counts candidates.
//
// Beside the policies stands the arithmetic that DNS and the proxies must
// share, since two copies would drift: how load is spread over tiers
// (AssignTiers), how a recovering endpoint warms up (SlowStart), and how
// reported load turns into weights (StepLoadFactors).
package lb

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// Load is what is known of one instance's load. It is keyed by instance and
// incarnation by whoever owns it, and survives rebuilds of the pickers. All
// fields are safe for concurrent use.
type Load struct {
	// Active counts requests or connections in flight through this process's
	// proxies.
	Active atomic.Int64
	// EWMA is the reported utilisation, smoothed, as math.Float64bits; written
	// by the pool's writer alone.
	EWMA atomic.Uint64
	// Cost is the peak-EWMA of the latency in seconds (PeakCost), as
	// math.Float64bits; 0: not known. Written by the proxies.
	Cost atomic.Uint64
}

// Endpoint is one candidate.
type Endpoint struct {
	ID     uint64 // stable hash of the instance's identity, distinct within a list
	Weight uint32 // effective weight (EffectiveWeight); 0: only when all are 0
	Load   *Load  // may be nil: no load known
}

// Request is all that a choice may depend on.
type Request struct {
	Hash uint64 // of what the hash policy hashes
	// Rand is one uniformly random word. It is read as a position on a circle:
	// words that are evenly spaced (2^64/m apart) make m choices that are
	// evenly spread over the endpoints.
	Rand uint64
	// Seq is the caller's counter for round robin. Start it at a random value,
	// or servers that start together all begin with the same endpoint.
	Seq uint64
}

// Picker chooses. Pick appends to dst the indexes, in the list the picker was
// built from, of min(k, n) distinct endpoints, best first; the hash policy
// stops at HashRankMax. It is pure, safe for concurrent use, never blocks and
// allocates nothing beyond what appending to dst needs.
type Picker interface {
	Pick(dst []uint32, k int, r Request) []uint32
}

// Policy builds a Picker. It does not keep the slice. An empty list gives a
// Picker that picks nothing. Every Picker of this package is also a Sharer.
type Policy func(endpoints []Endpoint) Picker

// Candidates tells how many endpoints a policy chooses from (those with a
// weight above 0, or all when none has one), and whether their weights are
// equal.
func Candidates(endpoints []Endpoint) (n int, equal bool) {
	equal = true
	var first uint32
	for i := range endpoints {
		w := endpoints[i].Weight
		if w == 0 {
			continue
		}
		if n == 0 {
			first = w
		}
		equal = equal && w == first
		n++
	}
	if n == 0 {
		return len(endpoints), true
	}
	return n, equal
}

// candidates lists the indexes that Candidates counts, in the order given.
func candidates(endpoints []Endpoint) (index []uint32, equal bool) {
	n, equal := Candidates(endpoints)
	index = make([]uint32, 0, n)
	for i := range endpoints {
		if endpoints[i].Weight > 0 || n == len(endpoints) {
			index = append(index, uint32(i))
		}
	}
	return index, equal
}

// WeightScale is how many units of effective weight one unit of registered
// weight is, so that a factor such as slow start's 0.10 still tells apart
// endpoints of registered weight 1.
const WeightScale = 1 << 10

// EffectiveWeight is a registered weight (0 to 65,535) times a factor (slow
// start times load factor), in the units of Endpoint.Weight. A weight above 0
// never becomes 0, since 0 means "only when nothing else is left"; it
// saturates at the largest uint32. A factor that is not a number counts as 1.
func EffectiveWeight(registered uint16, factor float64) uint32 {
	if registered == 0 {
		return 0
	}
	if math.IsNaN(factor) {
		factor = 1
	}
	w := math.Round(float64(registered) * WeightScale * factor)
	return uint32(min(max(w, 1), math.MaxUint32))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014, in Stafford's
// variant 13): a bijection in which every input bit moves every output bit.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// shuffle permutes index by a sequence seeded from the endpoints' ids, so that
// the order is arbitrary and yet a function of the endpoints alone.
func shuffle(index []uint32, endpoints []Endpoint) {
	var state uint64
	for _, i := range index {
		state += mix(endpoints[i].ID + golden)
	}
	for i := len(index) - 1; i > 0; i-- {
		state += golden
		j, _ := bits.Mul64(mix(state), uint64(i)+1)
		index[i], index[j] = index[j], index[i]
	}
}
