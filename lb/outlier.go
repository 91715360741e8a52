package lb

import (
	"cmp"
	"math"
	"slices"
)

// OutlierRule says which endpoints have so much worse results than they should
// that a proxy stops asking them for a while. Zero fields are off.
type OutlierRule struct {
	// Consecutive is how many failures in a row are too many.
	Consecutive uint32
	// FailurePercent is the share of failures in a round that is too much, of
	// FailureRequests requests or more. It needs no other endpoints to compare
	// with: the one rule that works in the smallest pools.
	FailurePercent  uint32
	FailureRequests uint32
	// Deviations is how many standard deviations (of the population) below the
	// mean success rate an endpoint's own must be. It is applied among
	// RateHosts or more endpoints that had RateRequests each. Of n endpoints
	// one alone can be at most sqrt(n-1) deviations off: below 5 endpoints 1.9
	// can never eject.
	Deviations   float64
	RateHosts    int
	RateRequests uint32
	// EjectedPercent bounds how many endpoints are ejected at a time: that
	// share of them rounded down, at least one of two or more, and never the
	// last.
	EjectedPercent int
}

// OutlierSample is what became of the requests to one endpoint in a round.
type OutlierSample struct {
	OK, Failed uint32
	Row        uint32 // failures in a row, up to now
	Ejected    bool   // already
}

// Outliers returns the indexes of the samples to be ejected now, the worst
// first, as many as the rule allows beside those that are already.
func Outliers(samples []OutlierSample, rule OutlierRule) []int {
	room := rule.EjectedMax(len(samples))
	for i := range samples {
		if samples[i].Ejected {
			room--
		}
	}
	if room <= 0 {
		return nil
	}
	cut := rule.rateCut(samples)
	var out []int
	for i := range samples {
		if s := &samples[i]; !s.Ejected && rule.judges(s, cut) {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(samples[a].rate(), samples[b].rate()) })
	return out[:min(room, len(out))]
}

// EjectedMax is how many of n endpoints may be ejected at a time.
func (r *OutlierRule) EjectedMax(n int) int {
	if n < 2 {
		return 0
	}
	return min(max(1, n*r.EjectedPercent/100), n-1)
}

// judges reports whether a sample is an outlier; cut is the success rate below
// which it is, compared with the others.
func (r *OutlierRule) judges(s *OutlierSample, cut float64) bool {
	n := s.OK + s.Failed
	switch {
	case r.Consecutive > 0 && s.Row >= r.Consecutive:
		return true
	case r.FailurePercent > 0 && n >= max(r.FailureRequests, 1) && uint64(s.Failed)*100 >= uint64(r.FailurePercent)*uint64(n):
		return true
	default:
		return n >= max(r.RateRequests, 1) && s.rate() < cut
	}
}

// rate is the success rate; an endpoint that nobody asked has failed nobody.
func (s *OutlierSample) rate() float64 {
	if s.OK+s.Failed == 0 {
		return 1
	}
	return float64(s.OK) / float64(s.OK+s.Failed)
}

// rateCut is the mean success rate less the allowed deviations; 0 where there
// are too few to compare.
func (r *OutlierRule) rateCut(samples []OutlierSample) float64 {
	if r.Deviations <= 0 {
		return 0
	}
	n, sum, squares := 0, 0.0, 0.0
	for i := range samples {
		s := &samples[i]
		if s.Ejected || s.OK+s.Failed < max(r.RateRequests, 1) {
			continue
		}
		n++
		sum += s.rate()
		squares += s.rate() * s.rate()
	}
	if n < max(r.RateHosts, 2) {
		return 0
	}
	mean := sum / float64(n)
	return mean - r.Deviations*math.Sqrt(max(squares/float64(n)-mean*mean, 0))
}
