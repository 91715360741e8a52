package pool

import (
	"hash/maphash"
	"sync/atomic"
)

// entry is what a table holds: an immutable object that knows its key. The
// hash must be that of hashKey over the same key.
type entry interface {
	key() (hash uint64, space uint16, key string)
}

// table is an open-addressed hash table with one writer and any number of
// readers, who take no lock: slots of a tag (the key's hash) and an atomic
// pointer.
//
// The writer stores the tag first and then the pointer; a reader loads the
// pointer first and then the tag. A slot keeps its tag until the table is
// replaced: a removed entry leaves a tombstone, and only its own key may take
// that slot again. So a reader that sees a pointer sees the tag that belongs to
// it. Full keys are compared in the end.
//
// When slots run out, the table is built anew: twice as large if it is full of
// entries, at the same size if it is tombstones that fill it.
type table[T any, P interface {
	*T
	entry
}] struct {
	slots atomic.Pointer[[]slot[T]]

	// The rest is the writer's.
	used     int // slots with a tag
	live     int // of those, slots with an entry
	rebuilds uint64
}

type slot[T any] struct {
	tag atomic.Uint64 // 0: never used
	ptr atomic.Pointer[T]
}

const tableMin = 64

func (t *table[T, P]) init() {
	slots := make([]slot[T], tableMin)
	t.slots.Store(&slots)
}

// get finds the entry of a key; nil when there is none.
func (t *table[T, P]) get(hash uint64, space uint16, key []byte) P {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &slots[i]
		p := P(s.ptr.Load())
		tag := s.tag.Load()
		if tag == 0 {
			return nil
		}
		if tag != hash || p == nil {
			continue
		}
		if _, sp, k := p.key(); sp == space && k == string(key) {
			return p
		}
	}
}

// likely is get by a hash alone, without a look at the entry; nil when none has it.
func (t *table[T, P]) likely(hash uint64) P {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		p := P(slots[i].ptr.Load())
		switch slots[i].tag.Load() {
		case 0:
			return nil
		case hash:
			return p
		}
	}
}

// put stores an entry in place of what its key had.
func (t *table[T, P]) put(p P) {
	slots := *t.slots.Load()
	if (t.used+1)*4 > len(slots)*3 {
		slots = t.rebuild()
	}
	hash, _, _ := p.key()
	s, fresh := t.find(slots, p)
	if fresh {
		t.used++
		s.tag.Store(hash)
	}
	if s.ptr.Swap((*T)(p)) == nil {
		t.live++
	}
}

// remove forgets the entry that has p's key.
func (t *table[T, P]) remove(p P) {
	s, fresh := t.find(*t.slots.Load(), p)
	if !fresh && s.ptr.Swap(nil) != nil {
		t.live--
	}
}

// find returns the slot of p's key, or the one that it is to get (fresh). A
// tombstone is taken again only when no live entry has its tag further on,
// which equal hashes of different keys would otherwise break.
func (t *table[T, P]) find(slots []slot[T], p P) (_ *slot[T], fresh bool) {
	hash, space, key := p.key()
	mask := uint64(len(slots) - 1)
	var tomb *slot[T]
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &slots[i]
		switch s.tag.Load() {
		case 0:
			if tomb != nil {
				return tomb, false
			}
			return s, true
		case hash:
			q := P(s.ptr.Load())
			if q == nil {
				if tomb == nil {
					tomb = s
				}
				continue
			}
			if _, sp, k := q.key(); sp == space && k == key {
				return s, false
			}
		}
	}
}

// rebuild replaces the slots by ones without tombstones, at most half full.
func (t *table[T, P]) rebuild() []slot[T] {
	old := *t.slots.Load()
	size := tableMin
	for size < t.live*2+2 {
		size *= 2
	}
	slots := make([]slot[T], size)
	mask := uint64(size - 1)
	for i := range old {
		p := old[i].ptr.Load()
		if p == nil {
			continue
		}
		j := old[i].tag.Load() & mask
		for slots[j].tag.Load() != 0 {
			j = (j + 1) & mask
		}
		slots[j].tag.Store(old[i].tag.Load())
		slots[j].ptr.Store(p)
	}
	t.used = t.live
	t.rebuilds++
	t.slots.Store(&slots)
	return slots
}

// hashKey is the hash of a table's keys: never 0, seeded per process, so that
// names cannot be chosen to collide.
func hashKey(seed maphash.Seed, space uint16, key []byte) uint64 {
	h := maphash.Bytes(seed, key) ^ uint64(space)*0x9e3779b97f4a7c15
	return h | 1<<63
}
