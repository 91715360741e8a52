package pool

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// slowSteps is the number of steps in which a slow start raises a weight, and
// slowStepMin the least time between two: each makes a new picker.
const (
	slowSteps   = 16
	slowStepMin = time.Second
)

// rebuild makes the form of s to be published; nil: the name is to go. It
// reports false when nothing that is published has changed.
func (w *writer) rebuild(s *svc, now time.Time) (_ *Service, changed bool) {
	hidden := s.hidden
	if s.hidden = s.conflict(); s.hidden != hidden {
		s.retune = true
		w.tellHidden(s, now)
	}
	if !s.exists() || s.hidden != "" {
		return w.rebuildAbsent(s)
	}
	w.stepLoads(s, now)
	next := &Service{settings: s.settings, own: s.own, admin: s.admin}
	if s.settings.kind == policyHash && s.settings.hashOn != HashName {
		if s.crowd == nil {
			s.crowd = new(Crowd)
		}
		next.crowd = s.crowd
	}
	w.setKey(s, next)
	prev := s.pub
	if prev != nil && prev.ancestor {
		prev = nil
	}
	old := cmp.Or(prev, &Service{})
	differ := spanOf(s.insts, &old.faces)
	next.faces = newFaces(s.name, s.insts, &old.faces, differ)
	touched := w.judge(s, next, prev, differ, now)
	whole := s.regroup || s.retune || prev == nil
	if !whole && !touched.any {
		return nil, false
	}
	touched.choice = touched.choice || whole || len(s.loads) > 0
	if touched.choice || touched.states {
		next.instances = slices.Clone(next.instances)
	} else {
		next.instances = old.instances
	}
	w.pool.counts.rebuilds.Add(1)
	if touched.content || whole {
		s.src.content = true
	}
	if s.filters.stale {
		s.filters.collect(s.insts)
		w.pool.counts.filtersOmitted.Add(uint64(s.filters.omitted))
	}
	s.filters.edits = 0
	next.omitted = s.filters.omitted
	next.distinct = w.build.distinct(&next.faces, &old.faces, differ, old.distinct)
	if whole {
		prev = nil // what a set holds may have changed in every way
	}
	w.build.sets(s, next, prev, &touched, w.seed)
	next.near = nearOf(s, next, w.localities)
	next.located = next.near != nil
	w.noteCached(s, s.pub, next, now.UnixNano())
	s.regroup, s.retune = false, false
	s.fit()
	w.tellServing(s, next, now)
	if w.pool.cfg.Encode != nil {
		next.records = w.pool.cfg.Encode(next)
	}
	return next, true
}

// setKey fills the key of a form of s, from the last one where there is one.
func (w *writer) setKey(s *svc, next *Service) {
	next.origin = s.src.view
	if s.pub != nil {
		next.hash, next.name, next.relative = s.pub.hash, s.pub.name, s.pub.relative
		return
	}
	name := appendWire(nil, s.name)
	next.name, next.relative = string(name)+next.origin.apex, uint8(len(name))
	next.hash = hashKey(w.pool.view.seed, uint16(next.origin.id), name)
}

// rebuildAbsent is rebuild for a name that is not registered, or not to be
// seen: it stays as an ancestor while there are names below it.
func (w *writer) rebuildAbsent(s *svc) (*Service, bool) {
	s.regroup, s.retune = true, false
	s.filters.edits = 0
	w.timers.remove(s)
	w.setMode(s, ModeUnset)
	w.setFrozen(s, false)
	if s.pub != nil && !s.pub.ancestor {
		s.src.content = true
	}
	if s.children == 0 {
		if s.pub == nil {
			w.forget(s)
		}
		return nil, s.pub != nil
	}
	if s.pub != nil && s.pub.ancestor {
		return nil, false
	}
	next := &Service{ancestor: true, settings: s.settings}
	w.setKey(s, next)
	return next, true
}

// settle counts the name in its parent's children while it exists, and makes
// the parent when it is new.
func (w *writer) settle(s *svc) {
	exists := s.exists() || s.children > 0
	if exists == s.linked {
		return
	}
	s.linked = exists
	_, rest := parentOf(s.name)
	if rest == "" {
		return
	}
	parent := w.service(s.src, rest)
	if exists {
		parent.children++
	} else {
		parent.children--
	}
	w.mark(parent)
	w.settle(parent)
}

// conflict says why the name cannot be answered; empty: it can.
func (s *svc) conflict() string {
	if !s.exists() {
		return ""
	}
	if slices.Contains(s.src.cfg.Reserved, s.name) {
		return "the zone needs the name " + s.name + " for itself"
	}
	first, rest := parentOf(s.name)
	if parent := s.src.services[rest]; rest != "" && parent != nil {
		if _, there := parent.find(first); there {
			return "service " + rest + " has an instance " + first + ", which has the same name"
		}
	}
	return ""
}

func (w *writer) tellHidden(s *svc, now time.Time) {
	e := Event{Kind: EventProblem, Service: s.name, Reason: s.hidden}
	if s.hidden == "" {
		e.To = "mended"
	} else {
		w.pool.counts.problems.Add(1)
	}
	w.event(now, s.src, e)
}

// touched is what judge found to differ from the last published form.
type touched struct {
	any     bool
	content bool     // what the zone contains
	choice  bool     // what sets are chosen by
	states  bool     // what is published of instances beside their records
	list    []uint32 // instances that differ; nil when they are all to be taken anew
}

// touchedMax is the number of changed instances up to which sets are compared
// with them one by one.
const touchedMax = 16

// judge decides the state and the weight of every instance, tells of changes,
// and sets the time at which to look again.
func (w *writer) judge(s *svc, next, prev *Service, differ span, now time.Time) touched {
	ns := now.UnixNano()
	if cap(w.judged) < len(s.insts) {
		w.judged = make([]instance, len(s.insts)+len(s.insts)/4)
	}
	next.instances = w.judged[:len(s.insts)]
	clear(next.instances)
	wake := s.stepAt
	slow := 0
	words := s.words(now)
	w.judgeFreeze(s, now, &wake)
	for i := range s.insts {
		in, out := &s.insts[i], &next.instances[i]
		w.judgeOne(s, in, out, words.next(i), now, &wake)
		if in.slowSince() != 0 {
			slow++
		}
	}
	// With more than half of the pool warming up, the rest could not take the
	// load meanwhile.
	warming := slow > 0 && slow*2 <= len(s.insts)
	var t touched
	for i := range s.insts {
		in, out := &s.insts[i], &next.instances[i]
		factor := 1.0
		if since := in.slowSince(); warming && since != 0 {
			factor = lb.SlowStart(time.Duration(ns-since), s.settings.slow, 1)
			out.slow = true
		}
		if s.settings.kind == policyLeastLoaded {
			if l := s.loads[string(in.rec.id())]; l != nil {
				factor *= l.factor
			}
		}
		if passive := in.passive(); passive != 0 {
			factor *= float64(passive)
			out.lowered = passive < 1
		}
		next.bent = next.bent || factor != 1
		out.class = classOf(out)
		registered := next.faces.list[i].weight
		out.weight = uint32(registered) * lb.WeightScale
		if factor != 1 {
			out.weight = lb.EffectiveWeight(registered, factor)
		}
		if prev == nil || s.regroup {
			continue
		}
		out.in = prev.instances[i].in
		if *out != prev.instances[i] || i >= differ.low && i < differ.newHigh {
			t.compare(i, prev, next)
		}
	}
	if slow > 0 {
		wake = earlier(wake, ns+int64(max(s.settings.slow/slowSteps, slowStepMin)))
	}
	w.timers.set(s, wake)
	return t
}

// compare notes how instance i differs from its last published form.
func (t *touched) compare(i int, prev, next *Service) {
	a, b := &prev.instances[i], &next.instances[i]
	t.states = t.states || *a != *b
	sameRecord := same(prev.faces.records.at(i), next.faces.records.at(i))
	content := !sameRecord || a.weight != b.weight || a.health != b.health || a.admin != b.admin
	if !content && a.deadline == b.deadline && a.moved == b.moved && a.kept == b.kept {
		return
	}
	t.any = true
	t.content = t.content || content
	t.choice = t.choice || a.class != b.class || a.weight != b.weight || (a.deadline == 0) != (b.deadline == 0) ||
		!sameRecord && !prev.faces.list[i].chosenLike(&next.faces.list[i])
	t.list = append(t.list, uint32(i))
}

// judgeOne decides the state of one instance.
func (w *writer) judgeOne(s *svc, in *inst, out *instance, word *registry.Admin, now time.Time, wake *int64) {
	ns := now.UnixNano()
	state, deadline := w.findOut(s, in, ns)
	out.health, out.deadline = state, deadline
	if word != nil {
		out.admin = word.State
		if !word.Until.IsZero() {
			until := word.Until.UnixNano()
			*wake = earlier(*wake, until)
			out.deadline = earlier(out.deadline, until)
		}
	}
	in.moved, in.kept = w.steady(s, in, state, ns, wake)
	out.moved, out.kept = in.moved, in.kept
	began := in.fresh && in.late
	if state != in.health && !in.fresh {
		w.pool.counts.healthChanges.Add(1)
		began = in.health == health.Failing && state == health.Passing
		w.event(now, s.src, Event{
			Kind: EventHealth, Service: s.name, Instance: string(in.rec.id()),
			From: in.health.String(), To: state.String(), Reason: w.output(s, in, state),
		})
	}
	switch {
	case began && s.settings.slow != 0 && state != health.Failing:
		in.remember().slowSince = ns
	case in.slowSince() != 0 && (state == health.Failing || ns-in.slowSince() >= int64(s.settings.slow)):
		in.unsteady.slowSince = 0
	}
	if out.admin != in.admin {
		w.event(now, s.src, Event{
			Kind: EventAdmin, Service: s.name, Instance: string(in.rec.id()), From: adminName(in.admin), To: adminName(out.admin),
		})
	}
	in.health, in.admin, in.fresh = state, out.admin, false
}

// output is what the check said that decided a state.
func (w *writer) output(s *svc, in *inst, state health.State) string {
	for id := range in.targets() {
		if w.targets.at(id).state == state {
			if st, ok := w.targets.checker.Status(w.targets.checker.Target(id)); ok {
				return st.Output
			}
		}
	}
	return s.reason(in, state)
}

// words yields the administrator's word that is in force for each instance in
// turn: that on the instance itself before that on all.
type words struct {
	all  *registry.Admin
	list []wordAt // by place
}

type wordAt struct {
	at   int
	word *registry.Admin
}

func (s *svc) words(now time.Time) words {
	var w words
	for id, a := range s.admin {
		if !inForce(&a, now) {
			continue
		}
		if id == "*" {
			w.all = &a
		} else if at, there := s.find(id); there {
			w.list = append(w.list, wordAt{at, &a})
		}
	}
	slices.SortFunc(w.list, func(a, b wordAt) int { return a.at - b.at })
	return w
}

// next returns the word on instance i; nil: none. It is called for one instance
// after the other.
func (w *words) next(i int) *registry.Admin {
	if len(w.list) > 0 && w.list[0].at == i {
		word := w.list[0].word
		w.list = w.list[1:]
		return word
	}
	return w.all
}

// wordOf is the word on one instance.
func wordOf(words map[string]registry.Admin, id []byte, now time.Time) (registry.Admin, bool) {
	if a, ok := words[string(id)]; ok && inForce(&a, now) {
		return a, true
	}
	a, ok := words["*"]
	return a, ok && inForce(&a, now)
}

func inForce(a *registry.Admin, now time.Time) bool {
	return a.State != registry.AdminNone && (a.Until.IsZero() || a.Until.After(now))
}

// earlier is the earlier of two times of which 0 is never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// adminName is what events call an administrator's word, none among them.
func adminName(s registry.AdminState) string { return cmp.Or(s.String(), "none") }

// tellServing makes events of instances that came in or went out, and of a
// service whose answers now come about in another way.
func (w *writer) tellServing(s *svc, next *Service, now time.Time) {
	loud := s.src.view.asOf.Load() != 0 // the first state is no news
	for i := range s.insts {
		in := &s.insts[i]
		if is := next.instances[i].in; is != in.in {
			from, to := "in", "out"
			if is {
				from, to = to, from
			}
			in.in = is
			if out := &next.instances[i]; !is && out.moved == health.Failing && !ordered(out.admin) {
				w.leaves(s, in, now)
			}
			if loud {
				w.event(now, s.src, Event{
					Kind: EventServing, Service: s.name, Instance: string(in.rec.id()), From: from, To: to,
					Reason: next.Why(uint32(i)),
				})
			}
		}
	}
	mode := next.Mode()
	if mode == s.mode {
		return
	}
	from := s.mode
	w.setMode(s, mode)
	if mode == ModeFailOpen {
		w.pool.counts.failOpens.Add(1)
	}
	if !loud || from == ModeUnset {
		return
	}
	w.event(now, s.src, Event{Kind: EventService, Service: s.name, From: from.String(), To: mode.String()})
	level := slog.LevelInfo
	if mode == ModeFailOpen || mode == ModeClosed {
		level = slog.LevelWarn
	}
	w.pool.log.LogAttrs(context.Background(), level, "service answers in another way",
		slog.String("zone", s.src.cfg.Zone), slog.String("service", s.name),
		slog.String("from", from.String()), slog.String("to", mode.String()))
}

// setMode notes how a service is answered, for telling changes and counting.
func (w *writer) setMode(s *svc, mode Mode) {
	modes := &w.pool.counts.modes
	modes[s.mode].Add(-1)
	modes[mode].Add(1)
	s.mode = mode
}
