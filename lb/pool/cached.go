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
// kept; while the instance is in, it is the present TTL from now on.
//
// Answers for the instance's own name are not meant: they are given for as long
// as it is registered, whatever its state.

// noteCached notes what caches may hold of the groups of prev that next
// replaces.
func (w *writer) noteCached(s *svc, prev, next *Service, now int64) {
	if prev == nil || prev.ancestor {
		return
	}
	b := &w.build
	renumbered := s.regroup || len(prev.instances) != len(s.insts)
	if renumbered {
		b.renumber(s, prev)
	}
	b.noteSet(s, &prev.whole, &next.whole, renumbered, now)
	for i := range prev.filters {
		var after *Set
		if !renumbered && i < len(next.filters) {
			after = &next.filters[i]
		}
		b.noteSet(s, &prev.filters[i], after, renumbered, now)
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

// noteSet is noteCached for one set; nil after: which one replaces it is not
// known.
func (b *builder) noteSet(s *svc, before, after *Set, renumbered bool, now int64) {
	for f, g := range before.groups {
		if g == nil || f > 0 && g == before.groups[f-1] {
			continue
		}
		var h *Group
		if after != nil && !renumbered {
			h = after.groups[f]
		}
		if g != h {
			b.noteGroup(s, g, h, renumbered, now)
		}
	}
}

// noteGroup is noteCached for one group, which h replaces; nil: that is not
// known, and every instance is taken to leave it.
func (b *builder) noteGroup(s *svc, g, h *Group, renumbered bool, now int64) {
	keeps := h != nil && h.ttl >= g.ttl
	if keeps {
		b.stays = slices.Grow(b.stays[:0], len(s.insts))[:len(s.insts)]
		clear(b.stays)
		for t := range h.tiers {
			for n := range h.tiers[t].Size() {
				b.stays[h.tiers[t].At(n)] = true
			}
		}
	}
	until := now + int64(g.ttl)*int64(time.Second)
	for t := range g.tiers {
		for n := range g.tiers[t].Size() {
			i := int(g.tiers[t].At(n))
			if keeps && b.stays[i] {
				continue
			}
			if renumbered {
				if i = int(b.places[i]); i < 0 {
					continue
				}
			}
			s.insts[i].cachedUntil = max(s.insts[i].cachedUntil, until)
		}
	}
}

// cachedFor is how long from now on a cache may hold an answer with instance i,
// if no more is given. Of what was answered before this process began nothing
// is known but that it was by the TTL of now.
func (o *seen) cachedFor(i uint32, began, now int64) time.Duration {
	until := o.insts[i].cachedUntil
	if !o.insts[i].late {
		until = max(until, began+int64(o.settings.ttl)*int64(time.Second))
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
			until = max(until, now+int64(g.ttl)*int64(time.Second))
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
