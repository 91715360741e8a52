package zones

import "github.com/musterdns/muster/dnsserver/wire"

// WarmMax is how many questions Tree.Warm takes at once.
const WarmMax = 32

// warmSteps is how many reads, each of what the one before found, lead to all that
// an answer is made from.
const warmSteps = 4

// Warmer is a Source that can bring what answers read into a core's caches. It is safe
// for concurrent use, never blocks, and allocates nothing.
type Warmer interface {
	// Hash is what Warm knows a name by, of which the first below labels stand below the
	// zone's apex.
	Hash(name *wire.Name, below int) uint64
	// Warm reads what the step-th of the places, counted from 0, that lead to an answer
	// has, and returns something made of it.
	Warm(step int, hash uint64) uint64
}

// Warm brings what the answers to questions will read into the core's caches, those of
// WarmMax questions at most. Among many names a lookup is a chain of reads, each of a
// place that the one before found, and for each the core waits for its memory. Here all
// questions go the first step, then all the second: they wait side by side. Answers are
// the same without it. What it returns is of no use but to have the reads made.
func (t *Tree) Warm(questions []*wire.Query) (read uint64) {
	var at [WarmMax]struct {
		zone Warmer
		hash uint64
	}
	n := 0
	for _, q := range questions[:min(len(questions), WarmMax)] {
		if z, below := t.match(&q.Name, 0); z != nil && z.warmer != nil {
			at[n].zone, at[n].hash = z.warmer, z.warmer.Hash(&q.Name, below)
			n++
		}
	}
	for step := range warmSteps {
		for i := range at[:n] {
			read += at[i].zone.Warm(step, at[i].hash)
		}
	}
	return read
}

// warmZone is a static zone as a Warmer.
type warmZone Zone

// Hash implements Warmer.
func (z *warmZone) Hash(name *wire.Name, _ int) uint64 { return z.names.hash(name.Wire()) }

// Warm implements Warmer: the slot, the node, its name and first set, and the records.
func (z *warmZone) Warm(step int, hash uint64) uint64 {
	if step == 0 {
		return uint64(z.names.slots[hash&uint64(len(z.names.slots)-1)].entry)
	}
	i, ok := z.names.likely(hash)
	if !ok {
		return 0
	}
	n := &z.names.nodes[i]
	switch {
	case step == 1:
		return uint64(n.first)
	case n.count == 0:
		return 0
	case step == 2:
		return uint64(z.names.names[n.name]) + uint64(z.sets[n.first].ttl)
	default:
		return uint64(z.data[z.sets[n.first].data])
	}
}
