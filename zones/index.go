package zones

import (
	"bytes"
	"hash/maphash"
)

// index finds names in wire form: an open-addressed table over one block of
// octets, without a pointer for the collector to follow. The seed is random, so
// that no zone file can be written whose names collide. It is written while it
// is built and never afterwards.
type index struct {
	seed  maphash.Seed
	slots []slot // at most half are in use
	nodes []node // entries; of a Tree's they have nothing but a name
	names []byte // every name, one after the other
}

// slot is a place of the table. The hash spares a look at another entry's name, which
// lies where no cache has it once there are many.
type slot struct {
	hash  uint32 // the upper half of the name's
	entry uint32 // the entry's number + 1; 0: the slot is free
}

// slotsMin keeps the table's size a power of two with room from the start.
const slotsMin = 8

func newIndex() index {
	return index{seed: maphash.MakeSeed(), slots: make([]slot, slotsMin)}
}

// name returns entry i.
func (x *index) name(i uint32) []byte {
	n := &x.nodes[i]
	end := n.name + uint32(n.octets)
	return x.names[n.name:end:end]
}

func (x *index) hash(name []byte) uint64 { return maphash.Bytes(x.seed, name) }

// find returns the entry of a lower-cased name.
func (x *index) find(name []byte) (i uint32, ok bool) {
	mask := uint64(len(x.slots) - 1)
	hash := x.hash(name)
	for h := hash; ; h++ {
		s := x.slots[h&mask]
		if s.entry == 0 {
			return 0, false
		}
		if s.hash == uint32(hash>>32) && bytes.Equal(x.name(s.entry-1), name) {
			return s.entry - 1, true
		}
	}
}

// likely is find by a hash alone, without a look at the name.
func (x *index) likely(hash uint64) (i uint32, ok bool) {
	mask := uint64(len(x.slots) - 1)
	for h := hash; ; h++ {
		s := x.slots[h&mask]
		if s.entry == 0 {
			return 0, false
		}
		if s.hash == uint32(hash>>32) {
			return s.entry - 1, true
		}
	}
}

// add returns the entry of a lower-cased name, made if there is none.
func (x *index) add(name []byte) uint32 {
	if i, ok := x.find(name); ok {
		return i
	}
	i := x.hide(name)
	if 2*len(x.nodes) <= len(x.slots) {
		x.place(i)
		return i
	}
	x.slots = make([]slot, 2*len(x.slots))
	for j := range x.nodes {
		x.place(uint32(j))
	}
	return i
}

// hide makes an entry that is not found by its name. Nothing may be added behind it.
func (x *index) hide(name []byte) uint32 {
	i := uint32(len(x.nodes))
	x.nodes = append(x.nodes, node{name: uint32(len(x.names)), octets: uint8(len(name))})
	x.names = append(x.names, name...)
	return i
}

// place enters i into a free slot.
func (x *index) place(i uint32) {
	mask := uint64(len(x.slots) - 1)
	hash := x.hash(x.name(i))
	h := hash
	for x.slots[h&mask].entry != 0 {
		h++
	}
	x.slots[h&mask] = slot{hash: uint32(hash >> 32), entry: i + 1}
}
