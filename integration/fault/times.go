package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Times is how long something took, run by run.
type Times []time.Duration

// Quantile is the least time that at least the share q of the runs took at
// most, q from 0 to 1; the list must not be empty.
func (t Times) Quantile(q float64) time.Duration {
	s := slices.Sorted(slices.Values(t))
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// Max is the longest time.
func (t Times) Max() time.Duration { return slices.Max(t) }

// String is the distribution in a line.
func (t Times) String() string {
	if len(t) == 0 {
		return "no runs"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs: min %s", len(t), short(slices.Min(t)))
	for _, q := range []float64{0.5, 0.9, 0.99} {
		fmt.Fprintf(&b, ", p%g %s", 100*q, short(t.Quantile(q)))
	}
	fmt.Fprintf(&b, ", max %s", short(t.Max()))
	return b.String()
}

// short is a time with three digits or so.
func short(d time.Duration) string {
	switch {
	case d.Abs() >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d.Abs() >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
