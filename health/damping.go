package health

import (
	"math"
	"time"
)

// The figures of damping, in the manner of RFC 2439: an instance that falls
// four times within half a minute or so is held back until it has been well for
// two minutes or so.
const (
	dampPenalty  = 1000             // of one fall
	dampSuppress = 3000             // above it, what passes is held back
	dampReuse    = 1000             // below it, it is not any more
	dampHalfLife = 60 * time.Second // of the penalty
	// DampMax is the longest that anything is held back after its last fall; it
	// bounds the penalty.
	DampMax = 10 * time.Minute
)

// Damping holds back what falls again and again. The zero value is of something
// that never fell. Times are nanoseconds of any one clock.
type Damping struct {
	penalty float64 // at the time at
	at      int64
	held    bool
}

// Fall notes a fall.
func (d *Damping) Fall(now int64) {
	ceiling := dampReuse * math.Exp2(float64(DampMax)/float64(dampHalfLife))
	d.penalty = min(d.now(now)+dampPenalty, ceiling)
	d.at = now
	d.held = d.held || d.penalty > dampSuppress
}

// Held reports whether it is held back, and until when if it does not fall
// again.
func (d *Damping) Held(now int64) (held bool, until int64) {
	if !d.held {
		return false, 0
	}
	until = d.at + int64(math.Log2(d.penalty/dampReuse)*float64(dampHalfLife))
	if now >= until {
		d.held = false
		return false, 0
	}
	return true, until
}

func (d *Damping) now(now int64) float64 {
	return d.penalty * math.Exp2(-float64(now-d.at)/float64(dampHalfLife))
}
