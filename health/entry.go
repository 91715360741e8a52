package health

import (
	"hash/maphash"
	"math"
	"math/rand/v2"
	"time"
)

const (
	never     = math.MinInt64 // a time before all others
	notQueued = -1
)

// entry is what is known of one target: 112 octets, without pointers. All of it
// is guarded by Monitor.mu.
type entry struct {
	due     int64 // of the next check; TypeTTL: when it expires
	start   int64 // of the last check
	since   int64
	last    int64
	latency time.Duration

	id          ID
	sibling     ID     // in the index
	behind      ID     // the next one in its lane
	pos         int32  // in the heap, or notQueued
	spec        uint32 // number in memory.specs
	output      uint32 // number in memory.outputs: of the last result
	entered     uint32 // the same: of the result that brought the first state
	transitions uint32
	refs        uint32
	failures    uint32 // in a row
	passes      uint32 // in a row

	place   place
	born    State // before the first transition
	state   State
	waiting bool // it is in a lane
	busy    bool // a worker probes it
	soon    bool // Check was called meanwhile
	lost    bool // Lost was called meanwhile
	first   bool // FirstRound waits for it
	refused bool // the last result was a refused connection
}

// change is what a result has done.
type change struct {
	from, to State
	verdict  bool // VerdictAt has changed
}

// observe applies the result of a check by the rise and fall rule. A target of
// which nothing is known passes with its first success; to fail it needs Fall
// failures like any other, which come at the fast interval.
func (m *memory) observe(e *entry, t *Target, r *Result, now int64, wall time.Time) change {
	c := change{from: e.state, to: e.state}
	running := e.state == Passing && e.failures > 0
	m.record(e, r, now)
	switch {
	case r.OK && e.state == Unknown, r.OK && e.state == Failing && int(e.passes) >= t.Rise:
		c.to = Passing
	case !r.OK && e.state != Failing && (r.Final || int(e.failures) >= t.Fall):
		c.to = Failing
	}
	c.verdict = running || c.to == Passing && e.failures > 0
	m.enter(e, c.to, now, wall)
	return c
}

// heartbeat applies a report to a TypeTTL target.
func (m *memory) heartbeat(e *entry, r *Result, now int64, wall time.Time) change {
	c := change{from: e.state, to: Failing}
	if r.OK {
		c.to = Passing
	}
	m.record(e, r, now)
	m.enter(e, c.to, now, wall)
	return c
}

func (m *memory) record(e *entry, r *Result, now int64) {
	e.last, e.latency, e.refused = now, r.Latency, r.Refused
	e.output = say(&m.outputs, e.output, r.Output, e.place.addr())
	if r.OK {
		e.failures, e.passes = 0, increment(e.passes)
	} else {
		e.failures, e.passes = increment(e.failures), 0
	}
}

func increment(n uint32) uint32 { return n + min(1, math.MaxUint32-n) }

// enter moves to a state and remembers when and why.
func (m *memory) enter(e *entry, to State, now int64, wall time.Time) {
	if to == e.state {
		return
	}
	if e.transitions == 0 && e.state == Unknown { // see history
		e.entered = e.output
		m.outputs.share(e.entered)
	} else {
		kept := m.history(e, wall)
		kept = kept[max(0, len(kept)-HistoryMax+1):]
		history := append(make([]Transition, 0, len(kept)+1), kept...)
		o := m.outputs.value(e.output)
		m.histories[e.id] = append(history,
			Transition{At: wall.Add(time.Duration(now)), From: e.state, To: to, Output: o.of(e.place.addr())})
		m.outputs.drop(e.entered)
		e.entered = 0
	}
	e.transitions = increment(e.transitions)
	e.state, e.since = to, now
}

// unsettled reports whether a run of results against the present state is
// under way.
func (e *entry) unsettled() bool {
	if e.state == Failing {
		return e.passes > 0
	}
	return e.failures > 0
}

// next is the time of the next check. Settled targets are checked at their
// phase within the interval, with a jitter of a tenth of it: the checks of
// many targets stay spread over time, whatever brought them together, and two
// checks are 0.9 to 1.1 intervals apart.
func (m *memory) next(e *entry, t *Target, now int64) int64 {
	every := interval(t)
	switch {
	case e.lost:
		return now
	case e.unsettled() && e.refused:
		return max(now, e.start+min(int64(RefusedRecheck), fastInterval(t)))
	case e.unsettled(), e.soon:
		return max(now, e.start+fastInterval(t))
	}
	phase := int64(maphash.Comparable(m.seed, e.id) % uint64(every))
	since := e.start - phase + every // positive: phase is within the interval
	slot := since - since%every + phase
	return max(now, slot+rand.Int64N(every/JitterShare))
}

// JitterShare is the part of an interval within which jitter moves a check.
const JitterShare = 10

// verdictAt is the earliest time at which a passing target can become failing,
// or never: the next check, or the one under way, can be followed by each
// other one that is missing after RefusedRecheck.
func (e *entry) verdictAt(t *Target) int64 {
	if e.state != Passing || e.failures == 0 || t.Type == TypeTTL {
		return never
	}
	missing := max(1, t.Fall-int(e.failures))
	return e.due + int64(missing-1)*min(int64(RefusedRecheck), fastInterval(t))
}

func (m *memory) status(e *entry, t *Target, wall time.Time) Status {
	o := m.outputs.value(e.output)
	s := Status{
		State: e.state, Since: wall.Add(time.Duration(e.since)), Output: o.of(e.place.addr()), Latency: e.latency,
		Failures: int(e.failures), Passes: int(e.passes), Transitions: uint64(e.transitions), History: m.history(e, wall),
	}
	if e.last != never {
		s.Last = wall.Add(time.Duration(e.last))
	}
	s.VerdictAt = e.verdictTime(t, wall)
	return s
}

// verdictTime is verdictAt as Status has it.
func (e *entry) verdictTime(t *Target, wall time.Time) (at time.Time) {
	if ns := e.verdictAt(t); ns != never {
		at = wall.Add(time.Duration(ns))
	}
	return at
}

func interval(t *Target) int64 { return int64(max(t.Interval, IntervalMin)) }

func fastInterval(t *Target) int64 {
	fast := t.FastInterval
	if fast <= 0 {
		fast = FastIntervalDefault
	}
	return min(interval(t), int64(max(fast, IntervalMin)))
}
