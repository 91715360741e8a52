package lb

import (
	"math"
	"sync/atomic"
)

// BoundedHash picks as Hash does, but passes over endpoints that have their
// part: with total requests in flight, an endpoint of weight w out of W takes
// no more than ceil(factor x (total+1) x w/W) (Mirrokni, Thorup and
// Zadimoghaddam 2018). What it would have got goes to the next of the key's
// ranks, another for each key, so that no one neighbour is flooded in turn. A
// factor below 1 counts as 1.
//
// total is the sum of the endpoints' Load.Active; the caller keeps it. Without
// any below its bound, for a moment, the first rank stands.
func BoundedHash(endpoints []Endpoint, factor float64, total *atomic.Int64) Picker {
	p := &boundedHash{hash: Hash(endpoints), loads: make([]*Load, len(endpoints)), parts: make([]float64, len(endpoints)), total: total}
	sum := 0.0
	for i := range endpoints {
		sum += float64(max(endpoints[i].Weight, 1))
	}
	for i := range endpoints {
		p.loads[i] = endpoints[i].Load
		p.parts[i] = max(factor, 1) * float64(max(endpoints[i].Weight, 1)) / sum
	}
	return p
}

// boundedHash filters the ranks of a hash.
type boundedHash struct {
	hash  Picker
	loads []*Load
	parts []float64 // of the requests in flight that an endpoint may take
	total *atomic.Int64
}

// Shares implements Sharer: what it comes to while nobody is at the bound.
func (p *boundedHash) Shares(k int) []Share {
	s, ok := p.hash.(Sharer)
	if !ok {
		return nil
	}
	return s.Shares(k)
}

// Pick implements Picker.
func (p *boundedHash) Pick(dst []uint32, k int, r Request) []uint32 {
	if k <= 0 {
		return dst
	}
	from := len(dst)
	dst = p.hash.Pick(dst, 1, r)
	if len(dst) > from && k == 1 && p.below(dst[from]) {
		return dst // as most are
	}
	dst = p.hash.Pick(dst[:from], HashRankMax, r)
	picked := dst[from:]
	// Those below their bound come first, both parts in the order of rank.
	free := 0
	for i, e := range picked {
		if p.below(e) {
			copy(picked[free+1:i+1], picked[free:i])
			picked[free] = e
			free++
		}
	}
	return dst[:from+min(k, len(picked))]
}

// below reports whether an endpoint may take one more.
func (p *boundedHash) below(e uint32) bool {
	l := p.loads[e]
	if l == nil {
		return true
	}
	bound := math.Ceil(p.parts[e] * float64(max(p.total.Load(), 0)+1))
	return float64(l.Active.Load()+1) <= bound
}
