package lb

import "math"

const (
	// HashRankMax is the longest rank order that Hash picks: a client that has
	// failed with so many will not be helped by the next.
	HashRankMax = 64
	// RendezvousMax is up to how many candidates every one is scored.
	RendezvousMax = 256
)

// Hash picks by Request.Hash: the same hash gives the same endpoints, in the
// same order, on every server that has the same list, in whatever order.
//
// Up to 256 candidates it is weighted rendezvous hashing: each gets exactly
// its part w/W of the hashes, and a change of one endpoint moves only hashes
// that it gains or loses. Above, the candidates are split by id into 256
// groups, rendezvous picks a group by its total weight and then a member:
// O(256 + n/256), the parts still exact, and a change of one endpoint by
// weight w moves at most 2 w/W of the hashes. The step between 256 and 257
// moves nearly all. The k picked are a rank order: the second is the one that
// would be first if the first were gone, and so on, to HashRankMax.
func Hash(endpoints []Endpoint) Picker {
	index, _ := candidates(endpoints)
	if len(index) > RendezvousMax {
		return newGrouped(index, endpoints)
	}
	p := &rendezvous{size: len(endpoints), entries: make([]hashEntry, len(index))}
	for pos, i := range index {
		p.entries[pos] = newHashEntry(i, endpoints)
	}
	return p
}

// hashEntry is what can win: an endpoint or a group of them.
type hashEntry struct {
	id     uint64 // mixed
	weight float64
	index  uint32
}

// newHashEntry counts a weight of 0 as 1: it is a candidate only where all
// weights are 0.
func newHashEntry(i uint32, endpoints []Endpoint) hashEntry {
	e := &endpoints[i]
	return hashEntry{id: mix(e.ID + golden), weight: float64(max(e.Weight, 1)), index: i}
}

// draw is a number in (0, 1), uniform over the keys, from 53 bits of the mixed
// key and id.
func (e *hashEntry) draw(key uint64) float64 {
	return (float64(mix(key^e.id)>>11) + 0.5) * 0x1p-53
}

// score turns a draw into a time, exponentially distributed with rate weight;
// the least of several such times is each one's with probability proportional
// to its weight. It is never less than draw/weight, by which most candidates
// are dismissed without a logarithm.
func score(draw, weight float64) float64 { return -math.Log1p(-draw) / weight }

// ranking holds the best entries, best first. Ties go to the one seen first.
type ranking struct {
	score [HashRankMax]float64
	pos   [HashRankMax]uint32
	n     int
}

// rank fills r with the k best of entries, 1 <= k <= HashRankMax, k <= len(entries).
func (r *ranking) rank(entries []hashEntry, key uint64, k int) {
	limit := math.Inf(1)
	r.n = 0
	for pos := range entries {
		e := &entries[pos]
		draw := e.draw(key)
		if draw >= limit*e.weight {
			continue
		}
		s := score(draw, e.weight)
		if s >= limit {
			continue
		}
		if r.n < k {
			r.n++
		}
		at := r.n - 1
		for ; at > 0 && r.score[at-1] > s; at-- {
			r.score[at], r.pos[at] = r.score[at-1], r.pos[at-1]
		}
		r.score[at], r.pos[at] = s, uint32(pos)
		if r.n == k {
			limit = r.score[k-1]
		}
	}
}

// nearest returns the position and score of the best entry that comes after
// the one of score last at position lastPos (-1: the best of all). There must
// be one.
func nearest(entries []hashEntry, key uint64, last float64, lastPos int) (int, float64) {
	best, limit := -1, math.Inf(1)
	for pos := range entries {
		e := &entries[pos]
		draw := e.draw(key)
		if draw >= limit*e.weight {
			continue
		}
		s := score(draw, e.weight)
		if s < limit && (s > last || s == last && pos > lastPos) {
			best, limit = pos, s
		}
	}
	return best, limit
}

// rendezvous scores every candidate.
type rendezvous struct {
	size    int // of the endpoint list
	entries []hashEntry
}

// Pick implements Picker.
func (p *rendezvous) Pick(dst []uint32, k int, r Request) []uint32 {
	k = min(k, len(p.entries), HashRankMax)
	if k <= 0 {
		return dst
	}
	key := mix(r.Hash + golden)
	if k == 1 {
		pos, _ := nearest(p.entries, key, -1, -1)
		return append(dst, p.entries[pos].index)
	}
	var best ranking
	best.rank(p.entries, key, k)
	for _, pos := range best.pos[:k] {
		dst = append(dst, p.entries[pos].index)
	}
	return dst
}
