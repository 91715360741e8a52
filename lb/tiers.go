package lb

import "math/bits"

// Spill is how load moves on from a tier that loses health.
type Spill uint8

const (
	// SpillAuto is SpillWhenEmpty below spillAutoBelow endpoints in all tiers
	// together, where one endpoint more or less is too coarse a measure, and
	// SpillProportional from there on.
	SpillAuto Spill = iota
	// SpillProportional moves on the part that a tier cannot carry.
	SpillProportional
	// SpillWhenEmpty moves all, once nothing in a tier is healthy.
	SpillWhenEmpty
)

const (
	spillAutoBelow = 6
	// overprovisionPercent is how much load a tier's healthy part is trusted to
	// carry: at 140 a tier keeps all of it down to 72 % healthy (Envoy's
	// overprovisioning_factor).
	overprovisionPercent = 140
)

// Tier is one priority level. AssignTiers reads Healthy and Total, and writes
// the rest.
type Tier struct {
	Healthy int // endpoints that may be served on their health
	Total   int // endpoints registered and undrained, at least Healthy
	// Load is the tier's part of the requests, in percent. The loads add up to
	// 100, or are all 0: nothing is to be served.
	Load int
	// Panic tells to choose among all Total endpoints of the tier, whatever
	// their health, since the healthy ones could not carry the load.
	Panic bool
}

// TierRule is how a service's tiers share its load.
type TierRule struct {
	Spill Spill
	// PanicPercent is the share of healthy endpoints below which a tier
	// panics, once the tiers together cannot carry the load; 0: never.
	PanicPercent int
	// FailOpen makes every tier panic once nothing is healthy in any; without
	// it (and with no PanicPercent) nothing is served then.
	FailOpen bool
}

// AssignTiers sets Load and Panic of tiers, the first being the preferred, by
// Envoy's rule. The health of a tier is min(100, 140 x healthy/total) percent,
// rounded down, and N the sum of the healths, at most 100. A tier takes
// health x 100/N percent of the load, the first ones first until all is taken,
// and what rounding leaves goes to the most loaded one. A tier panics when
// N < 100 and its healthy share is below the threshold. With nothing healthy at
// all, the tiers share the load by their size.
//
// Under SpillWhenEmpty the first tier with a healthy endpoint takes all, and
// panics by the same rule.
func AssignTiers(tiers []Tier, rule TierRule) {
	total, sum, first := 0, 0, -1
	for i := range tiers {
		t := &tiers[i]
		t.Load, t.Panic = 0, false
		total += t.Total
		sum += t.health()
		if first < 0 && t.Healthy > 0 {
			first = i
		}
	}
	carry := min(100, sum)
	if first < 0 {
		if rule.FailOpen || rule.PanicPercent > 0 {
			shareBySize(tiers, total)
		}
		return
	}
	if carry < 100 {
		for i := range tiers {
			t := &tiers[i]
			t.Panic = t.Total > 0 && t.Healthy*100 < rule.PanicPercent*t.Total
		}
	}
	spill := rule.Spill
	if spill == SpillAuto && total < spillAutoBelow {
		spill = SpillWhenEmpty
	}
	if spill == SpillWhenEmpty || carry == 0 {
		tiers[first].Load = 100
		return
	}
	left := 100
	for i := range tiers {
		t := &tiers[i]
		t.Load = min(left, t.health()*100/carry)
		left -= t.Load
	}
	mostLoaded(tiers).Load += left
}

// health is what part of the load the tier can carry alone, in percent.
func (t *Tier) health() int {
	if t.Total <= 0 {
		return 0
	}
	return min(100, overprovisionPercent*t.Healthy/t.Total)
}

// shareBySize makes all tiers panic, each with its part of the endpoints.
func shareBySize(tiers []Tier, total int) {
	if total == 0 {
		return
	}
	left := 100
	for i := range tiers {
		t := &tiers[i]
		t.Panic = t.Total > 0
		t.Load = 100 * t.Total / total
		left -= t.Load
	}
	mostLoaded(tiers).Load += left
}

// mostLoaded returns the first of the tiers with the largest load. There must
// be a tier.
func mostLoaded(tiers []Tier) *Tier {
	most := &tiers[0]
	for i := range tiers {
		if tiers[i].Load > most.Load {
			most = &tiers[i]
		}
	}
	return most
}

// DrawTier draws a tier by the loads that AssignTiers has set. rest is a word
// that is again uniformly random given the tier, and evenly spaced where the
// words drawn with are: use it, not word, to pick within the tier, or the pick
// would lean to one end of it. tier is -1 when all loads are 0. Under the hash
// policy draw with the mixed hash instead of a random word, so that a client
// keeps its tier.
func DrawTier(tiers []Tier, word uint64) (tier int, rest uint64) {
	percent, fraction := bits.Mul64(word, 100)
	for i := range tiers {
		load := uint64(max(tiers[i].Load, 0))
		if percent < load {
			rest, _ = bits.Div64(percent, fraction, load) // percent < load: no overflow
			return i, rest
		}
		percent -= load
	}
	return -1, word
}
