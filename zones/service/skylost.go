package service

import (
	"strings"

	"github.com/musterdns/muster/lb/pool"
)

// A record that is an instance and went with its lease stays in the tree for as long as
// the pool may bring the instance back, since removals are held when half of a zone falls
// at once. Until they are, and after that, it is answered as if it were gone. What is
// deleted goes.

// now is the time of the view, in nanoseconds since 1970; 0: nothing is answered yet.
func (t *SkyTree) now() int64 {
	if z := t.zone.Load(); z != nil {
		return z.view.Clock()
	}
	return 0
}

// lose returns what is to be in the place of the record at a path, whose lease ended; nil:
// nothing, since it was no instance.
func (t *SkyTree) lose(path string) *skyRecord {
	n := t.root.Load()
	for label := range strings.SplitSeq(path, "/") {
		if n = n.child([]byte(label)); n == nil {
			return nil
		}
	}
	if n.record == nil {
		return nil
	}
	return t.loseRecord(n.record)
}

// loseRecord is lose for a record of the tree.
func (t *SkyTree) loseRecord(r *skyRecord) *skyRecord {
	now := t.now()
	if len(r.service) == 0 || now == 0 {
		return nil
	}
	if r.lostAt == 0 {
		lost := *r
		lost.lostAt = now
		r = &lost
		t.going = append(t.going, r)
	}
	if t.lost == nil {
		t.lost = map[string]*skyRecord{}
	}
	t.lost[r.Path] = r
	return r
}

// letGo takes out what was lost and will not come back, the paths into changes.
func (t *SkyTree) letGo(changes map[string]*skyRecord) {
	if len(t.going) == 0 {
		return
	}
	now, z := t.now(), t.zone.Load()
	if state := z.view.Source(z.source); state != nil && state.Held(now) {
		return
	}
	for len(t.going) > 0 && now-t.going[0].lostAt > int64(pool.LostWindow) {
		r := t.going[0]
		t.going[0], t.going = nil, t.going[1:]
		if t.lost[r.Path] == r {
			delete(t.lost, r.Path)
			changes[r.Path] = nil
		}
	}
}

// keepLost finds, before the complete state takes the tree's place, what it lacks of those
// under leases: nobody saw how they went.
func (t *SkyTree) keepLost() {
	for path := range t.state {
		delete(t.lost, path)
	}
	root := t.root.Load()
	if root == nil || !t.live {
		return
	}
	var walk func(n *skyNode) bool
	walk = func(n *skyNode) bool {
		if r := n.record; r != nil && r.leased && t.state[r.Path] == nil {
			t.loseRecord(r)
		}
		return n.below.each(walk)
	}
	walk(root)
}

// standing is the node, if it has a record that may be answered; nil: it has none, or n
// is nil. With held those lost are among them.
func (n *skyNode) standing(held bool) *skyNode {
	if n == nil || len(n.all) == 0 && (!held || n.held == nil) {
		return nil
	}
	return n
}

// answered is the set that the node is answered with.
func (n *skyNode) answered(held bool) *skySet {
	if held && n.held != nil {
		return n.held
	}
	return n.set
}
