package pool

import (
	"bytes"
	"slices"
)

// filterList is the filters that a service's instances make, sorted, with the
// numbers of their members. Slices of members are shared with published sets:
// they are replaced, never written.
type filterList struct {
	filters []filter
	omitted int
	stale   bool // to be collected anew
	edits   int  // since the last rebuild
}

// editsMax is the number of changes of membership in one round up to which the
// list is edited. Each edit costs O(members of all filters); collecting anew
// costs a few times that.
const editsMax = 4

// sameFilters reports whether two records choose the same filters.
func sameFilters(a, b record) bool { return bytes.Equal(a.filters(), b.filters()) }

// collect makes the list from nothing. More than FiltersMax filters are left
// out from the end: zones and tags go before ports.
func (l *filterList) collect(insts []inst) {
	index := map[string]int{}
	var key []byte
	all := []filter{}
	for i := range insts {
		insts[i].rec.eachFilter(func(kind FilterKind, name []byte, proto uint8) {
			key = append(append(key[:0], uint8(kind), proto), name...)
			n, ok := index[string(key)]
			if !ok {
				n = len(all)
				index[string(key)] = n
				all = append(all, filter{kind: kind, proto: proto, name: string(name)})
			}
			all[n].members = append(all[n].members, uint32(i))
		})
	}
	*l = filterList{filters: all}
	l.order()
}

// order sorts the filters and leaves out what is too many.
func (l *filterList) order() {
	slices.SortFunc(l.filters, func(a, b filter) int { return a.compare(b.kind, b.proto, []byte(b.name)) })
	if l.omitted = max(len(l.filters)-FiltersMax, 0); l.omitted > 0 {
		l.filters = slices.Clone(l.filters[:FiltersMax])
	}
}

// editable counts an edit, and reports whether it is to be made: otherwise the
// list will be collected anew.
func (l *filterList) editable() bool {
	l.edits++
	l.stale = l.stale || l.omitted > 0 || l.edits > editsMax
	return !l.stale
}

// insert makes room for an instance at a place and adds it.
func (l *filterList) insert(at int, rec record) {
	if !l.editable() {
		return
	}
	for i := range l.filters {
		f := &l.filters[i]
		n, _ := slices.BinarySearch(f.members, uint32(at))
		members := make([]uint32, len(f.members), len(f.members)+1)
		copy(members, f.members)
		for k := n; k < len(members); k++ {
			members[k]++
		}
		f.members = members
	}
	l.add(at, rec)
}

// remove takes the instance at a place out, and closes the gap.
func (l *filterList) remove(at int) {
	if !l.editable() {
		return
	}
	l.drop(at)
	for i := range l.filters {
		f := &l.filters[i]
		n, _ := slices.BinarySearch(f.members, uint32(at))
		if n == len(f.members) {
			continue
		}
		members := slices.Clone(f.members)
		for k := n; k < len(members); k++ {
			members[k]--
		}
		f.members = members
	}
}

// change gives the instance at a place another record.
func (l *filterList) change(at int, rec record) {
	if l.editable() {
		l.drop(at)
		l.add(at, rec)
	}
}

// add puts an instance into the filters of its record.
func (l *filterList) add(at int, rec record) {
	known := len(l.filters)
	rec.eachFilter(func(kind FilterKind, name []byte, proto uint8) {
		i, there := slices.BinarySearchFunc(l.filters[:known], name, func(f filter, name []byte) int {
			return f.compare(kind, proto, name)
		})
		if !there {
			l.filters = append(l.filters, filter{kind: kind, proto: proto, name: string(name), members: []uint32{uint32(at)}})
			return
		}
		f := &l.filters[i]
		n, _ := slices.BinarySearch(f.members, uint32(at))
		f.members = slices.Insert(slices.Clip(f.members), n, uint32(at))
	})
	if len(l.filters) > known {
		l.order()
	}
}

// drop takes an instance out of all filters; those left empty go.
func (l *filterList) drop(at int) {
	for i := range l.filters {
		f := &l.filters[i]
		if n, there := slices.BinarySearch(f.members, uint32(at)); there {
			members := make([]uint32, 0, len(f.members))
			f.members = append(append(members, f.members[:n]...), f.members[n+1:]...)
		}
	}
	l.filters = slices.DeleteFunc(l.filters, func(f filter) bool { return len(f.members) == 0 })
}
