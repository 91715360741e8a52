package pool

import (
	"bytes"
	"slices"
	"time"
)

// How long caches may hold an instance is found without the query path: an
// answer with the instance is given by a group that the instance is in, and
// carries that group's TTL or, by what is known of the future, less. So when a
// group is replaced by one without the instance, or with a lower TTL, the old
// TTL from that moment on is the longest that an answer of the old one can be
// kept; while the instance is in, it is the present TTL from now on. Where
// instances are answered with their own TTLs (Source.OwnTTLs) it is those, if they
// are greater.
//
// Answers for the instance's own name that are given for as long as it is
// registered, whatever its state, are not meant.

// noteCached notes what caches may hold of the groups of prev that next
// replaces.
func (w *writer) noteCached(s *svc, prev, next *Service, now int64) {
	if prev == nil || prev.ancestor {
		return
	}
	b := &w.build
	c := &replacement{prev: prev, next: next, renumbered: s.regroup || len(prev.instances) != len(s.insts), now: now}
	if c.renumbered {
		b.renumber(s, prev)
	}
	b.noteSet(s, c, &prev.whole, &next.whole)
	for i := range prev.filters {
		var after *Set
		if !c.renumbered && i < len(next.filters) {
			after = &next.filters[i]
		}
		b.noteSet(s, c, &prev.filters[i], after)
	}
}

// renumber fills b.places with the writer's numbers of prev's instances, -1 for
// one that is gone. Both are sorted by id.
func (b *builder) renumber(s *svc, prev *Service) {
	b.places = b.places[:0]
	at := 0
	for i := range prev.instances {
		id := prev.faces.records.at(i).id()
		for at < len(s.insts) && bytes.Compare(s.insts[at].rec.id(), id) < 0 {
			at++
		}
		if at < len(s.insts) && bytes.Equal(s.insts[at].rec.id(), id) {
			b.places = append(b.places, int32(at))
		} else {
			b.places = append(b.places, -1)
		}
	}
}

// replacement is a form of a service and the one that replaces it.
type replacement struct {
	prev, next *Service
	renumbered bool // their instances have other numbers
	now        int64
}

// noteSet is noteCached for one set; nil after: which one replaces it is not
// known.
func (b *builder) noteSet(s *svc, c *replacement, before, after *Set) {
	for f, g := range before.groups {
		if g == nil || f > 0 && g == before.groups[f-1] {
			continue
		}
		var h *Group
		if after != nil && !c.renumbered {
			h = after.groups[f]
		}
		if g != h {
			b.noteGroup(s, c, g, h)
		}
	}
}

// noteGroup is noteCached for one group, which h replaces; nil: that is not
// known, and every instance is taken to leave it.
func (b *builder) noteGroup(s *svc, c *replacement, g, h *Group) {
	if h != nil {
		b.stays = slices.Grow(b.stays[:0], len(s.insts))[:len(s.insts)]
		clear(b.stays)
		for t := range h.tiers {
			for n := range h.tiers[t].Size() {
				b.stays[h.tiers[t].At(n)] = true
			}
		}
	}
	for t := range g.tiers {
		for n := range g.tiers[t].Size() {
			i := g.tiers[t].At(n)
			ttl := c.prev.sentTTL(g, i)
			if h != nil && b.stays[i] && c.next.sentTTL(h, i) >= ttl {
				continue
			}
			at := int(i)
			if c.renumbered {
				if at = int(b.places[i]); at < 0 {
					continue
				}
			}
			s.insts[at].cachedUntil = max(s.insts[at].cachedUntil, c.now+int64(ttl)*int64(time.Second))
		}
	}
}

// sentTTL is the greatest TTL in seconds that an answer of a group with instance i has.
func (s *Service) sentTTL(g *Group, i uint32) uint32 {
	if s.settings.ownTTLs {
		return max(g.ttl, s.InstanceTTL(i))
	}
	return g.ttl
}

// cachedFor is how long from now on a cache may hold an answer with instance i,
// if no more is given. Of what was answered before this process began nothing
// is known but that it was by the TTL of now.
func (o *seen) cachedFor(i uint32, began, now int64) time.Duration {
	until := o.insts[i].cachedUntil
	if !o.insts[i].late {
		until = max(until, began+int64(o.pub.sentTTL(&o.settings.nobody, i))*int64(time.Second))
	}
	until = max(until, o.pub.whole.cachedUntil(i, now))
	for n := range o.pub.filters {
		until = max(until, o.pub.filters[n].cachedUntil(i, now))
	}
	return time.Duration(max(until-now, 0))
}

// cachedUntil is when an answer of the set with instance i ends in caches that is
// given now; 0: none is.
func (s *Set) cachedUntil(i uint32, now int64) (until int64) {
	for _, g := range s.groups {
		if g != nil && g.has(i) {
			until = max(until, now+int64(s.service.sentTTL(g, i))*int64(time.Second))
		}
	}
	return until
}

// has reports whether instance i may be answered.
func (g *Group) has(i uint32) bool {
	for t := range g.tiers {
		for n := range g.tiers[t].Size() {
			if g.tiers[t].At(n) == i {
				return true
			}
		}
	}
	return false
}
