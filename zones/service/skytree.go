package service

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/skydns"
)

// skyMax is how many records a name is answered with: of those at and below it the
// first in the order of their paths.
const skyMax = 128

// SkyTree is the records of a zone of source skydns by their paths. One goroutine calls
// Apply; what is published is never written to again, and a batch makes the nodes from its
// records to the zone anew: it costs as much as each of those has children, once.
type SkyTree struct {
	apex wire.Name
	root atomic.Pointer[skyNode] // nil: nothing is known yet
	zone atomic.Pointer[Sky]     // that answers from it

	state map[string]*skyRecord // pages of a complete state that is not there yet
}

// NewSkyTree returns the tree of a zone.
func NewSkyTree(apex wire.Name) *SkyTree { return &SkyTree{apex: apex} }

// skyNode is a name: a record, if there is one at it, and names below.
type skyNode struct {
	label    string
	children []*skyNode // sorted by label
	record   *skyRecord
	all      []*skyRecord // at and below it, skyMax at most
	set      *skySet      // those of all that are answered together
}

// skyRecord is a record as it is answered.
type skyRecord struct {
	*skydns.Record

	tree    *SkyTree
	depth   int
	service []byte // of the instance that it is, as pool.View.Find takes it; empty: of none
	id      []byte // of the instance
	host    []byte // in wire form, if it is a name
	target  []byte // of SRV and MX records
	text    []byte // RDATA of TXT; empty: none
}

// Apply takes in a batch of notes.
func (t *SkyTree) Apply(b registry.Batch) {
	if b.Reset {
		t.state = map[string]*skyRecord{}
	}
	if t.state != nil {
		for _, n := range b.Notes {
			if r := t.record(n.Value); r != nil {
				t.state[r.Path] = r
			}
		}
		if !b.More {
			t.root.Store(t.build())
			t.state = nil
		}
		return
	}
	root := t.root.Load()
	if root == nil || len(b.Notes)+len(b.Deleted) == 0 {
		return
	}
	changes := make([]skyChange, 0, len(b.Notes)+len(b.Deleted))
	for _, k := range b.Deleted {
		changes = append(changes, skyChange{strings.Split(k.Service, "/"), nil})
	}
	for _, n := range b.Notes {
		if r := t.record(n.Value); r != nil {
			changes = append(changes, skyChange{strings.Split(r.Path, "/"), r})
		}
	}
	t.root.Store(t.with(root, changes))
}

// Notes are all records, each with its message as the value: for the snapshot file.
func (t *SkyTree) Notes() ([]registry.Note, error) {
	root := t.root.Load()
	if root == nil {
		return nil, nil
	}
	var notes []registry.Note
	var walk func(n *skyNode) error
	walk = func(n *skyNode) error {
		if n.record != nil {
			value, err := n.record.Encode()
			if err != nil {
				return err
			}
			notes = append(notes, registry.Note{Key: registry.Key{Kind: registry.KindService, Service: n.record.Path}, Value: value})
		}
		for _, c := range n.children {
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	return notes, walk(root)
}

// Restore is Apply for a batch of the snapshot file, whose notes are as Notes makes
// them.
func (t *SkyTree) Restore(b registry.Batch) error {
	notes := make([]registry.Note, len(b.Notes))
	for i, n := range b.Notes {
		value, _ := n.Value.([]byte)
		r, err := skydns.Decode(n.Key.Service, value)
		if err != nil {
			return err
		}
		notes[i] = registry.Note{Key: n.Key, Value: r}
	}
	b.Notes = notes
	t.Apply(b)
	return nil
}

// record is a note as it is answered; nil: it is none of skydns, or its name is too
// long for one.
func (t *SkyTree) record(value any) *skyRecord {
	note, ok := value.(*skydns.Record)
	if !ok {
		return nil
	}
	labels := strings.Split(note.Path, "/")
	slices.Reverse(labels)
	name := wireLabels(labels)
	if len(name)+t.apex.Len() > 255 {
		return nil
	}
	r := &skyRecord{Record: note, tree: t, depth: len(labels), text: skyText(note.Text)}
	if in, ok := note.Instance(); ok {
		r.service, r.id = name[1+int(name[0]):], []byte(in.ID)
	}
	switch {
	case note.Addr.IsValid():
		strip := note.Strip
		if strip >= len(labels) { // CoreDNS keeps the whole then
			strip = 0
		}
		r.target = append(wireLabels(labels[strip:]), t.apex.Wire()...)
	case note.Host != "":
		r.host = append(wireLabels(strings.Split(note.Host, ".")), 0)
		r.target = r.host
	}
	return r
}

func wireLabels(labels []string) []byte {
	var out []byte
	for _, l := range labels {
		out = append(append(out, byte(len(l))), l...)
	}
	return out
}

// skyText is the RDATA of a text, in strings of 255 octets. What external-dns notes of
// itself is no answer to anybody.
func skyText(text string) []byte {
	if text == "" || strings.HasPrefix(strings.TrimPrefix(text, `"`), "heritage=external-dns") {
		return nil
	}
	var out []byte
	for part := range slices.Chunk([]byte(text), stringMax) {
		out = append(append(out, byte(len(part))), part...)
	}
	return out
}

// build makes the nodes of the complete state.
func (t *SkyTree) build() *skyNode {
	if len(t.state) == 0 {
		return &skyNode{set: newSkySet(t, nil)}
	}
	changes := make([]skyChange, 0, len(t.state))
	for _, r := range t.state {
		changes = append(changes, skyChange{strings.Split(r.Path, "/"), r})
	}
	return t.with(&skyNode{}, changes)
}

// skyChange is what is to be at a path; nil: no record.
type skyChange struct {
	path   []string
	record *skyRecord
}

// with returns the tree of a root with changes, of which there is one a path.
func (t *SkyTree) with(root *skyNode, changes []skyChange) *skyNode {
	slices.SortFunc(changes, func(a, b skyChange) int { return slices.Compare(a.path, b.path) })
	return t.merge(root, 0, changes)
}

// merge returns a node at a depth with changes at and below it, sorted by path. It makes
// each node on the way to a change anew, once however many there are, and shares the
// others with n. What is left of no record is nil, but for the root.
func (t *SkyTree) merge(n *skyNode, depth int, changes []skyChange) *skyNode {
	out := &skyNode{label: n.label, children: n.children, record: n.record}
	if len(changes[0].path) == depth {
		out.record, changes = changes[0].record, changes[1:]
	}
	if len(changes) > 0 {
		out.children = t.mergeChildren(n.children, depth, changes)
	}
	if out.record == nil && len(out.children) == 0 && depth > 0 {
		return nil
	}
	out.gather(t)
	return out
}

// mergeChildren is merge for the children of a node, with changes below it.
func (t *SkyTree) mergeChildren(old []*skyNode, depth int, changes []skyChange) []*skyNode {
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

// gather finds what the node is answered with.
func (n *skyNode) gather(t *SkyTree) {
	if n.record != nil {
		n.all = append(n.all, n.record)
	}
	for _, c := range n.children {
		if len(n.all) >= skyMax {
			break
		}
		n.all = append(n.all, c.all[:min(len(c.all), skyMax-len(n.all))]...)
	}
	n.set = newSkySet(t, n.all)
}

// find is the node of a name's first below labels; nil: there is none.
func (n *skyNode) find(name *wire.Name, below int) *skyNode {
	for at := below - 1; at >= 0 && n != nil; at-- {
		n = n.child(name.Label(at))
	}
	return n
}

// child is the node of a label below.
func (n *skyNode) child(label []byte) *skyNode {
	low, high := 0, len(n.children)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if n.children[middle].label < string(label) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(n.children) && n.children[low].label == string(label) {
		return n.children[low]
	}
	return nil
}

// skyVisits is how many names are looked at for a pattern: *.*.nosuch stands for none, and
// would be looked for in all the zone.
const skyVisits = 4096

// matching appends the records at and below the names that a pattern stands for: its
// labels * and any are for every label. It takes the names that it looks at off visits,
// and looks at no more than that.
func (n *skyNode) matching(dst []*skyRecord, name *wire.Name, at int, visits *int) []*skyRecord {
	if *visits--; *visits < 0 {
		return dst
	}
	switch {
	case len(dst) >= skyMax:
		return dst
	case at < 0:
		return append(dst, n.all[:min(len(n.all), skyMax-len(dst))]...)
	case isAny(name.Label(at)):
		for _, c := range n.children {
			if *visits < 0 {
				break
			}
			dst = c.matching(dst, name, at-1, visits)
		}
		return dst
	}
	if c := n.child(name.Label(at)); c != nil {
		return c.matching(dst, name, at-1, visits)
	}
	return dst
}

// isAny reports whether a label of a question is for every one.
func isAny(label []byte) bool { return string(label) == "*" || string(label) == "any" }

// skySet is records that are answered together. Immutable.
type skySet struct {
	tree                     *SkyTree
	records                  []*skyRecord
	four, six, srv, mx, text bool
	alias                    *skyRecord // the first whose host is a name
}

// newSkySet is the set of records: of those with a group, that of the shortest path has
// the answer, unless two that are as short have different ones.
func newSkySet(t *SkyTree, all []*skyRecord) *skySet {
	s := &skySet{tree: t, records: all}
	shortest, group, agreed := 0, "", true
	for _, r := range all {
		switch {
		case shortest == 0 || r.depth < shortest:
			shortest, group, agreed = r.depth, r.Group, true
		case r.depth == shortest && r.Group != group:
			agreed = false
		}
	}
	if agreed && group != "" {
		s.records = slices.DeleteFunc(slices.Clone(all), func(r *skyRecord) bool { return r.Group != "" && r.Group != group })
	}
	for _, r := range s.records {
		s.four = s.four || isFour(r)
		s.six = s.six || isSix(r)
		s.srv = s.srv || isTarget(r)
		s.mx = s.mx || isMail(r)
		s.text = s.text || isText(r)
		if s.alias == nil && r.host != nil {
			s.alias = r
		}
	}
	return s
}
