package pool

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/registry"
)

// EventsMax is the number of events kept for subscribers; older ones are lost.
const EventsMax = 4096

// EventKind is the kind of an Event. Zero is unset.
type EventKind uint8

// The kinds of events.
const (
	EventUnset EventKind = iota
	EventRegistered
	EventDeregistered
	EventChanged // an instance's record
	EventHealth  // From and To are health states
	EventAdmin   // From and To are administrator's states
	EventServing // From and To are "in" and "out"
	EventService // From and To are modes; both empty: the policy changed
	EventSource  // From and To are "none", "snapshot", "fresh", "stale" and "expired"
	EventProblem // a record could not be used; To is "mended" when it is well again
	EventFailure // an instance that failed is answered no more: Failure
	EventAlarm   // To is "held", "released", "suspect" or "trusted"
	EventGap     // events before this one were lost to the reader
)

// Event is one thing that happened.
type Event struct {
	// Seq counts up by one from the microseconds since 1970 at which the pool
	// was made, so that it never goes back across restarts.
	Seq      uint64
	At       time.Time
	Kind     EventKind
	Source   registry.SourceID
	Service  string
	Instance string
	From, To string
	Reason   string
	Failure  *Failure // of an EventFailure; it never changes
}

// events is a bounded ring of the latest events. The writer adds; it never
// waits for a reader.
type events struct {
	lost atomic.Uint64

	mu    sync.Mutex
	ring  []Event
	first uint64 // Seq of the oldest event kept
	next  uint64 // Seq of the event to come

	more broadcast // an event was added
}

func newEvents(start time.Time) *events {
	seq := uint64(start.UnixMicro())
	seq += EventsMax - seq%EventsMax // so that the i-th event lies at ring[i]
	return &events{first: seq, next: seq}
}

// add appends e, giving it its number.
func (es *events) add(e Event) {
	es.mu.Lock()
	defer es.mu.Unlock()
	e.Seq = es.next
	es.next++
	if len(es.ring) < EventsMax {
		es.ring = append(es.ring, e)
	} else {
		es.ring[e.Seq%EventsMax] = e
		es.first++
	}
	es.more.wake()
}

// after returns up to len(buf) events after seq, and what to wait on when there
// are none. A gap is told by an EventGap whose Seq is that of the last event
// lost.
func (es *events) after(seq uint64, buf []Event) ([]Event, <-chan struct{}) {
	es.mu.Lock()
	defer es.mu.Unlock()
	buf = buf[:0]
	if seq+1 < es.first || seq >= es.next {
		// Beyond the end: a number of another life of the clock.
		es.lost.Add(1)
		buf = append(buf, Event{Seq: es.first - 1, At: time.Now(), Kind: EventGap})
		seq = es.first - 1
	}
	for s := seq + 1; s < es.next && len(buf) < cap(buf); s++ {
		buf = append(buf, es.at(s))
	}
	if len(buf) > 0 {
		return buf, nil
	}
	return nil, es.more.wait()
}

// at returns the event numbered seq, which must be kept.
func (es *events) at(seq uint64) Event { return es.ring[seq%EventsMax] }

// last returns the number of the latest event.
func (es *events) last() uint64 {
	es.mu.Lock()
	defer es.mu.Unlock()
	return es.next - 1
}

// Events yields every event after the one numbered since (0: from now on)
// until ctx ends or the loop does. A reader that falls more than EventsMax
// behind, or resumes after a restart, gets an EventGap in place of what it
// missed; it never holds the writer up.
func (p *Pool) Events(ctx context.Context, since uint64) iter.Seq[Event] {
	if since == 0 {
		since = p.events.last()
	}
	return func(yield func(Event) bool) {
		buf := make([]Event, 0, 64)
		for seq := since; ctx.Err() == nil; {
			var more <-chan struct{}
			var list []Event
			list, more = p.events.after(seq, buf)
			for i := range list {
				if !yield(list[i]) {
					return
				}
				seq = list[i].Seq
			}
			if len(list) > 0 {
				continue
			}
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
}
