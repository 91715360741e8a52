package health

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	never     = math.MinInt64 // a time before all others
	notQueued = -1
)

// entry is what is known of one target. All of it is guarded by Monitor.mu.
type entry struct {
	key     Key
	sibling *entry // in the index
	output  string
	history []Transition // replaced, never written: Status hands it out
	phase   int64        // within the interval, of the time that checks start at
	due     int64        // of the next check; TypeTTL: when it expires
	start   int64        // of the last check
	since   int64
	last    int64
	latency time.Duration

	transitions uint64
	refs        uint32
	failures    uint32 // in a row
	passes      uint32 // in a row
	pos         int32  // in the heap, or notQueued
	behind      *entry // the next one in its lane

	state   State
	busy    bool // a worker probes it
	soon    bool // Check was called meanwhile
	lost    bool // Lost was called meanwhile
	first   bool // FirstRound waits for it
	refused bool // the last result was a refused connection
}

// IndexKey and IndexNext make it an Indexed.
func (e *entry) IndexKey() *Key { return &e.key }

// IndexNext is room for the index.
func (e *entry) IndexNext() **entry { return &e.sibling }

// change is what a result has done.
type change struct {
	from, to State
	verdict  bool // VerdictAt has changed
}

// observe applies the result of a check by the rise and fall rule. A target of
// which nothing is known passes with its first success; to fail it needs Fall
// failures like any other, which come at the fast interval.
func (e *entry) observe(t *Target, r *Result, now int64, wall time.Time) change {
	c := change{from: e.state, to: e.state}
	running := e.state == Passing && e.failures > 0
	e.record(r, now)
	switch {
	case r.OK && e.state == Unknown, r.OK && e.state == Failing && int(e.passes) >= t.Rise:
		c.to = Passing
	case !r.OK && e.state != Failing && (r.Final || int(e.failures) >= t.Fall):
		c.to = Failing
	}
	c.verdict = running || c.to == Passing && e.failures > 0
	e.enter(c.to, now, wall)
	return c
}

// heartbeat applies a report to a TypeTTL target.
func (e *entry) heartbeat(r *Result, now int64, wall time.Time) change {
	c := change{from: e.state, to: Failing}
	if r.OK {
		c.to = Passing
	}
	e.record(r, now)
	e.enter(c.to, now, wall)
	return c
}

func (e *entry) record(r *Result, now int64) {
	e.last, e.latency, e.refused = now, r.Latency, r.Refused
	if e.output != r.Output { // keep the old string: most results are like the last
		e.output = r.Output
	}
	if r.OK {
		e.failures, e.passes = 0, increment(e.passes)
	} else {
		e.failures, e.passes = increment(e.failures), 0
	}
}

func increment(n uint32) uint32 { return n + min(1, math.MaxUint32-n) }

// enter moves to a state and remembers when and why.
func (e *entry) enter(to State, now int64, wall time.Time) {
	if to == e.state {
		return
	}
	kept := e.history[max(0, len(e.history)-HistoryMax+1):]
	history := make([]Transition, 0, len(kept)+1)
	e.history = append(append(history, kept...),
		Transition{At: wall.Add(time.Duration(now)), From: e.state, To: to, Output: e.output})
	e.transitions++
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
func (e *entry) next(t *Target, now int64) int64 {
	every := interval(t)
	switch {
	case e.lost:
		return now
	case e.unsettled() && e.refused:
		return max(now, e.start+min(int64(RefusedRecheck), fastInterval(t)))
	case e.unsettled(), e.soon:
		return max(now, e.start+fastInterval(t))
	}
	since := e.start - e.phase + every // positive: phase is within the interval
	slot := since - since%every + e.phase
	return max(now, slot+rand.Int64N(every/jitterShare))
}

// jitterShare is the part of an interval within which jitter moves a check.
const jitterShare = 10

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

func (e *entry) status(t *Target, wall time.Time) Status {
	s := Status{
		State: e.state, Since: wall.Add(time.Duration(e.since)), Output: e.output, Latency: e.latency,
		Failures: int(e.failures), Passes: int(e.passes), Transitions: e.transitions, History: e.history,
	}
	if e.last != never {
		s.Last = wall.Add(time.Duration(e.last))
	}
	if at := e.verdictAt(t); at != never {
		s.VerdictAt = wall.Add(time.Duration(at))
	}
	return s
}

func interval(t *Target) int64 { return int64(max(t.Interval, IntervalMin)) }

func fastInterval(t *Target) int64 {
	fast := t.FastInterval
	if fast <= 0 {
		fast = FastIntervalDefault
	}
	return min(interval(t), int64(max(fast, IntervalMin)))
}
