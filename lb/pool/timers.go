package pool

import "time"

// timers is a heap of services by the time at which they are to be looked at
// again by themselves; each is in it once at most.
type timers struct{ heap []*svc }

// waitMax is how long the writer sleeps when no service has a time.
const waitMax = time.Hour

// set moves s to the time at; 0 takes it out.
func (ts *timers) set(s *svc, at int64) {
	if at == 0 {
		ts.remove(s)
		return
	}
	s.wakeAt = at
	if s.heapAt == 0 {
		ts.heap = append(ts.heap, s)
		s.heapAt = len(ts.heap)
	}
	ts.up(s.heapAt - 1)
	ts.down(s.heapAt - 1)
}

// remove takes s out.
func (ts *timers) remove(s *svc) {
	if s.heapAt == 0 {
		return
	}
	at, last := s.heapAt-1, len(ts.heap)-1
	ts.swap(at, last)
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	s.heapAt, s.wakeAt = 0, 0
	if at < last {
		ts.up(at)
		ts.down(at)
	}
}

// pop takes out a service whose time has come; nil when there is none.
func (ts *timers) pop(now int64) *svc {
	if len(ts.heap) == 0 || ts.heap[0].wakeAt > now {
		return nil
	}
	s := ts.heap[0]
	ts.remove(s)
	return s
}

// wait is the time until the first is due.
func (ts *timers) wait(now int64) time.Duration {
	if len(ts.heap) == 0 {
		return waitMax
	}
	return min(max(time.Duration(ts.heap[0].wakeAt-now), 0), waitMax)
}

func (ts *timers) swap(i, j int) {
	h := ts.heap
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i+1, j+1
}

func (ts *timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if ts.heap[parent].wakeAt <= ts.heap[i].wakeAt {
			return
		}
		ts.swap(i, parent)
		i = parent
	}
}

func (ts *timers) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(ts.heap); c++ {
			if ts.heap[c].wakeAt < ts.heap[least].wakeAt {
				least = c
			}
		}
		if least == i {
			return
		}
		ts.swap(i, least)
		i = least
	}
}
