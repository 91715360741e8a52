package lb

import (
	"math"
	"time"
)

// slowStartFloor is the least part of its weight that a warming endpoint has:
// enough to warm up by.
const slowStartFloor = 0.10

// SlowStart is the factor on the weight of an endpoint that began to pass
// elapsed ago: max(0.10, (elapsed/window)^(1/aggression)), and 1 from window
// on or where window is 0 or less. Aggression 1 is a straight line, more rises
// faster at first; 0 or less counts as 1.
//
// It applies when an endpoint is added and when it passes again after failing.
// It should not apply at the server's own start, nor while more than half of a
// pool would be in it, since then there is nobody to take the load meanwhile.
func SlowStart(elapsed, window time.Duration, aggression float64) float64 {
	if elapsed >= window || window <= 0 {
		return 1
	}
	if aggression <= 0 {
		aggression = 1
	}
	part := float64(max(elapsed, 0)) / float64(window)
	return max(slowStartFloor, math.Pow(part, 1/aggression))
}
