package service

import (
	"slices"
	"strings"
)

// skyDirMax is how many entries a skyDir has, at most.
const skyDirMax = 64

// skyDir is the names right below one, in the order of their labels: a tree whose leaves
// all are equally far down, so that a change of one name copies a few short lists however
// many there are beside it. Immutable. Nil has no names.
type skyDir struct {
	first string     // label of the first name
	names []*skyNode // of a leaf
	parts []*skyDir  // of the others
	all   bool       // some name has records that are answered, at or below it
	lost  bool       // the same of lost ones
}

// newLeaf is a leaf of names; newParts what stands over parts.
func newLeaf(names []*skyNode) *skyDir {
	d := &skyDir{first: names[0].label, names: names}
	for _, n := range names {
		d.all, d.lost = d.all || len(n.all) > 0, d.lost || len(n.lost) > 0
	}
	return d
}

func newParts(parts []*skyDir) *skyDir {
	d := &skyDir{first: parts[0].first, parts: parts}
	for _, p := range parts {
		d.all, d.lost = d.all || p.all, d.lost || p.lost
	}
	return d
}

// merge returns what becomes of the names below a node at a depth by changes below it,
// sorted by path; nil: none is left.
func (d *skyDir) merge(t *SkyTree, depth int, changes []skyChange) *skyDir {
	if d == nil {
		d = &skyDir{}
	}
	parts := d.mergeParts(t, depth, changes)
	for len(parts) > 1 {
		parts = group(parts, newParts)
	}
	if len(parts) == 0 {
		return nil
	}
	d = parts[0]
	for len(d.parts) == 1 {
		d = d.parts[0]
	}
	return d
}

// mergeParts is merge for a part, which becomes none or several of the same height.
func (d *skyDir) mergeParts(t *SkyTree, depth int, changes []skyChange) []*skyDir {
	if len(d.parts) == 0 {
		return group(t.mergeNames(d.names, depth, changes), newLeaf)
	}
	out := make([]*skyDir, 0, len(d.parts)+1)
	for i, p := range d.parts {
		mine := len(changes)
		if i+1 < len(d.parts) {
			next := d.parts[i+1].first
			mine, _ = slices.BinarySearchFunc(changes, next, func(c skyChange, next string) int { return strings.Compare(c.path[depth], next) })
		}
		if mine == 0 {
			out = join(out, p)
			continue
		}
		for _, p := range p.mergeParts(t, depth, changes[:mine]) {
			out = join(out, p)
		}
		changes = changes[mine:]
	}
	return group(out, newParts)
}

// group makes parts of entries, none too long, and all about as long.
func group[E any](entries []E, part func([]E) *skyDir) []*skyDir {
	if len(entries) == 0 {
		return nil
	}
	parts := (len(entries) + skyDirMax - 1) / skyDirMax
	out := make([]*skyDir, 0, parts)
	for ; parts > 0; parts-- {
		size := (len(entries) + parts - 1) / parts
		out = append(out, part(slices.Clip(entries[:size])))
		entries = entries[size:]
	}
	return out
}

// join appends a part, to the last one where both are short: else what loses names one by
// one would keep parts of one name each.
func join(to []*skyDir, p *skyDir) []*skyDir {
	if len(to) == 0 {
		return append(to, p)
	}
	last := to[len(to)-1]
	switch {
	case len(last.names)+len(p.names)+len(last.parts)+len(p.parts) > skyDirMax/2:
		return append(to, p)
	case len(p.parts) > 0:
		p = newParts(slices.Concat(last.parts, p.parts))
	default:
		p = newLeaf(slices.Concat(last.names, p.names))
	}
	to[len(to)-1] = p
	return to
}

// mergeNames is merge for the names of a leaf.
func (t *SkyTree) mergeNames(old []*skyNode, depth int, changes []skyChange) []*skyNode {
	out := make([]*skyNode, 0, len(old)+1)
	for len(changes) > 0 {
		label := changes[0].path[depth]
		end := 1
		for end < len(changes) && changes[end].path[depth] == label {
			end++
		}
		at, found := slices.BinarySearchFunc(old, label, func(c *skyNode, label string) int { return strings.Compare(c.label, label) })
		out, old = append(out, old[:at]...), old[at:]
		child := &skyNode{label: label}
		if found {
			child, old = old[0], old[1:]
		}
		if child = t.merge(child, depth+1, changes[:end]); child != nil {
			out = append(out, child)
		}
		changes = changes[end:]
	}
	return append(out, old...)
}

// find is the name of a label; nil: there is none.
func (d *skyDir) find(label []byte) *skyNode {
	if d == nil {
		return nil
	}
	for len(d.parts) > 0 {
		low, high := 0, len(d.parts)-1 // the last part whose first label is not behind it
		for low < high {
			middle := int(uint(low+high+1) >> 1)
			if d.parts[middle].first <= string(label) {
				low = middle
			} else {
				high = middle - 1
			}
		}
		d = d.parts[low]
	}
	low, high := 0, len(d.names)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if d.names[middle].label < string(label) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(d.names) && d.names[low].label == string(label) {
		return d.names[low]
	}
	return nil
}

// each yields the names in order; false: it was to yield no more.
func (d *skyDir) each(yield func(*skyNode) bool) bool {
	if d == nil {
		return true
	}
	for _, p := range d.parts {
		if !p.each(yield) {
			return false
		}
	}
	for _, n := range d.names {
		if !yield(n) {
			return false
		}
	}
	return true
}

// gather appends the first records of the names, up to skyMax: those that are answered to
// all, those lost to lost.
func (d *skyDir) gather(all, lost []*skyRecord) (_, _ []*skyRecord) {
	if d == nil || (!d.all || len(all) >= skyMax) && (!d.lost || len(lost) >= skyMax) {
		return all, lost
	}
	for _, p := range d.parts {
		all, lost = p.gather(all, lost)
	}
	for _, n := range d.names {
		all, lost = appendSome(all, n.all), appendSome(lost, n.lost)
	}
	return all, lost
}
