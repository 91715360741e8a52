package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// firstPace and firstWindow spread the first checks of targets that are
	// added together: one is checked at once, many over the window.
	firstPace   = int64(100 * time.Microsecond)
	firstWindow = int64(100 * time.Millisecond)

	// tick is the least time that dispatch sleeps: tens of thousands of checks a
	// second cost 250 wake-ups, and a check half of what it does at 1 ms, when
	// 1,500 a second are made. Checks start this late. What is to be checked at
	// once wakes dispatch.
	tick = 4 * time.Millisecond
	// dispatchBatch is how many targets are taken from the heap under one hold
	// of the lock.
	dispatchBatch = 256
)

// Run checks the targets until ctx ends, and returns nil when all that it
// started has ended. It can run once. Checks cut short by the end of ctx count
// for nothing.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.begin() {
		return errors.New("health: Monitor.Run was called before")
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.wake:
		}
		timer.Reset(m.dispatch(ctx, &workers))
	}
}

// begin makes every target due afresh: what was added long before Run is
// neither late nor expired.
func (m *Monitor) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.began {
		return false
	}
	m.began = true
	now := m.now()
	waiting := m.heap
	m.heap = make([]queued, 0, len(waiting))
	m.firstDue = now
	for _, q := range waiting {
		e := m.entries.at(q.id)
		e.pos = notQueued
		if t := m.entries.target(e); t.Type == TypeTTL {
			m.schedule(e, now+interval(&t))
			continue
		}
		m.schedule(e, m.firstCheck(now))
		e.first = true
		m.firstLeft++
	}
	if m.firstLeft == 0 {
		close(m.firstRound)
	}
	return true
}

// dispatch hands what is due to workers and returns the time until more is.
func (m *Monitor) dispatch(ctx context.Context, workers *sync.WaitGroup) time.Duration {
	for {
		expired, wait := m.dispatchSome(ctx, workers)
		for _, x := range expired {
			m.tell(&x.target, x.change, x.result)
		}
		if wait > 0 {
			return wait
		}
	}
}

type expiry struct {
	target Target
	change change
	result Result
}

// dispatchSome is dispatch for one hold of the lock; zero: there is more.
func (m *Monitor) dispatchSome(ctx context.Context, workers *sync.WaitGroup) (expired []expiry, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for range dispatchBatch {
		if len(m.heap) == 0 {
			m.planned = now + int64(time.Hour)
			return expired, time.Hour
		}
		if left := m.heap[0].due - now; left > 0 {
			wait = max(time.Duration(left), tick)
			m.planned = now + int64(wait)
			return expired, wait
		}
		e := m.entries.at(m.heap[0].id)
		m.unschedule(e)
		if m.entries.isTTL(e) {
			t := m.entries.target(e)
			x := expiry{target: t, result: Result{Output: fmt.Sprintf("no heartbeat for %v", time.Duration(interval(&t))), Load: -1}}
			good := e.goodAt()
			x.change = m.entries.heartbeat(e, &x.result, now, m.wall())
			m.judgeSign(e, now, good)
			m.count(x.change)
			expired = append(expired, x)
			continue
		}
		m.laneOf(e).push(&m.entries, e)
		m.hire(ctx, workers)
	}
	return expired, 0
}

// firstCheck is when a target added now is checked first.
func (m *Monitor) firstCheck(now int64) int64 {
	at := max(now, m.firstDue)
	if at-now >= firstWindow {
		return now + firstWindow
	}
	m.firstDue = at + firstPace
	return at
}

// schedule puts e in its place in the heap, or moves it there, and wakes
// dispatch if that would look too late.
func (m *Monitor) schedule(e *entry, due int64) {
	earlier := due < e.due
	e.due = due
	switch {
	case e.pos == notQueued:
		m.heap = append(m.heap, queued{})
		m.siftUp(len(m.heap)-1, queued{due, e.id})
	case earlier:
		m.siftUp(int(e.pos), queued{due, e.id})
	default:
		m.siftDown(int(e.pos), queued{due, e.id})
	}
	if due < m.planned {
		m.planned = due
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// unschedule takes e out of the heap, if it is there.
func (m *Monitor) unschedule(e *entry) {
	if e.pos == notQueued {
		return
	}
	i, last := int(e.pos), len(m.heap)-1
	moved := m.heap[last]
	m.heap = m.heap[:last]
	e.pos = notQueued
	if i == last {
		return
	}
	if i > 0 && moved.due < m.heap[(i-1)/heapArity].due {
		m.siftUp(i, moved)
	} else {
		m.siftDown(i, moved)
	}
}

// queued is an entry in the heap. It has its own copy of due: four children are
// a cache line, and the entries of those that stay are not looked at.
type queued struct {
	due int64
	id  ID
}

// heapArity: a heap of four children a node is half as deep as one of two, and
// a parent's children share a cache line or two.
const heapArity = 4

// siftUp places q at i or above it.
func (m *Monitor) siftUp(i int, q queued) {
	for i > 0 {
		parent := (i - 1) / heapArity
		if m.heap[parent].due <= q.due {
			break
		}
		m.place(i, m.heap[parent])
		i = parent
	}
	m.place(i, q)
}

// siftDown places q at i or below it.
func (m *Monitor) siftDown(i int, q queued) {
	for {
		least, due := -1, q.due
		first := i*heapArity + 1
		for c := first; c < min(first+heapArity, len(m.heap)); c++ {
			if d := m.heap[c].due; d < due {
				least, due = c, d
			}
		}
		if least < 0 {
			break
		}
		m.place(i, m.heap[least])
		i = least
	}
	m.place(i, q)
}

func (m *Monitor) place(i int, q queued) {
	m.heap[i] = q
	m.entries.at(q.id).pos = int32(i)
}
