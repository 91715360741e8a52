package pool

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// Several servers of one registry share the checking: each instance is checked
// by a few of them (health.Share), which tell the others what they find, and
// its verdict is health.Quorum of what these say. A server that has nobody to
// share with, or whose source is stale, goes on by its own checks of
// everything, from the verdict that it had last.

// sharing is what the writer knows of the servers that check.
type sharing struct {
	self     string
	share    *health.Share // nil: nobody is there to share with
	me       int           // this server's place in share; -1: it is none of them
	member   bool          // this server is a member: what it finds can be told
	suspects []bool        // by place
	changed  bool          // since the last reshare

	guard   health.Guard
	suspect bool                    // this server doubts its own checks
	found   [health.Failing + 1]int // instances by what the own checks say
	places  []int                   // scratch
	votes   []health.Vote           // scratch
}

// report is what is kept of a registry.Report.
type report struct {
	checker     string
	reason      string
	incarnation int64
	round       uint32
	state       health.State
}

// SetPeers says which servers of the registry live, and by which name this one
// is among them, once it is. Until it is called, and while nobody else is
// there, this server's own checks decide. A change costs O(all instances).
func (p *Pool) SetPeers(ctx context.Context, self string, members []registry.Member) error {
	list := slices.Clone(members)
	slices.SortFunc(list, func(a, b registry.Member) int { return cmp.Compare(a.Name, b.Name) })
	list = slices.CompactFunc(list, func(a, b registry.Member) bool { return a.Name == b.Name })
	return p.ask(ctx, func() {
		p.w.setPeers(self, list)
		p.w.reshare(time.Now())
		p.w.flush(time.Now())
	})
}

// setPeers notes who checks.
func (w *writer) setPeers(self string, members []registry.Member) {
	sh := &w.sharing
	names, suspects := make([]string, 0, len(members)), make([]bool, 0, len(members))
	for _, m := range members {
		names, suspects = append(names, m.Name), append(suspects, m.Suspect)
	}
	sh.member = slices.Contains(names, self)
	others := len(names)
	if sh.member {
		others--
	}
	var next *health.Share
	if others > 0 {
		next = health.NewShare(names)
	}
	if next != nil && sh.share != nil && sh.self == self && sh.share.Same(next) && slices.Equal(sh.suspects, suspects) {
		return
	}
	if next == nil && sh.share == nil && sh.self == self {
		return
	}
	level := slog.LevelInfo
	if next == nil && sh.share == nil {
		level = slog.LevelDebug // alone, as before
	}
	sh.self, sh.share, sh.suspects, sh.changed = self, next, suspects, true
	sh.me = slices.Index(names[:min(len(names), health.SharersMax)], self)
	w.pool.log.LogAttrs(context.Background(), level, "servers that check", slog.Int("servers", len(names)), slog.Bool("member", sh.member))
}

// settleTime is how long a server that was cut off from the registry goes on
// alone after that: the reports that are there are of before, and others that
// were cut off tell what they have found meanwhile as soon as they can.
const settleTime = 5 * time.Second

// reshare gives every instance to those who are to check it, where the servers
// or a source's freshness have changed.
func (w *writer) reshare(now time.Time) {
	sh := &w.sharing
	for _, src := range w.sources {
		ns := now.UnixNano()
		stale := src.snapshot || ns-src.asOf > src.view.staleAfter.Load()
		if src.away && !stale {
			src.away, src.settleAt = false, ns+int64(settleTime)
			for _, s := range src.services {
				w.mark(s) // to be told of
			}
		}
		alone := sh.share == nil || stale || ns < src.settleAt
		if alone == src.alone && (alone || !sh.changed) {
			continue
		}
		begins := alone && !src.alone
		src.alone, src.away = alone, src.away || begins && stale
		for _, s := range src.services {
			w.reshareService(s, begins)
		}
		w.pool.log.LogAttrs(context.Background(), slog.LevelInfo, "checking", slog.String("zone", src.cfg.Zone),
			slog.Bool("shared", !alone), slog.Bool("stale", stale))
	}
	sh.changed = false
}

// reshareService is reshare for one service; begins says that from now on the
// own checks are the only ones.
func (w *writer) reshareService(s *svc, begins bool) {
	for i := range s.insts {
		in := &s.insts[i]
		if !in.watched {
			continue
		}
		if w.isMine(s, in) != in.mine {
			w.setTargets(s, in, in.health)
		}
		// Where the own checks were outvoted, the verdict stays until they find
		// something new.
		in.stuck = false
		if begins {
			in.stuckAt, _ = w.targets.checked(in)
			in.stuck = in.stuckAt != in.health
		}
		w.mark(s)
	}
}

// isMine reports whether this server checks an instance. Heartbeats come to any
// server, so every one waits for them.
func (w *writer) isMine(s *svc, in *inst) bool {
	return s.src.alone || in.beats || w.isAssigned(s, in)
}

// isAssigned reports whether this server is one of those that are to check an
// instance.
func (w *writer) isAssigned(s *svc, in *inst) bool {
	sh := &w.sharing
	sh.places = sh.share.Checkers(sh.places[:0], identity(s.name, string(in.rec.id())))
	return slices.Contains(sh.places, sh.me)
}

// findOut is the verdict on an instance, and the earliest time at which
// failures now running may end it.
func (w *writer) findOut(s *svc, in *inst, now int64) (state health.State, deadline int64) {
	state, deadline = w.targets.checked(in)
	if !in.watched {
		return state, deadline
	}
	own := state
	if !in.mine {
		own, deadline = health.Unknown, 0
	}
	w.tally(in, own, now)
	w.say(s, in, own, "")
	switch {
	case !s.src.alone:
		before := in.health
		if in.fresh {
			before = health.Unknown
		}
		return w.quorum(s, in, before, own), deadline
	case in.stuck && own == in.stuckAt:
		return in.health, deadline
	default:
		in.stuck = false
		return own, deadline
	}
}

// quorum decides by what all who check an instance have found.
func (w *writer) quorum(s *svc, in *inst, before, own health.State) health.State {
	sh := &w.sharing
	reports := s.reports[string(in.rec.id())]
	if in.beats {
		return w.beating(in, before, own, reports)
	}
	sh.votes = sh.votes[:0]
	sh.places = sh.share.Checkers(sh.places[:0], identity(s.name, string(in.rec.id())))
	for _, at := range sh.places {
		if at == sh.me {
			sh.votes = append(sh.votes, health.Vote{State: own, Suspect: sh.suspect})
			continue
		}
		for i := range reports {
			if r := &reports[i]; r.checker == sh.share.Name(at) && r.of(in) {
				sh.votes = append(sh.votes, health.Vote{State: r.state, Suspect: sh.suspects[at]})
			}
		}
	}
	return health.Quorum(before, sh.votes)
}

// beating is quorum for an instance that sends heartbeats: it is well where one
// server hears it. The others miss what was never sent to them.
func (w *writer) beating(in *inst, before, own health.State, reports []report) health.State {
	state := before
	if own != health.Unknown {
		state = own
	}
	for i := range reports {
		r := &reports[i]
		if state == health.Passing {
			break
		}
		if r.checker != w.sharing.self && r.of(in) && w.sharing.share.Place(r.checker) >= 0 {
			state = r.state
		}
	}
	return state
}

// of reports whether the report is of this life of the instance.
func (r *report) of(in *inst) bool {
	return r.incarnation == 0 || r.incarnation == in.rec.incarnation()
}

// seedOf is the state that the checks of a new instance begin in: what the
// other servers have found, or what was known before a restart.
func (w *writer) seedOf(s *svc, in *inst) health.State {
	if w.sharing.share != nil && len(s.reports) > 0 {
		if state := w.quorum(s, in, health.Unknown, health.Unknown); state != health.Unknown {
			return state
		}
	}
	if !s.src.live && s.src.cfg.Seed != nil {
		return s.src.cfg.Seed(s.name, string(in.rec.id()))
	}
	return health.Unknown
}

// reason is what another server's check said that found the state.
func (s *svc) reason(in *inst, state health.State) string {
	for _, r := range s.reports[string(in.rec.id())] {
		if r.state == state && r.of(in) && r.reason != "" {
			return r.reason + " (found by " + r.checker + ")"
		}
	}
	return ""
}

// putReport notes what a server says of an instance.
func (w *writer) putReport(src *source, from *registry.Report) {
	s := w.service(src, from.Service)
	src.keepSign(from, w.arrived)
	next := report{checker: from.Checker, reason: from.Reason, incarnation: from.Incarnation, round: src.round, state: health.Failing}
	if from.Passing {
		next.state = health.Passing
	}
	list := s.reports[from.Instance]
	at := slices.IndexFunc(list, func(r report) bool { return r.checker == next.checker })
	switch {
	case at >= 0 && list[at].state == next.state && list[at].incarnation == next.incarnation:
		list[at] = next
		return
	case at >= 0:
		list[at] = next
	case len(list) >= health.SharersMax:
		w.pool.counts.reportsDropped.Add(1)
		return
	default:
		if s.reports == nil {
			s.reports = map[string][]report{}
		}
		s.reports[from.Instance] = append(list, next)
	}
	w.hasten(s, from.Instance, &next)
	w.reported(s, from.Instance)
}

// hasten brings the own checks of an instance nearer that another server has
// found failing. That is one check for a report, and reports are of changes.
func (w *writer) hasten(s *svc, instance string, r *report) {
	sh := &w.sharing
	at, there := s.find(instance)
	if !there || r.state != health.Failing || sh.share == nil || r.checker == sh.self {
		return
	}
	in := &s.insts[at]
	if from := sh.share.Place(r.checker); from < 0 || sh.suspects[from] || in.own != health.Passing || !r.of(in) {
		return
	}
	for id := range in.targets() {
		w.targets.checker.Check(w.targets.checker.Target(id))
	}
}

// reported has an instance judged anew after a change of its reports.
func (w *writer) reported(s *svc, instance string) {
	if _, there := s.find(instance); there && !s.src.alone {
		w.mark(s)
	}
}

// removeReport forgets what a server said of an instance.
func (w *writer) removeReport(s *svc, k *registry.Key) {
	w.dropReports(s, k.Name, func(r report) bool { return r.checker == k.Sub })
	w.forget(s)
}

// sweepReports forgets what the complete state just applied does not have.
func (w *writer) sweepReports(s *svc) {
	for instance := range s.reports {
		w.dropReports(s, instance, func(r report) bool { return r.round != s.src.round })
	}
}

func (w *writer) dropReports(s *svc, instance string, drop func(report) bool) {
	before := s.reports[instance]
	n := len(before)
	left := slices.DeleteFunc(before, func(r report) bool {
		gone := drop(r)
		if gone {
			delete(s.src.signs, signKey{s.name, instance, r.checker})
		}
		return gone
	})
	switch {
	case len(left) == n:
		return
	case len(left) == 0:
		delete(s.reports, instance)
	default:
		s.reports[instance] = left
	}
	w.reported(s, instance)
}

// tally counts what the own checks find, for the guard against believing a
// broken network.
func (w *writer) tally(in *inst, own health.State, now int64) {
	sh := &w.sharing
	if own == in.own {
		return
	}
	switch {
	case in.own == health.Passing && own == health.Failing:
		in.remember().missedAt = now
		sh.guard.Add(now)
	case in.own == health.Failing && in.unsteady != nil && in.unsteady.missedAt != 0:
		sh.guard.Undo(in.unsteady.missedAt, now)
		in.unsteady.missedAt = 0
	}
	sh.found[in.own]--
	sh.found[own]++
	in.own = own
}

// doubt begins or ends doubting the own checks; true: services are to be
// rebuilt for it.
func (w *writer) doubt(now time.Time) bool {
	sh := &w.sharing
	failing := sh.found[health.Failing]
	of := failing + sh.found[health.Passing]
	suspect := sh.guard.Suspect(now.UnixNano(), failing, of)
	if suspect == sh.suspect {
		return false
	}
	sh.suspect = suspect
	w.pool.suspect.Store(suspect)
	w.pool.outbox.wake()
	e, level := Event{Kind: EventAlarm, To: "trusted"}, slog.LevelInfo
	if suspect {
		e.To, level = "suspect", slog.LevelWarn
		w.pool.counts.suspected.Add(1)
	}
	e.Reason = strconv.Itoa(failing) + " of " + strconv.Itoa(of) + " instances that this server checks fail"
	again := false
	for _, src := range w.sources {
		w.event(now, src, e)
		if src.alone {
			continue
		}
		for _, s := range src.services {
			w.mark(s)
			again = true
		}
	}
	w.pool.log.LogAttrs(context.Background(), level, "own checks", slog.String("now", e.To), slog.String("reason", e.Reason))
	return again
}

// Suspect reports whether this server doubts its own checks: most of what it
// checks failed at once.
func (p *Pool) Suspect() bool { return p.suspect.Load() }
