package lb

import (
	"cmp"
	"slices"
)

// MaglevSlots is how many slots a Maglev table has: a prime, since every step
// through the table must reach every slot, and the size that Envoy and Katran
// use: up to 655 endpoints of equal weight it is off a share by at most 1 %.
const MaglevSlots = 65_537

// Maglev builds the lookup table of a consistent hash that a kernel can
// evaluate (Eisenbud et al. 2016, section 3.4): slot h mod MaglevSlots holds the
// index, in the list, of the endpoint that hash h chooses. It is nil where there
// is no endpoint.
//
// The table is a function of the endpoints' ids and weights alone, in whatever
// order they are listed, so that all servers with the same list build the same.
// Each endpoint has its part w/W of the slots, rounded to a whole slot up or
// down: one with less than a slot may have none. When one of n equal endpoints
// leaves, its slots move and, beside them, about 1 % of the rest.
func Maglev(endpoints []Endpoint) []uint32 {
	index, _ := candidates(endpoints)
	if len(index) == 0 {
		return nil
	}
	// Who comes first is a matter of the id alone.
	slices.SortFunc(index, func(a, b uint32) int { return cmp.Compare(endpoints[a].ID, endpoints[b].ID) })
	return fill(newTurns(index, endpoints))
}

// maglevTurn is one endpoint while a table is filled.
type maglevTurn struct {
	slots  uint32 // that it is to have
	credit uint32 // below the largest number of slots: it takes a slot when it reaches that
	next   uint32 // the slot that it wants
	skip   uint32 // from one wanted slot to the next
	index  uint32
}

// newTurns shares out the slots by largest remainders (Hamilton's method), so
// that the numbers of slots, which then serve as weights, are small and exact.
func newTurns(index []uint32, endpoints []Endpoint) []maglevTurn {
	var total uint64
	for _, i := range index {
		total += uint64(max(endpoints[i].Weight, 1))
	}
	turns := make([]maglevTurn, len(index))
	remainders := make([]uint64, len(index))
	left := uint32(MaglevSlots)
	for pos, i := range index {
		e := &endpoints[i]
		// A weight has 32 bits and the slots 17, their product fits.
		product := uint64(max(e.Weight, 1)) * MaglevSlots
		slots, remainder := product/total, product%total
		hash := mix(e.ID + golden)
		turns[pos] = maglevTurn{
			slots: uint32(slots),
			next:  uint32(hash % MaglevSlots),
			skip:  uint32(mix(hash+golden)%(MaglevSlots-1)) + 1,
			index: i,
		}
		remainders[pos] = remainder
		left -= uint32(slots)
	}
	order := make([]uint32, len(index))
	for pos := range order {
		order[pos] = uint32(pos)
	}
	slices.SortStableFunc(order, func(a, b uint32) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, pos := range order[:left] {
		turns[pos].slots++
	}
	return turns
}

// fill lets the endpoints take slots in turns, each the next free one of its
// own permutation. In every round each gains its number of slots in credit and
// pays the largest such number for a slot: after that many rounds each has its
// number exactly. All take a slot in the first round.
func fill(turns []maglevTurn) []uint32 {
	var price uint32
	for i := range turns {
		price = max(price, turns[i].slots)
	}
	for i := range turns {
		turns[i].credit = price - turns[i].slots
	}
	const free = ^uint32(0)
	table := make([]uint32, MaglevSlots)
	for slot := range table {
		table[slot] = free
	}
	for range price {
		for i := range turns {
			t := &turns[i]
			if t.credit += t.slots; t.credit < price || t.slots == 0 {
				continue
			}
			t.credit -= price
			for table[t.next] != free {
				t.step()
			}
			table[t.next] = t.index
			t.step()
		}
	}
	return table
}

// step goes on to the slot wanted next.
func (t *maglevTurn) step() {
	if t.next += t.skip; t.next >= MaglevSlots {
		t.next -= MaglevSlots
	}
}
