package lb

import "math"

// groupBits is how many bits of the mixed id say the group. The number of
// groups does not follow n, since each change of it would move nearly every
// hash; 256 is the square root of 65,536 endpoints.
const groupBits = 8

// grouped picks a group, then a member.
type grouped struct {
	size    int         // of the endpoint list
	groups  []hashEntry // index: into first; none is empty
	first   []uint32    // members of group i: first[i] to first[i+1]
	members []hashEntry
}

func newGrouped(index []uint32, endpoints []Endpoint) *grouped {
	var count [1<<groupBits + 1]uint32
	var weight [1 << groupBits]float64
	for _, i := range index {
		e := newHashEntry(i, endpoints)
		g := e.id >> (64 - groupBits)
		count[g+1]++
		weight[g] += e.weight // whole numbers below 2^53: exact in any order
	}
	for g := range weight {
		count[g+1] += count[g]
	}
	p := &grouped{size: len(endpoints), members: make([]hashEntry, len(index)), first: append([]uint32(nil), count[:]...)}
	for _, i := range index {
		e := newHashEntry(i, endpoints)
		g := e.id >> (64 - groupBits)
		p.members[count[g]] = e
		count[g]++
	}
	for g, w := range weight {
		if w > 0 {
			p.groups = append(p.groups, hashEntry{id: mix(uint64(g) + 1), weight: w, index: uint32(g)})
		}
	}
	return p
}

// of returns the members of a group.
func (p *grouped) of(group *hashEntry) []hashEntry {
	return p.members[p.first[group.index]:p.first[group.index+1]]
}

// Pick implements Picker. The groups that the first k ranks can come from are
// the k best: taking a member away makes its own group worse and no other
// better.
func (p *grouped) Pick(dst []uint32, k int, r Request) []uint32 {
	k = min(k, len(p.members), HashRankMax)
	if k <= 0 {
		return dst
	}
	key := mix(r.Hash + golden)
	groupKey := mix(key + golden)
	if k == 1 {
		pos, _ := nearest(p.groups, groupKey, -1, -1)
		members := p.of(&p.groups[pos])
		pos, _ = nearest(members, key, -1, -1)
		return append(dst, members[pos].index)
	}
	return p.ranked(dst, k, key, groupKey)
}

// ranked appends k > 1: each rank is the best member left of the group that is
// best by the weight left in it.
func (p *grouped) ranked(dst []uint32, k int, key, groupKey uint64) []uint32 {
	var best ranking
	best.rank(p.groups, groupKey, min(k, len(p.groups)))
	var gone, last [HashRankMax]float64 // weight taken, score of the last taken
	var lastPos [HashRankMax]int
	for at := range best.n {
		last[at], lastPos[at] = -1, -1
	}
	for range k {
		at := 0
		for i := 1; i < best.n; i++ {
			if best.score[i] < best.score[at] {
				at = i
			}
		}
		group := &p.groups[best.pos[at]]
		members := p.of(group)
		pos, s := nearest(members, key, last[at], lastPos[at])
		dst = append(dst, members[pos].index)
		last[at], lastPos[at] = s, pos
		gone[at] += members[pos].weight
		if left := group.weight - gone[at]; left > 0 {
			best.score[at] = score(group.draw(groupKey), left)
		} else {
			best.score[at] = math.Inf(1)
		}
	}
	return dst
}
