package dispatch

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb"
)

// End is why an instance's time has ended. Zero is not yet.
type End uint8

// The ends.
const (
	EndNone  End = iota
	EndDown      // its checks fail, and it may not be served
	EndDrain     // an administrator drains it, or has it in maintenance
	EndGone      // it is no longer registered at that address
)

// String is the end in words.
func (e End) String() string {
	switch e {
	case EndNone:
		return "in"
	case EndDown:
		return "failing"
	case EndDrain:
		return "draining"
	case EndGone:
		return "deregistered"
	default:
		return "invalid"
	}
}

// instance is what proxies know of one instance of a Backend. It lives as long
// as the instance is registered at its address, and longer for the Choices that
// have it.
type instance struct {
	id   string
	home home
	addr netip.AddrPort
	b    *Backend

	load      lb.Load // Active, Cost
	total     atomic.Int64
	failures  atomic.Int64
	ejections atomic.Int64
	in, out   atomic.Int64 // octets from and to the instance's clients
	costAt    atomic.Int64 // ns since 1970

	// Of the round of outlier detection, and what came of it.
	okRound, failedRound, row atomic.Uint32
	ejection                  ejection

	told       atomic.Int64 // when a failure was last reported, ns since 1970
	toldSilent atomic.Int64 // and when a silence was
	term       atomic.Pointer[term]
}

// term is one time of an instance, from when it came in to its end.
type term struct {
	mu    sync.Mutex
	end   End
	hooks map[*hook]struct{}
}

// hook is one function to be called at a term's end.
type hook struct{ f func(End) }

// onEnd has f called at the term's end, or at once where it has ended; and once
// more when an instance that drains goes down or away.
func (t *term) onEnd(f func(End)) (stop func()) {
	h := &hook{f}
	t.mu.Lock()
	end := t.end
	if end == EndNone || end == EndDrain {
		if t.hooks == nil {
			t.hooks = map[*hook]struct{}{}
		}
		t.hooks[h] = struct{}{}
	}
	t.mu.Unlock()
	if end != EndNone {
		f(end)
	}
	return func() {
		t.mu.Lock()
		delete(t.hooks, h)
		t.mu.Unlock()
	}
}

// finish ends the term, also one that drains already in another way, and returns
// what is to be called.
func (t *term) finish(end End) []*hook {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end == end || t.end != EndNone && t.end != EndDrain {
		return nil
	}
	hooks := slices.Collect(maps.Keys(t.hooks))
	if t.end = end; end != EndDrain {
		t.hooks = nil
	}
	return hooks
}

// resume takes the draining of a term back; false: it has ended for good.
func (t *term) resume() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end == EndDrain {
		t.end = EndNone
	}
	return t.end == EndNone
}

// costTau is the time in which a cost forgets to 1/e what was (Envoy's decay
// time), costTimeout what an answer that never came counts as at least.
const (
	costTau     = 10 * time.Second
	costTimeout = time.Second
)

// observe folds a latency into the instance's cost. Of two that do so at one
// time one may be lost.
func (i *instance) observe(latency time.Duration, failed bool, now time.Time) {
	if failed {
		latency = max(latency, costTimeout) // or fast failures would attract
	}
	if latency <= 0 {
		return
	}
	ns := now.UnixNano()
	elapsed := time.Duration(ns - i.costAt.Swap(ns))
	cost := math.Float64frombits(i.load.Cost.Load())
	i.load.Cost.Store(math.Float64bits(lb.PeakCost(cost, latency.Seconds(), elapsed, costTau)))
}

// decay lets the cost of an instance that nobody asks fade, so that it is asked
// again.
func (i *instance) decay(now time.Time) {
	ns, at := now.UnixNano(), i.costAt.Load()
	if at == 0 || ns-at < int64(tick) || !i.costAt.CompareAndSwap(at, ns) {
		return
	}
	cost := math.Float64frombits(i.load.Cost.Load())
	i.load.Cost.Store(math.Float64bits(lb.PeakCost(cost, 0, time.Duration(ns-at), costTau)))
}
