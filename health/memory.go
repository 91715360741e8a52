package health

import (
	"hash/maphash"
	"math/bits"
	"time"
)

// memory holds the entries of all targets, as small as they can be: there may
// be a million. They lie in blocks without pointers, which a collector passes
// by; what targets have in common is interned, and what few of them have is in
// a map. The room of entries that are gone is for the next ones, and is not
// given back. It is not safe for concurrent use.
type memory struct {
	seed    maphash.Seed
	blocks  []*[blockLen]entry
	made    ID // the last that was ever in use
	free    ID // the first that is not in use any more; linked by sibling
	count   int
	buckets []ID // linear hashing: the first entry of each; linked by sibling

	specs     interned[Target] // without what is a target's own
	outputs   interned[output]
	names     []string // by number
	namesFree []uint32
	histories map[ID][]Transition // replaced, never written; see history
}

// blockLen entries are 28 KiB, which is a size that Go allocates without loss.
const blockLen = 256

func newMemory() memory {
	return memory{
		seed: maphash.MakeSeed(), buckets: make([]ID, 1), histories: map[ID][]Transition{},
		specs: newInterned[Target](), outputs: newInterned[output](),
	}
}

// at is the entry of an ID that is in use. It stays where it is.
func (m *memory) at(id ID) *entry { return &m.blocks[(id-1)/blockLen][(id-1)%blockLen] }

// find returns the entry of a key; nil: there is none.
func (m *memory) find(k *key) *entry {
	spec, there := m.specs.numbers[k.spec]
	if !there {
		return nil
	}
	want := placeOf(k.addr)
	for id := m.buckets[m.bucket(k)]; id != 0; {
		e := m.at(id)
		if e.spec == spec && (e.place == want || e.place.kind == placeName && m.names[e.place.name()] == k.name) {
			return e
		}
		id = e.sibling
	}
	return nil
}

// add makes an entry of a key that has none.
func (m *memory) add(k *key) *entry {
	id := m.free
	if id != 0 {
		m.free = m.at(id).sibling
	} else {
		if int(m.made) == len(m.blocks)*blockLen {
			m.blocks = append(m.blocks, new([blockLen]entry))
		}
		m.made++
		id = m.made
	}
	e := m.at(id)
	*e = entry{id: id, spec: m.specs.take(k.spec), place: placeOf(k.addr)}
	if m.specs.value(e.spec).Type == TypeTTL {
		e.place = placeOfName(m.name(k.name))
	}
	if m.count++; m.count > len(m.buckets) {
		m.split()
	}
	m.link(m.bucket(k), e)
	return e
}

// remove takes an entry out of the index: it is not found any more. It ends
// with release.
func (m *memory) remove(e *entry) {
	k := m.key(e)
	b := m.bucket(&k)
	if m.buckets[b] == e.id {
		m.buckets[b] = e.sibling
	} else {
		before := m.at(m.buckets[b])
		for before.sibling != e.id {
			before = m.at(before.sibling)
		}
		before.sibling = e.sibling
	}
	m.count--
}

// release gives the room of a removed entry to the next one that is added.
func (m *memory) release(e *entry) {
	m.specs.drop(e.spec)
	m.outputs.drop(e.output)
	m.outputs.drop(e.entered)
	if e.place.kind == placeName {
		n := e.place.name()
		m.names[n] = ""
		m.namesFree = append(m.namesFree, n)
	}
	delete(m.histories, e.id)
	*e = entry{id: e.id, sibling: m.free}
	m.free = e.id
}

// name keeps a name and returns its number.
func (m *memory) name(s string) uint32 {
	if last := len(m.namesFree) - 1; last >= 0 {
		n := m.namesFree[last]
		m.namesFree = m.namesFree[:last]
		m.names[n] = s
		return n
	}
	m.names = append(m.names, s)
	return uint32(len(m.names) - 1)
}

// key is that of an entry.
func (m *memory) key(e *entry) key {
	k := key{addr: e.place.addr(), spec: m.specs.slots[e.spec].value}
	if e.place.kind == placeName {
		k.name = m.names[e.place.name()]
	}
	return k
}

// target is what an entry is of.
func (m *memory) target(e *entry) Target {
	k := m.key(e)
	return k.target()
}

// isTTL reports whether an entry waits for heartbeats.
func (m *memory) isTTL(e *entry) bool { return e.place.kind == placeName }

// bucket is the bucket of a key. Linear hashing: of two halves of which the
// second is not there yet, the first serves.
func (m *memory) bucket(k *key) int {
	h := maphash.Comparable(m.seed, *k)
	n := uint64(len(m.buckets))
	whole := uint64(1) << bits.Len64(n-1)
	if b := h & (whole - 1); b < n {
		return int(b)
	}
	return int(h & (whole/2 - 1))
}

// split adds one bucket, and moves what is its to it: the index grows with each
// target, and no Add pays for all the others.
func (m *memory) split() {
	from := len(m.buckets) - 1<<(bits.Len(uint(len(m.buckets)))-1)
	id := m.buckets[from]
	m.buckets = append(m.buckets, 0)
	m.buckets[from] = 0
	for id != 0 {
		e := m.at(id)
		id = e.sibling
		k := m.key(e)
		m.link(m.bucket(&k), e)
	}
}

func (m *memory) link(bucket int, e *entry) {
	e.sibling = m.buckets[bucket]
	m.buckets[bucket] = e.id
}

// history is an entry's transitions. The first, out of the unknown, is nearly
// every target's only one: it takes no room of its own, as the entry has all of
// it.
func (m *memory) history(e *entry, wall time.Time) []Transition {
	if e.transitions == 1 && e.born == Unknown {
		o := m.outputs.value(e.entered)
		return []Transition{{At: wall.Add(time.Duration(e.since)), To: e.state, Output: o.of(e.place.addr())}}
	}
	return m.histories[e.id]
}
