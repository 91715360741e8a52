// Package pool joins what is registered with what is healthy: it is the one
// writer of the View that DNS and the proxies answer from.
//
// Watchers hand their batches to a Sink, the health monitor calls Notify, and
// one goroutine, Run, applies both: it keeps what the sources say, decides
// which instances are in, builds the pickers and publishes each service as one
// immutable object. An idle writer applies at once; what arrives while it works
// is the next round; there is no timer in between. What changes by time alone (a slow
// start, a lease that is lost, removals that are held because too many fell at once) has a
// timer of the writer's.
//
// Readers find a service in the View by a hash and one probe, and read its form without a
// lock; who has several questions at once may have what the answers read brought near
// first (View.Warm).
//
// Invariant: a change costs O(size of the service that it touches). Invariant:
// nothing that was published is written again.
package pool

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// ErrStopped is the error of asking a Pool whose Run has returned.
var ErrStopped = errors.New("the pool is not running any more")

// ErrNotFound is the error of asking for a source, service or instance that is
// not there.
var ErrNotFound = errors.New("not found")

// Checker is what the pool needs of health.Monitor. All methods are safe for
// concurrent use and do not wait for a probe. The pool adds each target once
// and removes it when no instance needs it any more; between these it asks for
// it by its ID.
type Checker interface {
	// Add begins to check t, which counts as being in state seed until a
	// verdict is reached.
	Add(t health.Target, seed health.State) health.ID
	Remove(t health.Target)
	Find(t health.Target) (health.ID, bool)
	Target(id health.ID) health.Target
	Verdict(id health.ID) (state health.State, failsAt time.Time)
	Status(t health.Target) (health.Status, bool)
	// Report takes the result of a TypeTTL target; false: it is not there.
	Report(t health.Target, r health.Result) bool
	// Check brings the next check of t nearer, unless it is TypeTTL.
	Check(t health.Target)
}

// nobody is the Checker of a pool that has none: a monitor that never runs.
type nobody struct{ *health.Monitor }

func (nobody) Status(health.Target) (st health.Status, there bool) { return st, false }
func (nobody) Report(health.Target, health.Result) bool            { return false }

func (nobody) Probe(context.Context, health.Target) health.Result {
	panic("pool: a monitor that does not run has probed")
}

// Config configures a Pool.
type Config struct {
	// Settings is what Reload can change.
	Settings Settings
	// Checker runs the checks; nil: instances with checks stay unknown.
	Checker Checker
	// Encode, when not nil, is called by the writer for each service before it
	// is published; Service.Records returns what it returned.
	Encode func(s *Service) any
	// Log takes one line an event that an operator should see; nil: none.
	Log *slog.Logger
}

// Settings is the part of the configuration that can change while the pool
// runs.
type Settings struct {
	// Sources are the sources of records, one for each service zone. Batches
	// of other sources are refused. A source that is absent from new Settings
	// goes with all its services.
	Sources []Source
	// Health fills the zero fields of checks.
	Health CheckDefaults
	// StaleAfter is the age of a source's state from which on answers say that
	// they are stale; 0: 10 s.
	StaleAfter time.Duration
	// MaxStale is the age from which on nothing is answered; 0: never.
	MaxStale time.Duration
	// ChurnHold is how long removals are held when half of a zone falls at
	// once, see health.Mass; 0: they never are.
	ChurnHold time.Duration
	// Localities are where clients may be, by the numbers that Service.Nearest takes, the
	// first being 1: at most LocalitiesMax.
	Localities []Locality
	// Reverse says that the index from addresses to instances is kept.
	Reverse bool
}

// Source configures one source of records: what feeds one service zone.
type Source struct {
	ID   registry.SourceID // not 0
	Zone string            // absolute name of the zone, for people: "svc.internal."
	TTL  time.Duration     // of answers, where nothing nearer says; 0: 5 s
	// OwnTTLs says that an instance may be answered with its own TTL, and not only
	// with the least of a set that it is in: as records of SkyDNS are, by their names.
	OwnTTLs bool
	// Defaults are the policies of the configuration, by name; "*" is for all.
	Defaults []registry.Service
	// Reserved are service names that the zone needs for itself ("ns1"); a
	// service of such a name is a bad record.
	Reserved []string
	// Serial is the zone's last known serial number (from a snapshot), used
	// when the source first appears.
	Serial uint32
	// Seed is the health that an instance had a moment ago, before a restart;
	// nil: nothing is known. It is asked for instances that come before the
	// source's first state of its own, or with it; their checks begin from it.
	Seed func(service, instance string) health.State
}

// CheckDefaults are what checks take where they say nothing themselves. Zero
// fields take the package's defaults.
type CheckDefaults struct {
	Interval     time.Duration // 2 s
	Timeout      time.Duration // 1 s
	FastInterval time.Duration // 500 ms
	Rise         int           // 2
	Fall         int           // 3
}

// Pool is the writer and its View. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	log    *slog.Logger
	view   View
	events *events
	counts counters
	shown  broadcast // something was published

	in       chan packed   // from sinks, bounded by queueMax
	asks     chan func()   // run by the writer between two changes
	stopped  chan struct{} // closed when Run has returned
	running  atomic.Bool   // Run was called
	wake     chan struct{} // 1-slot: notified or passive is not empty
	mu       sync.Mutex    // guards notified and passive
	notified map[health.Target]observation
	passive  map[passiveKey]passiveSeen
	outbox   outbox
	suspect  atomic.Bool

	w writer // owned by Run
}

// queueMax is the number of batches that wait for the writer; more make their
// sinks wait, so that a source is read no faster than it is applied.
const queueMax = 64

// New returns a Pool that does nothing until Run is called. It reports every
// invalid setting.
func New(cfg Config) (*Pool, error) {
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	if cfg.Checker == nil {
		m, err := health.New(health.Config{Prober: nobody{}})
		if err != nil {
			return nil, err
		}
		cfg.Checker = nobody{m}
	}
	p := &Pool{
		cfg:      cfg,
		log:      cfg.Log,
		events:   newEvents(time.Now()),
		in:       make(chan packed, queueMax),
		asks:     make(chan func()),
		stopped:  make(chan struct{}),
		wake:     make(chan struct{}, 1),
		notified: map[health.Target]observation{},
		passive:  map[passiveKey]passiveSeen{},
		outbox:   newOutbox(),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.view.init()
	p.w.init(p, rand.Uint64())
	p.w.configure(cfg.Settings, time.Now())
	return p, nil
}

// View returns the pool's View. It is the same for the Pool's life.
func (p *Pool) View() *View { return &p.view }

// Published returns a channel that is closed when the View has next changed.
// Take it before looking at the View, or a change in between is missed. Many
// changes may be one.
func (p *Pool) Published() <-chan struct{} { return p.shown.wait() }

// Sink returns the function that takes the batches of watchers; any number may
// use it. It copies what it keeps, waits while the writer is behind, and fails
// when ctx ends, the pool has stopped or the batch's source is not known.
func (p *Pool) Sink(ctx context.Context) func(registry.Batch) error {
	return func(b registry.Batch) error {
		if b.Source == 0 {
			return errors.New("applying a batch: it has no source")
		}
		select {
		case p.in <- pack(&b):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-p.stopped:
			return ErrStopped
		}
	}
}

// Notify tells the writer that the status of t has changed. It never blocks;
// several calls for one target before the writer comes to it are one.
func (p *Pool) Notify(t health.Target) {
	p.notify(t, observation{})
}

// ObserveLoad takes a load that came with a check's result (health's
// Config.Load). It never blocks.
func (p *Pool) ObserveLoad(t health.Target, load float64) {
	p.notify(t, observation{load: load, loaded: true})
}

// observation is what a notification brings beside the target.
type observation struct {
	load   float64
	loaded bool
}

// notify is bounded by the number of targets that the Checker has.
func (p *Pool) notify(t health.Target, o observation) {
	p.mu.Lock()
	if old := p.notified[t]; o.loaded || !old.loaded {
		p.notified[t] = o
	}
	p.mu.Unlock()
	p.wakeWriter()
}

// wakeWriter makes the writer look at what it was notified of.
func (p *Pool) wakeWriter() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Reload puts new settings in force. It costs O(all services).
func (p *Pool) Reload(ctx context.Context, s Settings) error {
	if err := s.Validate(); err != nil {
		return err
	}
	return p.ask(ctx, func() { p.w.configure(s, time.Now()) })
}

// ask has f run by the writer between two changes and waits for it.
func (p *Pool) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case p.asks <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.stopped:
		return ErrStopped
	}
	<-done
	return nil
}
