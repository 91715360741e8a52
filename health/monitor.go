package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ConcurrencyDefault is Config.Concurrency when that is zero: with checks that
// take 5 ms, 100,000 a second; with targets that all hang for the default
// timeout of 1 s, 512 a second.
const ConcurrencyDefault = 512

// concurrencyMin leaves a worker for healthy targets and one for others.
const concurrencyMin = 2

// Config is what a Monitor needs.
type Config struct {
	// Prober runs the checks; required.
	Prober Prober
	// Notify is called when a target's State or VerdictAt has changed, nil for
	// no one. It may be called from several goroutines at once, from those that
	// call Check and Report too, and never for a target after its Remove and
	// before the next Add, but for a call already under way. It must not block;
	// no lock is held. What changed is asked of Status: of several changes the
	// last is always told after it was made.
	Notify func(Target)
	// Load is called with each load that comes with a Result, nil for no one;
	// the same rules as for Notify.
	Load func(t Target, load float64)
	// Concurrency is how many checks may run at a time; zero is
	// ConcurrencyDefault, below 2 an error. Targets that fail, or
	// did when last checked, use three quarters of them at most and the others
	// as much: targets that hang cannot keep healthy ones from being checked,
	// nor healthy ones those from recovering.
	Concurrency int
	// Logger is told of each change of state; nil logs nothing.
	Logger *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics Metrics
}

// Metrics receives what a Monitor counts. Its methods are called from several
// goroutines and must not block.
type Metrics interface {
	// Checked tells of one finished probe and how long it took.
	Checked(t Type, ok bool, took time.Duration)
	// Delayed tells of a check that was due while all workers were busy, and
	// by how much its start was late.
	Delayed(by time.Duration)
	// Changed tells of one change of state.
	Changed(from, to State)
}

// Monitor checks targets and remembers their states. Its methods are safe for
// concurrent use, before and during Run and after it.
type Monitor struct {
	cfg    Config
	keeper Keeper    // the Prober, if it is one
	epoch  time.Time // all times within are nanoseconds since then, monotonic

	wake chan struct{} // 1-slot: the heap has an earlier head, for dispatch

	mu       sync.Mutex
	entries  memory
	signs    signs
	heap     []queued // by due; see schedule.go
	planned  int64    // when dispatch will look again by itself
	firstDue int64    // pace of first checks: when the next may come
	healthy  lane
	ill      lane // failing, or the last result was a failure
	workers  int  // goroutines started
	idle     []worker
	counts   [Failing + 1]int // targets by state
	delayed  uint64

	began      bool
	firstLeft  int // targets of the start that have no result yet
	firstRound chan struct{}
}

// New makes a Monitor without targets.
func New(cfg Config) (*Monitor, error) {
	if cfg.Prober == nil {
		return nil, errors.New("health: Config.Prober: must be set")
	}
	cfg.Concurrency = cmp.Or(cfg.Concurrency, ConcurrencyDefault)
	if cfg.Concurrency < concurrencyMin {
		return nil, fmt.Errorf("health: Config.Concurrency: %d: must be at least %d", cfg.Concurrency, concurrencyMin)
	}
	if cfg.Notify == nil {
		cfg.Notify = func(Target) {}
	}
	if cfg.Load == nil {
		cfg.Load = func(Target, float64) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = noMetrics{}
	}
	keeper, _ := cfg.Prober.(Keeper)
	return &Monitor{
		cfg: cfg, keeper: keeper, epoch: time.Now(),
		wake: make(chan struct{}, 1), entries: newMemory(), firstRound: make(chan struct{}),
	}, nil
}

type noMetrics struct{}

func (noMetrics) Checked(Type, bool, time.Duration) {}
func (noMetrics) Delayed(time.Duration)             {}
func (noMetrics) Changed(State, State)              {}

// Add asks for a target to be checked, once more if others ask for it already.
// A target that is new begins in the seed's state, which is not a transition,
// and is checked at once; for one that is there already the seed is ignored.
//
// A TypeTTL target is not probed: it passes with each heartbeat (Report), and
// fails at once, whatever Fall says, when its Interval goes by without one.
// Its Interval begins with Add, or with Run if that comes later.
func (m *Monitor) Add(t Target, seed State) ID {
	k := keyOf(&t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries.find(&k); e != nil {
		e.refs++
		return e.id
	}
	now := m.now()
	e := m.entries.add(&k)
	e.born = min(seed, Failing)
	e.refs, e.state, e.since, e.last, e.pos = 1, e.born, now, never, notQueued
	m.counts[e.state]++
	if t.Type == TypeTTL {
		m.schedule(e, now+interval(&t))
	} else {
		m.schedule(e, m.firstCheck(now))
	}
	return e.id
}

// Find returns the ID of a target; false: it is not there.
func (m *Monitor) Find(t Target) (ID, bool) {
	k := keyOf(&t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries.find(&k); e != nil {
		return e.id, true
	}
	return 0, false
}

// Target is the target of an ID.
func (m *Monitor) Target(id ID) Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries.target(m.entries.at(id))
}

// Verdict is the State and VerdictAt of the Status of an ID.
func (m *Monitor) Verdict(id ID) (State, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries.at(id)
	if e.state != Passing || e.failures == 0 {
		return e.state, time.Time{}
	}
	t := m.entries.target(e)
	return e.state, e.verdictTime(&t, m.wall())
}

// Remove takes back one Add. With the last of them the target and what is
// known of it are forgotten; the result of a probe under way is dropped.
func (m *Monitor) Remove(t Target) {
	k := keyOf(&t)
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries.find(&k)
	if e == nil {
		return
	}
	if e.refs--; e.refs > 0 {
		return
	}
	m.entries.remove(e)
	m.unsign(e)
	m.counts[e.state]--
	m.unschedule(e)
	m.resulted(e)
	if !e.busy {
		m.forget(t)
	}
	if !e.busy && !e.waiting {
		m.entries.release(e)
	}
}

// forget ends what the prober keeps of a target that is not there any more.
func (m *Monitor) forget(t Target) {
	if m.keeper != nil {
		m.keeper.Forget(t)
	}
}

// Status returns what is known of a target; false if it is not there.
func (m *Monitor) Status(t Target) (Status, bool) {
	k := keyOf(&t)
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries.find(&k)
	if e == nil {
		return Status{}, false
	}
	wall := m.wall()
	st := m.entries.status(e, &t, wall)
	if s, there := m.signs[e.id]; there {
		s.describe(&st, wall)
	}
	return st, true
}

// Report takes a result from elsewhere; false: the target is not there. For a
// TypeTTL target it is the heartbeat: OK passes at once, not OK fails at once.
// For other targets it is a passive observation, which has no say in the
// state: a failure brings the next check nearer as Check does, a success
// changes nothing but the load.
func (m *Monitor) Report(t Target, r Result) bool {
	if t.Type != TypeTTL {
		if !m.check(t, !r.OK, !r.OK) {
			return false
		}
		m.tell(&t, change{}, r)
		return true
	}
	k := keyOf(&t)
	m.mu.Lock()
	e := m.entries.find(&k)
	if e == nil {
		m.mu.Unlock()
		return false
	}
	now, good := m.now(), e.goodAt()
	c := m.entries.heartbeat(e, &r, now, m.wall())
	m.judgeSign(e, now, good)
	if r.OK {
		m.schedule(e, now+interval(&t))
	} else {
		m.unschedule(e)
	}
	m.count(c)
	m.mu.Unlock()
	m.tell(&t, c, r)
	return true
}

// Check brings the next check of a target nearer: FastInterval after the start
// of the last one, at once if that is past. However often it is called, a
// target is not checked more often than once a FastInterval by it. TypeTTL
// targets and targets that are not there are ignored.
func (m *Monitor) Check(t Target) {
	if t.Type != TypeTTL {
		m.check(t, true, false)
	}
}

// Lost tells that what a Keeper kept of a target has ended: the target is
// checked at once, or once more when a check of it is under way. The Keeper
// sees to it that this cannot go round faster than twice a FastInterval. Targets that
// are not there are ignored.
func (m *Monitor) Lost(t Target) {
	k := keyOf(&t)
	m.mu.Lock()
	e := m.entries.find(&k)
	moved := false
	if e != nil {
		e.lost = e.busy
		now := m.now()
		m.sign(e, now, e.goodAt())
		moved = m.advance(e, &t, now)
	}
	m.mu.Unlock()
	if moved {
		m.cfg.Notify(t)
	}
}

// check is Check if soon is set, for a failure seen elsewhere if failed is; it
// reports whether the target is there.
func (m *Monitor) check(t Target, soon, failed bool) bool {
	k := keyOf(&t)
	m.mu.Lock()
	e := m.entries.find(&k)
	moved := false
	if e != nil && soon {
		e.soon = e.soon || e.busy
		now := m.now()
		if failed {
			m.sign(e, now, e.goodAt())
		}
		moved = m.advance(e, &t, max(now, e.start+fastInterval(&t)))
	}
	m.mu.Unlock()
	if moved {
		m.cfg.Notify(t)
	}
	return e != nil
}

// advance brings the next check of an entry that waits for its time forward,
// and reports whether its verdict has come nearer by that.
func (m *Monitor) advance(e *entry, t *Target, due int64) bool {
	if e.pos == notQueued || due >= e.due {
		return false
	}
	m.schedule(e, due)
	return e.verdictAt(t) != never
}

// FirstRound is closed when every target that was there when Run began has had
// one result or was removed. TypeTTL targets are not waited for.
func (m *Monitor) FirstRound() <-chan struct{} { return m.firstRound }

// Stats are figures of a Monitor at one moment.
type Stats struct {
	Unknown, Passing, Failing int    // targets by state
	Running                   int    // probes under way
	Waiting                   int    // checks that are due and wait for a worker
	Delayed                   uint64 // checks that had to wait, since the start
}

// Stats returns the present figures.
func (m *Monitor) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{
		Unknown: m.counts[Unknown], Passing: m.counts[Passing], Failing: m.counts[Failing],
		Running: m.healthy.busy + m.ill.busy, Waiting: m.healthy.waiting + m.ill.waiting, Delayed: m.delayed,
	}
}

// now is the time since the epoch. wall is the clock's present time, less now:
// times are shown by the clock as it is, even after it was set.
func (m *Monitor) now() int64      { return int64(time.Since(m.epoch)) }
func (m *Monitor) wall() time.Time { t := time.Now(); return t.Add(-t.Sub(m.epoch)) }

// resulted counts a target of the start that needs no more waiting for.
func (m *Monitor) resulted(e *entry) {
	if !e.first {
		return
	}
	e.first = false
	if m.firstLeft--; m.firstLeft == 0 {
		close(m.firstRound)
	}
}

// count keeps the figures by state.
func (m *Monitor) count(c change) {
	if c.from != c.to {
		m.counts[c.from]--
		m.counts[c.to]++
	}
}

// tell passes a change on. No lock is held.
func (m *Monitor) tell(t *Target, c change, r Result) {
	if r.OK && r.Load >= 0 {
		m.cfg.Load(*t, r.Load)
	}
	if c.from != c.to {
		m.cfg.Metrics.Changed(c.from, c.to)
		level := slog.LevelInfo
		if c.from == Unknown && c.to == Passing {
			level = slog.LevelDebug // the usual beginning, of every target there is
		}
		m.cfg.Logger.LogAttrs(context.Background(), level, "health changed",
			slog.String("type", t.Type.String()), slog.String("target", t.Addr.String()), slog.String("name", t.Name),
			slog.String("from", c.from.String()), slog.String("to", c.to.String()), slog.String("output", r.Output))
	}
	if c.from != c.to || c.verdict {
		m.cfg.Notify(*t)
	}
}
