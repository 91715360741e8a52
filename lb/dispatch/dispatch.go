// Package dispatch chooses, for a proxy, the instance that a connection or a
// request goes to, and learns from what became of it. It is what the proxies
// have in common: they read the pool's View as DNS does, with one verdict, one
// rule for panic and one for draining, and add what only who forwards knows:
// how many requests are in flight, how long answers take, and who fails.
//
// A Backend is one service (or a named port or a tag of it) as proxies
// see it; all listeners and routes that name the same share one. Choose picks
// and counts; the Choice is given back with its outcome. Instances whose
// requests fail are ejected for a while (outlier detection), which lowers their
// weight in DNS and brings their checks nearer, but is no verdict: the last
// instance is never ejected. One that is silent for long has its checks brought
// nearer, and no more: it may hang, or have nothing to say yet.
//
// Choosing costs a lookup and a pick. What is built for a Backend is built anew
// when its service was published anew, by the first who chooses or by Run; it
// costs O(instances of the service).
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// The errors of Choose. Each is wrapped with what there is instead.
var (
	// ErrNone: nothing may be served.
	ErrNone = errors.New("no instance may be served")
	// ErrBusy: every instance has as many requests in flight as it may.
	ErrBusy = errors.New("every instance is at its limit")
	// ErrTried: all that may be served were tried.
	ErrTried = errors.New("every instance was tried")
)

// Pool is what a Dispatcher needs of pool.Pool.
type Pool interface {
	View() *pool.View
	Published() <-chan struct{}
	ObservePassive(pool.Passive)
}

// Config configures a Dispatcher.
type Config struct {
	Pool Pool // required
	// Locality says where a client is, by the number that the pool knows it by; 0: it is
	// not known. Nil: nobody's is.
	Locality func(client netip.Addr) uint16
	// Outlier says whom to eject; nil: OutlierDefault.
	Outlier *lb.OutlierRule
	// Log takes one line an ejection and return; nil: none.
	Log *slog.Logger
}

// OutlierDefault is the rule for ejections. The numbers are Envoy's but for two:
// a third of the instances may be ejected and not a tenth, which below 20 would
// be one; and half of the requests failing is enough and not 85 %, which one
// after the other cannot be reached without five in a row.
func OutlierDefault() lb.OutlierRule {
	return lb.OutlierRule{
		Consecutive: 5, FailurePercent: 50, FailureRequests: 50,
		Deviations: 1.9, RateHosts: 5, RateRequests: 100, EjectedPercent: 34,
	}
}

// BackendsMax bounds the Backends of a Dispatcher; Acquire fails beyond.
const BackendsMax = 10_000

// Dispatcher owns the Backends. It is safe for concurrent use.
type Dispatcher struct {
	cfg     Config
	log     *slog.Logger
	outlier lb.OutlierRule
	counts  counters
	nudge   chan struct{} // 1-slot: an end is to be told

	mu       sync.Mutex // guards backends and each Backend's users
	backends map[Ref]*Backend
}

// counters are a Dispatcher's, for metrics.
type counters struct {
	choices, none, busy, ejections, returns, silences atomic.Uint64
}

// Stats are figures of a Dispatcher: counts since the start, and what is now.
type Stats struct {
	Choices   uint64 // that found an instance
	None      uint64 // that found none
	Busy      uint64 // that found all at their limit
	Ejections uint64
	Returns   uint64 // of ejected instances
	Silences  uint64 // of instances, that were told to their checks
	Active    int64  // in flight now
	Ejected   int    // instances ejected now
	Backends  int
}

// New returns a Dispatcher without Backends.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.Pool == nil {
		return nil, errors.New("dispatch: a Dispatcher needs a Pool")
	}
	d := &Dispatcher{cfg: cfg, log: cfg.Log, outlier: OutlierDefault(), nudge: make(chan struct{}, 1), backends: map[Ref]*Backend{}}
	if cfg.Outlier != nil {
		d.outlier = *cfg.Outlier
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}

// Ref names what a Backend is of. It is comparable.
type Ref struct {
	Source  registry.SourceID
	Service string // as registered: "web.prod"
	// Port is a named port; empty: the instances' default port. UDP says of
	// which protocol a named port is.
	Port string
	UDP  bool
	// Tag leaves out instances without that tag; it and Port may not both be set.
	Tag string
}

// Validate reports a Ref that cannot name anything.
func (r Ref) Validate() error {
	switch {
	case r.Source == 0:
		return errors.New("a service to forward to has no source")
	case r.Service == "":
		return errors.New("a service to forward to has no name")
	case r.Port != "" && r.Tag != "":
		return errors.New("service " + r.Service + ": choose by port or by tag, not by both")
	}
	return nil
}

// Acquire returns the Backend of a Ref, which need not be registered (yet).
// Give it back with Release.
func (d *Dispatcher) Acquire(ref Ref) (*Backend, error) {
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.backends[ref]
	if b == nil {
		if len(d.backends) >= BackendsMax {
			return nil, errors.New("too many services to forward to")
		}
		b = newBackend(d, ref)
		d.backends[ref] = b
	}
	b.users++
	return b, nil
}

// Release gives a Backend back. When its last user has and nothing is in flight
// what is known of its instances is forgotten; until then Choices are told of
// their instance's end as before.
func (b *Backend) Release() {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	b.users--
	b.d.drop(b)
}

// drop forgets a Backend that nobody uses. d.mu is held.
func (d *Dispatcher) drop(b *Backend) {
	if b.users == 0 && b.active.Load() == 0 {
		delete(d.backends, b.ref)
		b.forgive()
	}
}

// sweep drops Backends that were in use when they were released.
func (d *Dispatcher) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.backends {
		d.drop(b)
	}
}

// all lists the Backends.
func (d *Dispatcher) all() []*Backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.backends))
}

// Stats returns the present figures.
func (d *Dispatcher) Stats() Stats {
	s := Stats{
		Choices: d.counts.choices.Load(), None: d.counts.none.Load(), Busy: d.counts.busy.Load(),
		Ejections: d.counts.ejections.Load(), Returns: d.counts.returns.Load(), Silences: d.counts.silences.Load(),
	}
	for _, b := range d.all() {
		s.Backends++
		s.Active += b.active.Load()
		s.Ejected += b.ejected()
	}
	return s
}

// tick is how often costs decay and ejections are looked at, and roundTicks
// how many ticks are a round of outlier detection (Envoy's interval, 10 s).
const (
	tick       = time.Second
	roundTicks = 10
)

// Run follows the View, so that who waits for an instance's end is told when it
// comes, and runs outlier detection, until ctx ends; it returns nil.
func (d *Dispatcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := 1; ; {
		changed := d.cfg.Pool.Published()
		for _, b := range d.all() {
			b.refresh()
			b.tellEnds()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-d.nudge:
		case now := <-ticker.C:
			for _, b := range d.all() {
				b.tick(now, n%roundTicks == 0)
			}
			d.sweep()
			n++
		}
	}
}

// wakeRun makes Run look at the Backends.
func (d *Dispatcher) wakeRun() {
	select {
	case d.nudge <- struct{}{}:
	default:
	}
}
