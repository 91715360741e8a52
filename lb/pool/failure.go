package pool

import (
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// How long wrong answers go on is measured where they end: when a form of the
// service without the instance has been published, the writer asks when its
// failure was first seen. Until then nothing is kept of it here. Failures are
// those of the service's own name; answers for an instance's own name are given
// for as long as it is registered.
//
// Publication ends the wrong answers but for those being made: readers look a
// service up for each question and keep no answer. Over UDP what was answered
// before leaves with its batch, of 32 questions at most, some 50 us later
// (more if the link is full or the kernel takes the core away); over streams
// with the rest of what one read has brought. An answer that waits for its
// signature is made anew once its turn has come. A transfer goes on with what
// it began with.

// Cause is what ended the wrong answers. Zero is unset.
type Cause uint8

// The causes.
const (
	CauseUnset   Cause = iota
	CauseCheck         // a check of this server's, or a heartbeat that stayed away
	CauseReport        // checks of other servers, which saw it first
	CauseLease         // the lease of its registration ended
	CauseDeleted       // its registration was deleted while it was answered
	CauseKept          // any; it was known to have failed before, and kept: by fail-open, a freeze or a hold
	causes
)

// String is the cause's name: "check", "lease".
func (c Cause) String() string {
	switch c {
	case CauseCheck:
		return "check"
	case CauseReport:
		return "report"
	case CauseLease:
		return "lease"
	case CauseDeleted:
		return "deleted"
	case CauseKept:
		return "kept"
	case CauseUnset:
		return "unset"
	default:
		return "invalid"
	}
}

// Failure is one instance's failure, as far as a service's answers are
// concerned.
type Failure struct {
	Instance string
	Cause    Cause
	// Check is the kind of check that gave the first sign; TypeNone: none of
	// this server's did.
	Check health.Type
	// At is when the wrong answers ended: a view without the instance was
	// published.
	At time.Time
	// Wrong is the time from the first sign of the failure to At. For a lease
	// that ended and a deletion without any, it is from when the registry's
	// word had come: when the instance failed, and when the lease was last
	// renewed, is not known then.
	Wrong time.Duration
	// Bound is the time from the beginning of the last good check to At: wrong
	// answers went on no longer. 0: it is not known.
	Bound time.Duration
	// Cached is how long after At caches may hold an answer with the instance:
	// the greatest TTL that was sent with it.
	Cached time.Duration
}

// Label names the cause for a metric: the kind of check for CauseCheck.
func (f *Failure) Label() string {
	if f.Cause == CauseCheck && f.Check != health.TypeNone {
		return f.Check.String()
	}
	return f.Cause.String()
}

// String says it in one clause of printable ASCII, without the instance.
func (f *Failure) String() string {
	var b strings.Builder
	from := "the first sign"
	switch f.Cause {
	case CauseCheck:
		b.WriteString("found by its " + f.Check.String() + " check")
	case CauseReport:
		b.WriteString("found by other servers")
	case CauseLease:
		b.WriteString("its lease ended")
	case CauseDeleted:
		b.WriteString("deregistered while it was answered")
	case CauseKept:
		b.WriteString("kept in the answers though it failed")
	case CauseUnset, causes:
	}
	if f.Check == health.TypeNone && (f.Cause == CauseLease || f.Cause == CauseDeleted) {
		from = "the registry's word"
	}
	b.WriteString(": " + shortTime(f.Wrong) + " from " + from + " to the last wrong answer")
	if f.Bound > 0 {
		b.WriteString(" (at most " + shortTime(f.Bound) + " from the last good check)")
	}
	if f.Cached > 0 {
		b.WriteString(", TTL " + shortTime(f.Cached) + " more in caches")
	}
	return b.String()
}

// shortTime is a time with three digits or so.
func shortTime(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default: // time.Duration has a Greek letter there
		return strconv.FormatFloat(d.Round(10*time.Microsecond).Seconds()*1000, 'g', 2, 64) + "ms"
	}
}

// failures are the two of a service that are kept; nil: there was none.
type failures struct{ last, worst *Failure }

// with is what is kept once there was one more. What was kept on purpose is the
// longest of all and says nothing of how soon a failure is found.
func (f failures) with(next *Failure) failures {
	f.last = next
	if next.Cause != CauseKept && (f.worst == nil || next.Wrong >= f.worst.Wrong) {
		f.worst = next
	}
	return f
}

// sign is when a failure was first seen, and the beginning of the last good
// check before that; zero: not known.
type sign struct{ first, good time.Time }

// signKey names what a server said of an instance of a source.
type signKey struct{ service, instance, checker string }

// leaving is an instance that the form of s to be published is without.
type leaving struct {
	s *svc
	Failure
	sign
}

// leaves notes that instance i, which has failed, is answered no more.
func (w *writer) leaves(s *svc, in *inst, now time.Time) {
	l := leaving{s: s}
	l.Instance, l.Cause = string(in.rec.id()), CauseReport
	l.Cached = time.Duration(max(in.cachedUntil-now.UnixNano(), 0))
	kind, own := w.ownSign(in)
	w.signs = w.signs[:0]
	if kind != health.TypeNone {
		w.signs = append(w.signs, own)
	}
	w.signs = w.toldSigns(w.signs, s, in)
	if at := firstOf(w.signs); at >= 0 {
		l.sign = w.signs[at]
		if at == 0 && kind != health.TypeNone {
			l.Cause, l.Check = CauseCheck, kind
		}
	} else {
		l.sign = sign{now, own.good} // the run of failures has ended meanwhile
	}
	if in.unsteady != nil && in.unsteady.fellAt != 0 && in.unsteady.fellAt != now.UnixNano() {
		l.Cause = CauseKept
	}
	w.leaving = append(w.leaving, l)
}

// goes notes that an instance which is answered goes from the registry: lost
// with its lease, or deleted.
func (w *writer) goes(s *svc, in *inst, lost bool) {
	if !in.in || !s.src.live {
		return // what went before this server's time cannot be measured
	}
	l := leaving{s: s}
	l.Instance, l.Cause = string(in.rec.id()), CauseDeleted
	l.Check, l.sign = w.ownSign(in)
	switch at := in.lostAt(); {
	case at != 0:
		l.Cause, l.Check, l.first = CauseKept, health.TypeNone, time.Unix(0, at)
	case in.health == health.Failing:
		l.Cause = CauseKept
	case lost:
		l.Cause = CauseLease
	}
	if l.first.IsZero() {
		l.first = w.arrived
	}
	l.Cached = s.pub.ttlMax()
	w.leaving = append(w.leaving, l)
}

// ordered reports whether an administrator's word decides whether an instance
// is in: what goes out by it has not failed.
func ordered(a registry.AdminState) bool {
	return a != registry.AdminNone && a != registry.AdminFreeze
}

// ttlMax is the greatest TTL with which an instance is answered.
func (s *Service) ttlMax() time.Duration {
	if s == nil {
		return 0
	}
	ttl := s.whole.ttlMax()
	for i := range s.filters {
		ttl = max(ttl, s.filters[i].ttlMax())
	}
	return time.Duration(ttl) * time.Second
}

func (s *Set) ttlMax() (ttl uint32) {
	for _, g := range s.groups {
		if g != nil {
			ttl = max(ttl, g.ttl)
		}
	}
	return ttl
}

// ownSign is the first sign that this server's checks have of an instance's
// failure, and the kind of that check; TypeNone: there is none, and good is of
// the last check that passed.
func (w *writer) ownSign(in *inst) (kind health.Type, s sign) {
	for id := range in.targets() {
		target := w.targets.checker.Target(id)
		st, there := w.targets.checker.Status(target)
		switch {
		case !there:
		case !st.FirstSign.IsZero() && (kind == health.TypeNone || st.FirstSign.Before(s.first)):
			kind, s = target.Type, sign{st.FirstSign, st.LastGood}
		case kind == health.TypeNone && st.Passes > 0 && st.Last.Add(-st.Latency).After(s.good):
			s.good = st.Last.Add(-st.Latency)
		}
	}
	return kind, s
}

// toldSigns appends what other servers that see the failure tell of its first
// signs.
func (w *writer) toldSigns(dst []sign, s *svc, in *inst) []sign {
	if s.src.alone || len(s.src.signs) == 0 {
		return dst
	}
	id := string(in.rec.id())
	for i := range s.reports[id] {
		r := &s.reports[id][i]
		if r.state != health.Failing || r.checker == w.sharing.self || !r.of(in) {
			continue
		}
		dst = append(dst, s.src.signs[signKey{s.name, id, r.checker}])
	}
	return dst
}

// firstOf chooses, of what the servers that see a failure have seen of it, the
// first sign after the last good check of any of them, and has it know of that
// check; -1: there is none. What one saw before that was trouble of its own: the
// instance was well, as another saw.
func firstOf(signs []sign) int {
	first, last := -1, -1
	for i := range signs {
		if last < 0 || signs[i].good.After(signs[last].good) {
			last = i
		}
	}
	for i := range signs {
		if !signs[i].first.Before(signs[last].good) && (first < 0 || signs[i].first.Before(signs[first].first)) {
			first = i
		}
	}
	if first < 0 {
		return -1
	}
	signs[first].good = signs[last].good
	return first
}

// keepSign notes when a server has first seen the failure that it reports, by
// its clock.
func (src *source) keepSign(from *registry.Report, now time.Time) {
	k := signKey{from.Service, from.Instance, from.Checker}
	if from.Passing {
		delete(src.signs, k)
		return
	}
	seen := sign{from.FirstSign, from.LastGood}
	if seen.first.IsZero() {
		seen.first = from.Since
	}
	if seen.first.IsZero() || seen.first.After(now) {
		seen.first = now
	}
	if seen.good.After(seen.first) {
		seen.good = time.Time{} // its clock is ahead, or it makes no sense
	}
	if src.signs == nil {
		src.signs = map[signKey]sign{}
	}
	src.signs[k] = seen
}

// measure ends the measurement of what has left the answers: they are published
// without it.
func (w *writer) measure() {
	if len(w.leaving) == 0 {
		return
	}
	at := time.Now()
	for i := range w.leaving {
		l := &w.leaving[i]
		if l.s.pub.answers(l.Instance) {
			continue // it came back in the same change
		}
		l.At = at
		l.Wrong = max(at.Sub(l.first), 0)
		if !l.good.IsZero() {
			l.Bound = max(at.Sub(l.good), l.Wrong)
		}
		w.failed(l.s, &l.Failure)
	}
	clear(w.leaving)
	w.leaving = w.leaving[:0]
}

// answers reports whether an instance may be answered; s may be nil.
func (s *Service) answers(id string) bool {
	if s == nil || s.ancestor {
		return false
	}
	i := s.Instance([]byte(id))
	return i >= 0 && s.In(uint32(i))
}

// failed counts and tells of a failure.
func (w *writer) failed(s *svc, f *Failure) {
	w.pool.counts.failures.add(f)
	told := *f
	if s.src.services[s.name] == s {
		if s.src.failures == nil {
			s.src.failures = map[*svc]failures{}
		}
		s.src.failures[s] = s.src.failures[s].with(&told)
	}
	w.event(f.At, s.src, Event{Kind: EventFailure, Service: s.name, Instance: f.Instance, Reason: f.String(), Failure: &told})
}
