package pool

import "sync/atomic"

// Crowd tells whether one source makes up most of the questions of a hash
// service: behind a forwarder every client has one, and all go to one instance.
// It holds a candidate and counts the questions that were its own and others'
// (the majority vote of Boyer and Moore). Counts of several cores may be off by a
// few; the share is an estimate. It is safe for concurrent use.
type Crowd struct {
	source      atomic.Uint64 // the candidate's hash
	same, other atomic.Uint32 // questions noted since it is the candidate
}

const (
	// crowdMin is how many questions must have been noted for a share to mean
	// something, and crowdMax at how many both counts are halved, so that the
	// share is of late.
	crowdMin = 100
	crowdMax = 1 << 14
)

// Note counts one question from a source, by its hash. Who asks often notes one
// in several.
func (c *Crowd) Note(source uint64) {
	if c.source.Load() == source {
		if n := c.same.Add(1); n >= crowdMax {
			c.same.Store(n / 2)
			c.other.Store(c.other.Load() / 2)
		}
		return
	}
	if n := c.other.Add(1); n > c.same.Load() {
		c.source.Store(source)
		c.same.Store(1)
		c.other.Store(0)
	}
}

// Share is the part of the questions that come from the most frequent source,
// where that is more than half of them; 0: no source makes up so much, or too
// few questions were noted.
func (c *Crowd) Share() float64 {
	if c == nil {
		return 0
	}
	same, other := c.same.Load(), c.other.Load()
	if same+other < crowdMin || same <= other {
		return 0
	}
	return float64(same) / float64(same+other)
}
