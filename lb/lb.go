// Package lb chooses endpoints. It is a function of (endpoints, request): the
// caller brings the random word, the hash and the counter, and the package has
// no clock, no randomness and no input or output of its own.
//
// A policy is built once over a list of endpoints and is immutable from then
// on; only the Load counters behind the endpoints move.
package lb

import "sync/atomic"

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
}

// Endpoint is one candidate.
type Endpoint struct {
	ID     uint64 // stable hash of the instance's identity, for the hash policy
	Weight uint32 // effective weight; 0: only when all are 0
	Load   *Load  // may be nil: no load known
}

// Request is all that a choice may depend on.
type Request struct {
	Hash uint64 // of what the hash policy hashes
	Rand uint64 // one uniformly random word
	Seq  uint64 // the caller's counter for round robin
}

// Picker chooses. Pick appends to dst the indexes of min(k, n) distinct
// endpoints, best first. It is pure, safe for concurrent use, never blocks and
// allocates nothing beyond what appending to dst needs.
type Picker interface {
	Pick(dst []uint32, k int, r Request) []uint32
}

// Policy builds a Picker. It keeps the slice's Load pointers, not the slice.
type Policy func(endpoints []Endpoint) Picker
