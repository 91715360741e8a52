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
// records to the zone anew, once, at a cost that grows with the logarithm of what stands
// beside them.
type SkyTree struct {
	apex wire.Name
	root atomic.Pointer[skyNode] // nil: nothing is known yet
	zone atomic.Pointer[Sky]     // that answers from it

	state map[string]*skyRecord // pages of a complete state that is not there yet
	live  bool                  // the state is the registry's, and no snapshot's
	lost  map[string]*skyRecord // by path, those that are in the tree still
	going []*skyRecord          // of lost, and some that are no more, in the order in which they were lost
}

// NewSkyTree returns the tree of a zone.
func NewSkyTree(apex wire.Name) *SkyTree { return &SkyTree{apex: apex} }

// skyNode is a name: a record, if there is one at it, and names below.
type skyNode struct {
	label  string
	below  *skyDir
	record *skyRecord
	all    []*skyRecord // at and below it, skyMax at most, without those lost
	set    *skySet      // those of all that are answered together
	lost   []*skyRecord // at and below it, skyMax at most
	held   *skySet      // those of all and lost; nil: none is lost
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
	leased  bool
	lostAt  int64 // ns since 1970; 0: it is registered
}

// Apply takes in a batch of notes.
func (t *SkyTree) Apply(b registry.Batch) {
	if b.Reset {
		t.state = map[string]*skyRecord{}
	}
	if t.state != nil {
		for _, n := range b.Notes {
			if r := t.record(&n); r != nil {
				t.state[r.Path] = r
			}
		}
		if !b.More {
			t.keepLost()
			t.root.Store(t.build())
			t.state, t.live = nil, !b.Snapshot
		}
		return
	}
	root := t.root.Load()
	if root == nil {
		return
	}
	if changes := t.changes(&b); len(changes) > 0 {
		t.root.Store(t.with(root, changes))
	}
}

// changes are those of a batch, one a path, and the end of what was lost long ago.
func (t *SkyTree) changes(b *registry.Batch) []skyChange {
	by := make(map[string]*skyRecord, len(b.Notes)+len(b.Deleted))
	t.letGo(by)
	for _, k := range b.Deleted {
		delete(t.lost, k.Service)
		by[k.Service] = nil
	}
	for _, k := range b.Lost {
		by[k.Service] = t.lose(k.Service)
	}
	for i := range b.Notes {
		if r := t.record(&b.Notes[i]); r != nil {
			delete(t.lost, r.Path)
			by[r.Path] = r
		}
	}
	out := make([]skyChange, 0, len(by))
	for path, r := range by {
		out = append(out, skyChange{strings.Split(path, "/"), r})
	}
	return out
}

// Notes are all records, each with its message as the value: for the snapshot file.
func (t *SkyTree) Notes() ([]registry.Note, error) {
	root := t.root.Load()
	if root == nil {
		return nil, nil
	}
	var notes []registry.Note
	var failed error
	var walk func(n *skyNode) bool
	walk = func(n *skyNode) bool {
		if n.record != nil && n.record.lostAt == 0 {
			value, err := n.record.Encode()
			if failed = err; err != nil {
				return false
			}
			notes = append(notes, registry.Note{Key: registry.Key{Kind: registry.KindService, Service: n.record.Path}, Value: value})
		}
		return n.below.each(walk)
	}
	walk(root)
	return notes, failed
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
func (t *SkyTree) record(n *registry.Note) *skyRecord {
	note, ok := n.Value.(*skydns.Record)
	if !ok {
		return nil
	}
	labels := strings.Split(note.Path, "/")
	slices.Reverse(labels)
	name := wireLabels(labels)
	if len(name)+t.apex.Len() > 255 {
		return nil
	}
	r := &skyRecord{Record: note, tree: t, depth: len(labels), text: skyText(note.Text), leased: n.Leased}
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
	if len(t.state)+len(t.lost) == 0 {
		return &skyNode{set: newSkySet(t, nil)}
	}
	changes := make([]skyChange, 0, len(t.state)+len(t.lost))
	for _, r := range t.lost {
		changes = append(changes, skyChange{strings.Split(r.Path, "/"), r})
	}
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
	out := &skyNode{label: n.label, below: n.below, record: n.record}
	if len(changes[0].path) == depth {
		out.record, changes = changes[0].record, changes[1:]
	}
	if len(changes) > 0 {
		out.below = n.below.merge(t, depth, changes)
	}
	if out.record == nil && out.below == nil && depth > 0 {
		return nil
	}
	out.gather(t)
	return out
}

// gather finds what the node is answered with.
func (n *skyNode) gather(t *SkyTree) {
	if r := n.record; r != nil && r.lostAt == 0 {
		n.all = append(n.all, r)
	} else if r != nil {
		n.lost = append(n.lost, r)
	}
	n.all, n.lost = n.below.gather(n.all, n.lost)
	n.set = newSkySet(t, n.all)
	if len(n.lost) > 0 {
		n.held = newSkySet(t, appendSome(slices.Clone(n.all), n.lost))
	}
}

// appendSome appends records up to skyMax.
func appendSome(dst, list []*skyRecord) []*skyRecord {
	return append(dst, list[:min(len(list), skyMax-len(dst))]...)
}

// find is the node of a name's first below labels; nil: there is none.
func (n *skyNode) find(name *wire.Name, below int) *skyNode {
	for at := below - 1; at >= 0 && n != nil; at-- {
		n = n.child(name.Label(at))
	}
	return n
}

// child is the node of a label below.
func (n *skyNode) child(label []byte) *skyNode { return n.below.find(label) }

// skyVisits is how many names are looked at for a pattern: *.*.nosuch stands for none, and
// would be looked for in all the zone.
const skyVisits = 4096

// matching appends the records at and below the names that a pattern stands for: its
// labels * and any are for every label. It takes the names that it looks at off visits,
// and looks at no more than that. With held those lost are among them.
func (n *skyNode) matching(dst []*skyRecord, name *wire.Name, at int, held bool, visits *int) []*skyRecord {
	if *visits--; *visits < 0 {
		return dst
	}
	switch {
	case len(dst) >= skyMax:
		return dst
	case at < 0:
		dst = appendSome(dst, n.all)
		if held {
			dst = appendSome(dst, n.lost)
		}
		return dst
	case isAny(name.Label(at)):
		n.below.each(func(c *skyNode) bool {
			dst = c.matching(dst, name, at-1, held, visits)
			return *visits >= 0
		})
		return dst
	}
	if c := n.child(name.Label(at)); c != nil {
		return c.matching(dst, name, at-1, held, visits)
	}
	return dst
}

// isAny reports whether a label of a question is for every one.
func isAny(label []byte) bool { return string(label) == "*" || string(label) == "any" }

// skySet is records that are answered together. Immutable.
type skySet struct {
	tree    *SkyTree
	records []*skyRecord
	has     [len(skyKinds)]bool // some record is of the kind
	alias   *skyRecord          // the first whose host is a name, where there are no addresses; nil: none
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
	addressed := false
	for _, r := range s.records {
		addressed = addressed || r.Addr.IsValid()
		for k := range skyKinds {
			s.has[k] = s.has[k] || skyKinds[k].of(r)
		}
		if s.alias == nil && r.host != nil {
			s.alias = r
		}
	}
	if addressed { // an alias has no other data (RFC 1034 section 3.6.2)
		s.alias = nil
	}
	return s
}
