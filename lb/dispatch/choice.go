package dispatch

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/lb/pool"
)

// Result is what became of a connection or a request.
type Result uint8

// The results.
const (
	Unjudged    Result = iota // the client left, or it says nothing of the instance
	OK                        // an answer that is no failure of the instance
	Failed                    // a 5xx, a reset, a gRPC status that blames the server
	Unreachable               // no connection could be made
	TimedOut                  // no answer came in time
)

// Outcome is a Result and how long it took.
type Outcome struct {
	Result Result
	// Latency is the time to the first octet of the answer; 0: not known.
	Latency time.Duration
}

// Choice is an instance chosen for one connection or request, and its place in
// flight there, until Done.
type Choice struct {
	i *instance
	t *term
	// trial says that it is the one request by which an ejected instance may
	// return.
	trial bool
}

// Valid reports whether the Choice is one that Choose returned.
func (c Choice) Valid() bool { return c.i != nil }

// Addr is where to connect.
func (c Choice) Addr() netip.AddrPort { return c.i.addr }

// ID is the instance's id.
func (c Choice) ID() string { return c.i.id }

// AddBytes counts octets that came from the client and went to it.
func (c Choice) AddBytes(in, out int64) {
	c.i.in.Add(in)
	c.i.out.Add(out)
}

// OnEnd has f called when the instance's time ends, on a goroutine of the
// Dispatcher that f must not block; where it has ended already, at once on the
// caller's. It is called once, but for EndDrain: another end may follow, when
// the instance is deregistered, or is no longer drained and is down. stop takes
// that back; f may be running when it returns.
func (c Choice) OnEnd(f func(End)) (stop func()) { return c.t.onEnd(f) }

// End says whether and how the instance's time has ended.
func (c Choice) End() End { return c.t.ending() }

// Answered says that a good answer has begun, where Done comes much later: with
// it an ejected instance returns, and not with the end of a connection that may
// last for days.
func (c *Choice) Answered() {
	if c.trial {
		c.trial = false
		c.i.b.endTrial(c.i, OK, time.Now())
	}
}

// failureEvery is how often a failing instance is reported at most.
const failureEvery = 100 * time.Millisecond

// Done gives the place in flight back and says what became of the request. It
// is to be called exactly once.
func (c Choice) Done(o Outcome) {
	i, b := c.i, c.i.b
	i.load.Active.Add(-1)
	b.active.Add(-1)
	now := time.Now()
	failed := o.Result >= Failed
	switch {
	case o.Result == Unjudged:
	case failed:
		i.failures.Add(1)
		i.failedRound.Add(1)
		i.observe(o.Latency, true, now)
		b.tellFailure(i, now)
		if i.row.Add(1) == b.d.outlier.Consecutive && b.d.outlier.Consecutive > 0 {
			b.round(now, false)
		}
	default:
		i.okRound.Add(1)
		i.observe(o.Latency, false, now)
		if i.row.Load() != 0 {
			i.row.Store(0)
		}
	}
	if c.trial {
		b.endTrial(i, o.Result, now)
	}
}

// tellFailure reports a failure to the pool, now and then.
func (b *Backend) tellFailure(i *instance, now time.Time) {
	ns, told := now.UnixNano(), i.told.Load()
	if ns-told < int64(failureEvery) || !i.told.CompareAndSwap(told, ns) {
		return
	}
	b.d.cfg.Pool.ObservePassive(pool.Passive{Source: i.home.service.source, Service: i.home.service.name, Instance: i.home.id, Failed: true})
}

// TriedMax is how many instances a Tried holds: a client that has failed with
// so many is not helped by another.
const TriedMax = 8

// Tried is the instances that a request has failed with. Zero is none.
type Tried struct {
	list [TriedMax]*instance
	n    int
}

// Add notes a Choice; beyond TriedMax the oldest is forgotten.
func (t *Tried) Add(c Choice) {
	t.list[t.n%TriedMax] = c.i
	t.n++
}

// Len is how many were added.
func (t *Tried) Len() int { return t.n }

func (t *Tried) has(i *instance) bool {
	return t != nil && slices.Contains(t.list[:min(t.n, TriedMax)], i)
}

// HashAddr is the Request.Hash of a client's address, the port left out.
func HashAddr(a netip.Addr) uint64 {
	b := a.Unmap().As16()
	return HashString(string(b[:]))
}

// HashString is the Request.Hash of a cookie's or header's value. It is the
// same in every process.
func HashString(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}
