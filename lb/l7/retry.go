package l7

import (
	"sync"
	"time"

	"github.com/musterdns/muster/lb/l7/http1"
)

const (
	// retryShare of the requests in flight may be retries (Envoy's
	// retry_budget), or retryMin where few are in flight: a service that fails
	// under load is not asked twice for everything.
	retryShare = 5 // a fifth
	retryMin   = 3
	// retryWait is how long a retry waits for its turn while the budget is
	// spent. Failures come in bursts: those of a dead instance's whole queue are
	// over in a moment, and none needs to fail for it.
	retryWait = time.Second
	// retryQueue bounds how many wait.
	retryQueue = 10_000
)

// gate lets as many retries of a backend through as its budget allows.
type gate struct {
	mu      sync.Mutex
	now     int64
	waiting []chan struct{}
}

// enter waits for a turn; false: it did not come in time. It is given back by
// leave.
func (g *gate) enter(active int64) bool {
	g.mu.Lock()
	if g.now < max(retryMin, active/retryShare) {
		g.now++
		g.mu.Unlock()
		return true
	}
	if len(g.waiting) >= retryQueue {
		g.mu.Unlock()
		return false
	}
	turn := make(chan struct{}, 1)
	g.waiting = append(g.waiting, turn)
	g.mu.Unlock()
	timer := time.NewTimer(retryWait)
	defer timer.Stop()
	select {
	case <-turn:
		return true
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range g.waiting {
		if w == turn {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return false
		}
	}
	return true // the turn came with the end of the time
}

// leave gives a turn back, to who waits longest.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		g.waiting[0] <- struct{}{} // has room for one, and gets one
		g.waiting = g.waiting[1:]
		return
	}
	g.now--
}

// idempotent reports whether a method may be sent twice (RFC 9110 section
// 9.2.2).
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	default:
		return false
	}
}

// repeatable reports whether the request may reach two instances: its method
// allows it, or somebody who knows says so, and its body can be sent again.
func (x *exchange) repeatable() bool {
	if x.payload.begun {
		return false
	}
	if idempotent(x.req.Method) || x.target.route.RetryPost {
		return true
	}
	_, ok := http1.FindKnown(x.req.Fields, http1.IdempotencyKey)
	return ok
}
