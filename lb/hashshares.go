package lb

import "math"

// sampledKeys is how many hashes are looked at where inclusion in a rank order
// is counted rather than computed.
const sampledKeys = 1 << 14

// Shares implements Sharer. Included and Uniform are computed by numeric
// integration, to within 1e-6.
func (p *rendezvous) Shares(k int) []Share {
	shares, k := rankShares(p.size, p.entries, k)
	if k > 1 && k < len(p.entries) {
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
// n > k independent exponential times with the weights as rates:
//
//	integral over t of  w exp(-w t) P(fewer than k of the others come before t)
//
// by the trapezoid rule over x = ln t, where the integrand is smooth and dies
// away on both sides, so that even wide steps are exact to many digits. The
// counts of the others come from running sums over the entries, forwards and
// backwards, cut off at k.
func includedInRank(entries []hashEntry, k int) []float64 {
	const (
		step = 0.1
		tiny = 1e-8 // what may be lost at either end
	)
	n := len(entries)
	least, most := math.Inf(1), 0.0
	for i := range entries {
		least = min(least, entries[i].weight)
		most = max(most, entries[i].weight)
	}
	included := make([]float64, n)
	before := make([]float64, n*k) // before[i*k+c]: chance that c of entries[:i] have come
	after := make([]float64, k)    // the same of entries[i+1:]
	end := math.Log(-math.Log(tiny) / least)
	for x := math.Log(tiny / most); x < end; x += step {
		t := math.Exp(x)
		before[0] = 1
		for i := range n - 1 {
			come := -math.Expm1(-entries[i].weight * t)
			arrive(before[(i+1)*k:(i+2)*k], before[i*k:(i+1)*k], come)
		}
		clear(after)
		after[0] = 1
		for i := n - 1; i >= 0; i-- {
			w := entries[i].weight
			included[i] += step * w * t * math.Exp(-w*t) * fewer(before[i*k:(i+1)*k], after)
			arrive(after, after, -math.Expm1(-w*t))
		}
	}
	return included
}

// arrive sets next to the distribution of a count, cut off at its length, after
// one more may have come with chance come. next may be last.
func arrive(next, last []float64, come float64) {
	for c := len(last) - 1; c > 0; c-- {
		next[c] = last[c]*(1-come) + last[c-1]*come
	}
	next[0] = last[0] * (1 - come)
}

// fewer returns the chance that two independent counts add up to less than the
// length of their distributions.
func fewer(a, b []float64) float64 {
	var sum, below float64
	for c := range b {
		below += b[c]
		sum += a[len(a)-1-c] * below
	}
	return sum
}
