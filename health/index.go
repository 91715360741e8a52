package health

import (
	"hash/maphash"
	"net/netip"
	"unique"
)

// Key identifies a Target in few octets: what the targets of a service have in
// common is stored once.
type Key struct {
	addr netip.AddrPort
	name string
	spec unique.Handle[Target] // the rest, without Addr and Name
}

// KeyOf is the key of a target.
func KeyOf(t Target) Key {
	k := Key{addr: t.Addr, name: t.Name}
	t.Addr, t.Name = netip.AddrPort{}, ""
	k.spec = unique.Make(t)
	return k
}

// Target is what the key is of.
func (k *Key) Target() Target {
	t := k.spec.Value()
	t.Addr, t.Name = k.addr, k.name
	return t
}

// Index finds what is kept of targets by their keys, which the entries have
// themselves: those are too large to be kept twice. It is not safe for
// concurrent use. Make it with NewIndex.
type Index[T any, P Indexed[T]] struct {
	seed   maphash.Seed
	byHash map[uint64]P // the first of those with the hash
}

// Indexed is an entry of an Index: it has a Key, and room for the next entry of
// its hash, which is the Index's own.
type Indexed[T any] interface {
	*T
	IndexKey() *Key
	IndexNext() **T
}

// NewIndex makes an Index without entries.
func NewIndex[T any, P Indexed[T]]() Index[T, P] {
	return Index[T, P]{maphash.MakeSeed(), map[uint64]P{}}
}

// Find returns the entry of a key; nil: there is none.
func (x *Index[T, P]) Find(k Key) P {
	e := x.byHash[x.hash(&k)]
	for e != nil && *e.IndexKey() != k {
		e = *e.IndexNext()
	}
	return e
}

// Add adds an entry whose key none has.
func (x *Index[T, P]) Add(e P) {
	h := x.hash(e.IndexKey())
	*e.IndexNext() = x.byHash[h]
	x.byHash[h] = e
}

// Remove takes out an entry that is there.
func (x *Index[T, P]) Remove(e P) {
	h := x.hash(e.IndexKey())
	next := *e.IndexNext()
	*e.IndexNext() = nil
	first := x.byHash[h]
	switch {
	case first != e:
		for *first.IndexNext() != e {
			first = *first.IndexNext()
		}
		*first.IndexNext() = next
	case next == nil:
		delete(x.byHash, h)
	default:
		x.byHash[h] = next
	}
}

func (x *Index[T, P]) hash(k *Key) uint64 { return maphash.Comparable(x.seed, *k) }
