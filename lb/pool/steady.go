package pool

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// What keeps answers steady: damping holds back what falls again and again, a
// freeze stops health from moving answers, and when half of a zone falls at
// once, removals are held for a while, since that is more often a broken
// network, or a broken check, than the end of half of a zone. Once most of them
// are well again, what falls then goes as ever. Deletions and administrators'
// words are never held.

// LostWindow is within what time of its end a lost instance may be brought back.
const LostWindow = health.FallWindow

// kept says why answers do not go by an instance's health. Zero: they do.
type kept uint8

const (
	keptNone   kept = iota
	keptFrozen      // an administrator has frozen the answers
	keptHeld        // it fails, and too many fell at once
	keptLost        // its lease is lost, and too many went at once
	keptDamped      // it passes, and falls too often
)

// unsteady is what is kept of an instance that has fallen, warms up, or is not
// taken by proxies to be worth its weight.
type unsteady struct {
	damping   health.Damping
	fellAt    int64   // the last fall by the verdict, ns since 1970; 0: it is counted no more
	missedAt  int64   // the last fall by the own checks; 0: it is counted no more
	lostAt    int64   // when its lease was found lost, while it is held; 0: it is registered
	slowSince int64   // the slow start's beginning, ns since 1970; 0: it is in none
	passive   float32 // factor on the weight by what proxies saw; 0: none
}

// remember is the instance's unsteady, made when there is something to keep.
func (in *inst) remember() *unsteady {
	if in.unsteady == nil {
		in.unsteady = &unsteady{}
	}
	return in.unsteady
}

// lostAt is when the instance was found lost that is held all the same; 0: it
// is registered.
func (in *inst) lostAt() int64 {
	if in.unsteady == nil {
		return 0
	}
	return in.unsteady.lostAt
}

// slowSince is when the instance's slow start began; 0: it is in none.
func (in *inst) slowSince() int64 {
	if in.unsteady == nil {
		return 0
	}
	return in.unsteady.slowSince
}

// passive is the factor on the weight by what proxies saw; 0: none.
func (in *inst) passive() float32 {
	if in.unsteady == nil {
		return 0
	}
	return in.unsteady.passive
}

// churn watches how much of a source falls at once.
type churn struct {
	falls health.Falls
	// Falls of from to to are held until until, ns since 1970; until 0: none.
	from, to, until int64
	fallen          int                      // of those, how many are not well again, at most
	services        map[*svc]int64           // of falls within the window, and when the last was
	lost            map[lostKey]lostInstance // within the window
	forgetAt        int64                    // when to look for what has left the window
	told            bool                     // that falls are held
}

// lostInstance is one that went with its lease, to be brought back if that
// turns out to be part of a mass failure.
type lostInstance struct {
	inst   packedInstance
	health health.State
	at     int64
}

// lostKey names an instance of a source.
type lostKey struct{ service, instance string }

// holds reports whether a fall at the time at is held at the time now.
func (c *churn) holds(at, now int64) bool {
	return at != 0 && at >= c.from && at <= c.to && now < c.until
}

// fell notes a fall in a service.
func (c *churn) fell(s *svc, now int64) {
	c.falls.Add(now)
	if c.holds(now, now) {
		c.fallen++
	}
	if c.services == nil {
		c.services = map[*svc]int64{}
	}
	c.services[s] = now
}

// rose takes a fall of the time at back.
func (c *churn) rose(at, now int64) {
	c.falls.Undo(at, now)
	if c.holds(at, now) {
		c.fallen--
	}
}

// steady decides what health the answers go by for an instance whose verdict is
// state, and why it is another.
func (w *writer) steady(s *svc, in *inst, state health.State, now int64, wake *int64) (health.State, kept) {
	u := in.unsteady
	switch {
	case in.fresh:
	case in.health == health.Passing && state == health.Failing:
		u = in.remember()
		u.fellAt = now
		s.src.churn.fell(s, now)
		damped, _ := u.damping.Held(now)
		if u.damping.Fall(now); !damped {
			if damped, _ = u.damping.Held(now); damped {
				w.pool.counts.damped.Add(1)
			}
		}
	case u != nil && u.fellAt != 0 && state == health.Passing:
		s.src.churn.rose(u.fellAt, now)
		u.fellAt = 0
	}
	moved, why := state, keptNone
	if u != nil {
		damped, until := u.damping.Held(now)
		switch {
		case s.src.churn.holds(u.lostAt, now):
			moved, why = health.Passing, keptLost
			*wake = earlier(*wake, s.src.churn.until)
		case state == health.Failing && s.src.churn.holds(u.fellAt, now):
			moved, why = health.Passing, keptHeld
			*wake = earlier(*wake, s.src.churn.until)
		case damped && state == health.Passing:
			why = keptDamped
		}
		if damped {
			*wake = earlier(*wake, until)
		}
	}
	switch {
	case !s.frozen || in.fresh:
		return moved, why
	case in.kept == keptDamped:
		return in.moved, keptDamped
	case moved != in.moved || why == keptDamped:
		return in.moved, keptFrozen
	default:
		return moved, why
	}
}

// loseInstance is removeInstance for one whose key is gone. If it went with its
// lease, it may be held.
func (w *writer) loseInstance(s *svc, at int, lost bool, now time.Time) {
	in := &s.insts[at]
	c, ns := &s.src.churn, now.UnixNano()
	switch {
	case c.holds(in.lostAt(), ns):
		in.round = uint8(s.src.round) // lost before, and held still
		return
	case !lost || in.lostAt() != 0 || w.hold == 0:
	case c.holds(ns, ns):
		c.fell(s, ns)
		in.remember().lostAt = ns
		in.round = uint8(s.src.round)
		w.mark(s)
		return
	default:
		c.fell(s, ns)
		if c.lost == nil {
			c.lost = map[lostKey]lostInstance{}
		}
		c.lost[lostKey{s.name, string(in.rec.id())}] = lostInstance{packedInstance{s.name, in.rec, in.revision}, in.health, ns}
	}
	w.removeInstance(s, at, lost, now)
}

// regain notes that an instance is registered, which may have been lost.
func (w *writer) regain(s *svc, in *inst, now time.Time) {
	if at := in.lostAt(); at != 0 {
		s.src.churn.rose(at, now.UnixNano())
		in.unsteady.lostAt = 0
		w.mark(s)
	}
}

// back notes that an instance is registered that was not there: if it was lost
// a moment ago, that fall is none.
func (c *churn) back(service, instance string, now int64) {
	if len(c.lost) == 0 {
		return
	}
	k := lostKey{service, instance}
	if l, there := c.lost[k]; there {
		c.rose(l.at, now)
		delete(c.lost, k)
	}
}

// letGo removes the lost instances of src that are held no longer.
func (w *writer) letGo(src *source, now int64) {
	for _, s := range src.services {
		for i := len(s.insts) - 1; i >= 0; i-- {
			if at := s.insts[i].lostAt(); at != 0 && !src.churn.holds(at, now) {
				w.removeInstance(s, i, true, time.Unix(0, now))
			}
		}
	}
}

// restrain holds removals when too much has fallen at once, and tells when that
// begins and ends; true: services are to be rebuilt for it.
func (w *writer) restrain(now time.Time) (again bool) {
	ns := now.UnixNano()
	for _, src := range w.sources {
		c := &src.churn
		if c.told && ns >= c.until {
			c.told = false
			w.alarm(now, src, "released", "the instances that fell at once are not held any longer")
			w.letGo(src, ns)
			again = true
		}
		// A held one is among src.instances still, one that was removed is not.
		of := src.instances + len(c.lost)
		if c.holds(ns, ns) && !health.Mass(c.fallen, of) {
			c.to = ns // what fell is mostly well again: what falls now is no part of that
		}
		if len(c.services) == 0 && len(c.lost) == 0 {
			continue
		}
		c.forget(ns)
		if w.hold > 0 && !c.holds(ns, ns) && health.Mass(c.falls.Count(ns), of) {
			src.view.heldUntil.Store(ns + int64(w.hold))
			c.from, c.to, c.until = ns-int64(health.FallWindow), math.MaxInt64, ns+int64(w.hold)
			c.fallen = c.falls.Count(ns)
			if c.told {
				w.letGo(src, ns) // what was held before that
			}
			c.told = true
			w.pool.counts.churnHolds.Add(1)
			w.alarm(now, src, "held", fmt.Sprintf("%d of %d instances fell within %v: removals are held for %v",
				c.falls.Count(ns), of, health.FallWindow, w.hold))
			w.bringBack(src, now)
			again = true
		}
	}
	return again
}

// forget drops what has left the window.
func (c *churn) forget(now int64) {
	if now < c.forgetAt {
		return
	}
	c.forgetAt = now + int64(time.Second)
	old := now - int64(health.FallWindow)
	for k, l := range c.lost {
		if l.at < old {
			delete(c.lost, k)
		}
	}
	for s, at := range c.services {
		if at < old {
			delete(c.services, s)
		}
	}
}

// bringBack registers the lost instances again and has all that fell judged
// anew.
func (w *writer) bringBack(src *source, now time.Time) {
	c := &src.churn
	lost := c.lost
	c.lost = nil
	for k, l := range lost {
		s := w.service(src, k.service)
		if _, there := s.find(string(l.inst.rec.id())); there {
			continue // it has registered anew
		}
		w.putInstance(src, &l.inst, now)
		at, _ := s.find(string(l.inst.rec.id()))
		in := &s.insts[at]
		in.remember().lostAt = l.at
		in.health, in.late = l.health, false
	}
	for s := range c.services {
		w.mark(s)
	}
}

// alarm tells of a source's removals being held or not.
func (w *writer) alarm(now time.Time, src *source, to, reason string) {
	w.event(now, src, Event{Kind: EventAlarm, To: to, Reason: reason})
	level := slog.LevelWarn
	if to == "released" {
		level = slog.LevelInfo
	}
	w.pool.log.LogAttrs(context.Background(), level, "removals", slog.String("zone", src.cfg.Zone), slog.String("now", to), slog.String("reason", reason))
}

// markWords marks what an administrator's word on s may concern.
func (w *writer) markWords(s *svc) {
	w.mark(s)
	if s.name == registry.AllServices {
		now := time.Now()
		w.tellFreeze(s, s.freezeOf(now) != nil, now)
		for _, other := range s.src.services {
			w.mark(other)
		}
	}
}

// freezeOf is the word that freezes a service; nil: none is in force.
func (s *svc) freezeOf(now time.Time) *registry.Admin {
	for _, from := range []*svc{s, s.src.services[registry.AllServices]} {
		if from == nil {
			continue
		}
		if a, there := from.admin[registry.Freeze]; there && inForce(&a, now) {
			return &a
		}
	}
	return nil
}

// judgeFreeze notes whether the service is frozen, and looks again at the end
// of that.
func (w *writer) judgeFreeze(s *svc, now time.Time, wake *int64) {
	a := s.freezeOf(now)
	if a != nil && !a.Until.IsZero() {
		*wake = earlier(*wake, a.Until.UnixNano())
	}
	frozen, all := a != nil, a != nil && a.Service == registry.AllServices
	if frozen != s.frozen && !all && !s.frozenLikeAll { // of all, one is told
		w.tellFreeze(s, frozen, now)
	}
	w.setFrozen(s, frozen)
	s.frozenLikeAll = all
}

func (w *writer) setFrozen(s *svc, frozen bool) {
	switch {
	case frozen && !s.frozen:
		w.pool.counts.frozen.Add(1)
	case !frozen && s.frozen:
		w.pool.counts.frozen.Add(-1)
	}
	s.frozen = frozen
}

// tellFreeze makes an event of the beginning or the end of a freeze.
func (w *writer) tellFreeze(s *svc, frozen bool, now time.Time) {
	from, to := adminName(registry.AdminFreeze), adminName(registry.AdminNone)
	if frozen {
		from, to = to, from
	}
	w.event(now, s.src, Event{Kind: EventAdmin, Service: s.name, From: from, To: to})
}

// appendKept is AppendWhy for an instance of which the answers do not go by its
// health.
func (i *instance) appendKept(dst []byte) []byte {
	if i.kept == keptLost {
		return append(dst, "its lease is lost; kept in the answers, since too many went at once"...)
	}
	dst = append(dst, i.health.String()...)
	switch {
	case i.kept == keptFrozen:
		return append(dst, ", but an administrator has frozen the answers"...)
	case i.kept == keptHeld:
		return append(dst, ", kept in the answers since too many fell at once"...)
	case i.in:
		return append(dst, ", and falls too often: served since nothing else passes"...)
	default:
		return append(dst, ", but held back: it falls too often"...)
	}
}
