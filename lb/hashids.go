package lb

import "math"

// hashIDs is rendezvous for endpoints of equal weights, of which nothing but
// the ids is needed: the order of their scores is that of their draws.
type hashIDs []uint64

// HashIDs is Hash for endpoints of these ids and equal weights above 0. It
// picks what that does. It keeps ids, which must not change.
func HashIDs(ids []uint64) Picker {
	if len(ids) > RendezvousMax {
		return hashIDs(ids).weighted()
	}
	return hashIDs(ids)
}

// weighted is the Picker that Hash makes.
func (p hashIDs) weighted() Picker {
	endpoints := make([]Endpoint, len(p))
	for i, id := range p {
		endpoints[i] = Endpoint{ID: id, Weight: WeightScale}
	}
	return Hash(endpoints)
}

// Pick implements Picker.
func (p hashIDs) Pick(dst []uint32, k int, r Request) []uint32 {
	k = min(k, len(p), HashRankMax)
	if k <= 0 {
		return dst
	}
	key := mix(r.Hash + golden)
	var draws [HashRankMax]uint64 // of those picked, ascending
	n, first := 0, len(dst)
	limit := uint64(math.MaxUint64)
	for i, id := range p {
		draw := mix(key^mix(id+golden)) >> 11 // as hashEntry has it
		if draw >= limit {
			continue
		}
		if n < k {
			n++
			dst = append(dst, 0)
		}
		at := n - 1
		for ; at > 0 && draws[at-1] > draw; at-- {
			draws[at], dst[first+at] = draws[at-1], dst[first+at-1]
		}
		draws[at], dst[first+at] = draw, uint32(i)
		if n == k {
			limit = draws[n-1]
		}
	}
	return dst
}

// Shares implements Sharer.
func (p hashIDs) Shares(k int) []Share { return p.weighted().(Sharer).Shares(k) }
