package health

import "unique"

// interned holds values that many entries have in common, each once and for as
// long as one has it: an entry has its number, a fraction of a pointer's or a
// string's size and nothing to a collector. Zero is T's zero value.
type interned[T comparable] struct {
	numbers map[unique.Handle[T]]uint32
	slots   []slot[T] // by number; the first is that of zero
	free    []uint32
}

type slot[T comparable] struct {
	value unique.Handle[T]
	uses  uint32
}

func newInterned[T comparable]() interned[T] {
	var zero T
	h := unique.Make(zero)
	return interned[T]{map[unique.Handle[T]]uint32{h: 0}, []slot[T]{{value: h}}, nil}
}

// value is that of a number.
func (x *interned[T]) value(n uint32) T { return x.slots[n].value.Value() }

// take adds a use of a value and returns its number.
func (x *interned[T]) take(h unique.Handle[T]) uint32 {
	n, there := x.numbers[h]
	if !there {
		if last := len(x.free) - 1; last >= 0 {
			n, x.free = x.free[last], x.free[:last]
		} else {
			n = uint32(len(x.slots))
			x.slots = append(x.slots, slot[T]{})
		}
		x.slots[n].value = h
		x.numbers[h] = n
	}
	x.share(n)
	return n
}

// share adds a use of a number that is in use.
func (x *interned[T]) share(n uint32) {
	if n != 0 {
		x.slots[n].uses++
	}
}

// drop takes one use back.
func (x *interned[T]) drop(n uint32) {
	if n == 0 {
		return
	}
	s := &x.slots[n]
	if s.uses--; s.uses > 0 {
		return
	}
	delete(x.numbers, s.value)
	*s = slot[T]{}
	x.free = append(x.free, n)
}
