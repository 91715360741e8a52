package health

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// lateMin is how late a check must start to count as delayed: more than a tick
// and the scheduling of a busy machine.
const lateMin = int64(20 * time.Millisecond)

// illShare: targets that fail, or did when last checked, have a fourth of the
// workers for themselves, and leave a fourth to the others.
const illShare = 4

// lane is a queue of entries that are due, first in first out. It holds each
// target once at most.
type lane struct {
	head, tail ID
	waiting    int
	busy       int // workers that probe entries of this lane
}

func (l *lane) push(in *memory, e *entry) {
	if l.tail == 0 {
		l.head = e.id
	} else {
		in.at(l.tail).behind = e.id
	}
	l.tail = e.id
	e.waiting = true
	l.waiting++
}

// pop returns the first entry, or nil.
func (l *lane) pop(in *memory) *entry {
	if l.head == 0 {
		return nil
	}
	e := in.at(l.head)
	l.head, e.behind = e.behind, 0
	if l.head == 0 {
		l.tail = 0
	}
	e.waiting = false
	l.waiting--
	return e
}

func (m *Monitor) laneOf(e *entry) *lane {
	if e.state == Failing || e.failures > 0 {
		return &m.ill
	}
	return &m.healthy
}

// worker is the wake-up of an idle goroutine; 1-slot.
type worker chan struct{}

// hire finds a goroutine for what waits: the one that was idle last, whose
// stack is warm, or a new one. If there is none, the first to become free will
// see to it.
func (m *Monitor) hire(ctx context.Context, workers *sync.WaitGroup) {
	if last := len(m.idle) - 1; last >= 0 {
		m.idle[last] <- struct{}{}
		m.idle = m.idle[:last]
		return
	}
	if m.workers < m.cfg.Concurrency {
		m.workers++
		workers.Go(func() { m.work(ctx) })
	}
}

// work probes what is due until ctx ends.
func (m *Monitor) work(ctx context.Context) {
	w := make(worker, 1)
	for {
		j := m.take(w)
		if j.entry == nil {
			select {
			case <-ctx.Done():
				return
			case <-w:
			}
			continue
		}
		if j.late >= lateMin {
			m.cfg.Metrics.Delayed(time.Duration(j.late))
		}
		r := m.probe(ctx, &j)
		if ctx.Err() != nil {
			return
		}
		m.cfg.Metrics.Checked(j.target.Type, r.OK, r.Latency)
		m.tell(&j.target, m.finish(&j, &r), r)
	}
}

// job is one check under way.
type job struct {
	entry  *entry
	target Target
	lane   *lane
	start  int64
	late   int64 // by how much it started too late
}

// take returns the next check, or one without an entry when there is none that
// may run, and puts w among the idle.
func (m *Monitor) take(w worker) job {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		e, l := m.pop()
		if e == nil {
			m.idle = append(m.idle, w)
			return job{}
		}
		if e.refs == 0 {
			m.entries.release(e) // removed while it waited
			continue
		}
		now := m.now()
		e.start, e.busy = now, true
		l.busy++
		j := job{entry: e, target: m.entries.target(e), lane: l, start: now, late: now - e.due}
		if j.late >= lateMin {
			m.delayed++
		}
		return j
	}
}

// pop takes an entry from the lanes by their shares of the workers.
func (m *Monitor) pop() (*entry, *lane) {
	share := max(1, m.cfg.Concurrency/illShare)
	if m.ill.busy < share && m.ill.waiting > 0 {
		return m.ill.pop(&m.entries), &m.ill
	}
	if m.healthy.waiting > 0 {
		return m.healthy.pop(&m.entries), &m.healthy
	}
	if m.ill.busy < m.cfg.Concurrency-share {
		return m.ill.pop(&m.entries), &m.ill
	}
	return nil, nil
}

// probe runs the check. A prober that panics on what a target answers has
// found the target failing and has not ended the server.
func (m *Monitor) probe(ctx context.Context, j *job) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "health prober panicked",
				slog.Any("panic", p), slog.String("target", j.target.Addr.String()), slog.String("stack", string(debug.Stack())))
			r = Result{Output: "the prober panicked: see the log", Load: -1}
		}
		if r.Latency == 0 {
			r.Latency = time.Duration(m.now() - j.start)
		}
	}()
	return m.cfg.Prober.Probe(ctx, j.target)
}

// finish applies a result and schedules the next check.
func (m *Monitor) finish(j *job, r *Result) change {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := j.entry
	j.lane.busy--
	e.busy = false
	if e.refs == 0 {
		r.Load = -1 // removed meanwhile: nobody is told of anything
		if k := m.entries.key(e); m.entries.find(&k) == nil {
			m.forget(j.target)
		}
		m.entries.release(e)
		return change{}
	}
	now, good := m.now(), e.goodAt()
	c := m.entries.observe(e, &j.target, r, now, m.wall())
	m.judgeSign(e, j.start, good)
	m.count(c)
	m.schedule(e, m.entries.next(e, &j.target, now))
	e.soon, e.lost = false, false
	m.resulted(e)
	return c
}
