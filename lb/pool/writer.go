package pool

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// writer is the state behind the View. All of it is owned by Run.
type writer struct {
	pool       *Pool
	sources    map[registry.SourceID]*source
	def        CheckDefaults
	reverse    bool
	localities []Locality
	hold       time.Duration // of removals when too many fall at once
	targets    targets
	addrs      addressIndex
	lists      listings
	timers     timers
	dirty      []*svc
	waiters    []*waiter // for revisions
	seed       uint64    // of round robin's starting points
	build      builder
	judged     []instance // room for judge
	leaving    []leaving  // what answers end with the publication to come
	signs      []sign     // scratch
	arrived    time.Time  // when the batch came that is being applied
	sharing    sharing
	began      int64 // ns since 1970
}

// source is what the writer knows of one source.
type source struct {
	cfg       Source
	view      *SourceView
	common    *settings // of services without settings of their own
	services  map[string]*svc
	members   map[string]registry.Member
	routes    map[string]registry.Route
	problems  map[string]registry.Problem
	ignored   int      // of problems, those of records that are used
	dropped   int      // problems beyond ProblemsMax
	pages     []packed // of a complete state that is still coming
	revision  int64
	round     uint32 // of complete states, for telling what they lack
	instances int
	live      bool  // a complete state of the source itself was applied
	alone     bool  // its instances are judged by this server's checks alone
	away      bool  // alone since the source is stale, and was shared before
	settleAt  int64 // until when it stays so, to let all servers tell what they found meanwhile
	churn     churn
	content   bool // what the zone contains has changed since the last serial
	told      string
	signs     map[signKey]sign  // of failures, by what other servers report
	failures  map[*svc]failures // of each service that had one

	// What becomes visible once the services are published.
	asOf     int64
	snapshot bool
}

// svc is one service name: registered, or an ancestor of one that is.
type svc struct {
	src      *source
	name     string
	settings *settings
	insts    []inst // sorted by id
	own      *registry.Service
	admin    map[string]registry.Admin // immutable once published: replaced, not written
	loads    map[string]*load
	reports  map[string][]report // of all checkers, by instance
	seqs     map[seqKey]*atomic.Uint64
	crowd    *Crowd // nil: none was needed yet
	filters  filterList
	pub      *Service
	hidden   string // why the service is not answered; empty: it is
	wakeAt   int64  // ns since 1970; 0: never
	heapAt   int    // place in timers, 1 the first; 0: none
	stepAt   int64  // of the next step of the load factors; 0: none
	children int    // names right below that exist
	round    uint32
	mode     Mode
	dirty    bool
	linked   bool // counted in its parent's children
	frozen   bool // health does not move its answers
	// frozenLikeAll says that it is by the word on all services.
	frozenLikeAll bool
	regroup       bool // who is registered, or what filters choose, has changed
	retune        bool // settings have changed
}

// inst is the writer's state of one instance. There are a million of them: what
// few of them have is elsewhere.
type inst struct {
	rec         record
	uses        *use // of targets; nil: this server checks nothing of it
	revision    int64
	cachedUntil int64        // when the last answer without it that caches may hold ends, ns since 1970
	unsteady    *unsteady    // nil: it has none of that
	round       uint8        // of source.round the low bits: what a state lacks goes before they come round
	health      health.State // as of the last rebuild, for telling changes
	admin       registry.AdminState
	in          bool
	fresh       bool         // registered since the last rebuild
	late        bool         // registered after the source's first state
	impossible  bool         // a check cannot be run
	watched     bool         // it has checks
	beats       bool         // one of them is a heartbeat, which comes to any server
	mine        bool         // watched by this server: targets are its checks
	stuck       bool         // stuckAt has a say
	stuckAt     health.State // what the own checks said when they became the only ones
	own         health.State // what they said at the last rebuild; unknown while not mine
	said        health.State // what the other servers were told
	moved       health.State // what the answers go by
	kept        kept
}

func (w *writer) init(p *Pool, seed uint64) {
	w.pool = p
	w.seed = seed
	w.sources = map[registry.SourceID]*source{}
	w.targets = targets{checker: p.cfg.Checker}
	w.addrs.init(&p.view)
	w.lists.init(&p.view)
	w.sharing.me = -1
	w.began = time.Now().UnixNano()
}

// configure puts settings in force. Sources that are gone take their services
// with them.
func (w *writer) configure(s Settings, now time.Time) {
	w.def, w.hold = s.Health.withDefaults(), s.ChurnHold
	w.localities = s.Localities
	views := []*SourceView{}
	gone := maps.Clone(w.sources)
	for i := range s.Sources {
		cfg := s.Sources[i]
		cfg.TTL = cmp.Or(cfg.TTL, ttlDefault)
		src := w.sources[cfg.ID]
		if src != nil && src.cfg.Zone != cfg.Zone {
			w.clear(src, now) // another zone: nothing of the old one may show in it
			w.flush(now)
			src = nil
		}
		if src == nil {
			src = &source{
				view:  &SourceView{view: &w.pool.view, id: cfg.ID, apex: apexWire(cfg.Zone)},
				alone: true, services: map[string]*svc{}, members: map[string]registry.Member{}, routes: map[string]registry.Route{}, problems: map[string]registry.Problem{},
			}
			src.view.serial.Store(cfg.Serial)
			src.view.raiseSerial(now)
			w.sources[cfg.ID] = src
		}
		delete(gone, cfg.ID)
		src.cfg = cfg
		src.view.staleAfter.Store(int64(cmp.Or(s.StaleAfter, staleAfterDefault)))
		src.view.maxStale.Store(int64(s.MaxStale))
		src.view.ttl.Store(clampTTL(cfg.TTL))
		src.common = newSettings(src, "", nil)
		for len(views) <= int(cfg.ID) {
			views = append(views, nil)
		}
		views[cfg.ID] = src.view
		for _, sv := range src.services {
			w.retune(sv)
		}
	}
	w.pool.view.clock.Store(now.UnixNano())
	w.pool.view.sources.Store(&views)
	for id, src := range gone {
		w.clear(src, now)
		delete(w.sources, id)
	}
	if w.reverse != s.Reverse {
		w.reverse = s.Reverse
		w.reindex()
	}
	w.flush(now)
}

// clear removes all that a source has registered.
func (w *writer) clear(src *source, now time.Time) {
	src.round++
	src.churn, src.live = churn{}, false // nothing of it is held
	w.setAdmin(src, nil)
	w.sweep(src, now)
}

// retune reads a service's settings anew and moves its checks along.
func (w *writer) retune(s *svc) {
	old := s.settings
	s.settings = s.src.settingsFor(s.name, s.own)
	s.retune = true
	w.mark(s)
	if old == nil {
		return
	}
	for i := range s.insts {
		w.setTargets(s, &s.insts[i], s.insts[i].health)
	}
}

// mark puts s on the list of services to be rebuilt.
func (w *writer) mark(s *svc) {
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s)
	}
}

// service finds a name, and makes it when it is new.
func (w *writer) service(src *source, name string) *svc {
	s := src.services[name]
	if s == nil {
		s = &svc{src: src, name: name, settings: src.settingsFor(name, nil), retune: true}
		src.services[name] = s
	}
	return s
}

// Run is the writer. It returns when ctx has ended, with its error.
func (p *Pool) Run(ctx context.Context) error {
	if !p.running.CompareAndSwap(false, true) {
		panic("pool: Run was called twice")
	}
	defer close(p.stopped)
	tick := time.NewTicker(clockStep)
	defer tick.Stop()
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-p.in:
			p.w.apply(&b, time.Now())
		case f := <-p.asks:
			p.w.drain() // who has sunk a batch and then asks sees it
			p.w.flush(time.Now())
			f()
		case <-p.wake:
			p.w.drainNotified()
		case <-wake.C:
		case now := <-tick.C:
			p.w.tick(now)
		}
		p.w.drain()
		now := time.Now()
		p.w.due(now.UnixNano())
		p.w.flush(now)
		if p.w.doubt(now) || p.w.restrain(now) {
			p.w.flush(now)
		}
		p.w.release()
		wake.Reset(p.w.timers.wait(now.UnixNano()))
	}
}

// drain takes in what has come meanwhile, so that it makes one rebuild. What
// comes during the draining of a full queue is left for the next round.
func (w *writer) drain() {
	for range queueMax {
		select {
		case b := <-w.pool.in:
			w.apply(&b, time.Now())
		case <-w.pool.wake:
			w.drainNotified()
		default:
			return
		}
	}
}

// drainNotified marks the services of the targets that have changed.
func (w *writer) drainNotified() {
	w.pool.mu.Lock()
	notified := w.pool.notified
	w.pool.notified = make(map[health.Target]observation, min(len(notified), 64))
	var passive map[passiveKey]passiveSeen // never the one that is written to meanwhile
	if len(w.pool.passive) > 0 {
		passive, w.pool.passive = w.pool.passive, map[passiveKey]passiveSeen{}
	}
	w.pool.mu.Unlock()
	for k, seen := range passive {
		w.seePassive(k, seen, time.Now())
	}
	for t, o := range notified {
		id, there := w.targets.find(t)
		if !there {
			continue
		}
		if o.loaded {
			w.observe(id, o.load, time.Now())
		}
		if w.targets.refresh(id) {
			for s := range w.targets.users(id) {
				w.mark(s)
			}
		}
	}
}

// tick renews the View's clock and tells of sources that have become stale.
func (w *writer) tick(now time.Time) {
	w.pool.view.clock.Store(now.UnixNano())
	for _, src := range w.sources {
		w.tellFreshness(src, now)
	}
	w.reshare(now)
}

// tellFreshness makes an event of a change of a source's freshness.
func (w *writer) tellFreshness(src *source, now time.Time) {
	f, age := src.view.Freshness(now.UnixNano())
	state := f.String()
	if f == Stale && src.view.snapshot.Load() {
		state = "snapshot"
	}
	if state == src.told {
		return
	}
	from := src.told
	src.told = state
	if from == "" && f == NotReady {
		return
	}
	w.event(now, src, Event{Kind: EventSource, From: cmp.Or(from, NotReady.String()), To: state})
	level := slog.LevelInfo
	if f == Stale || f == Expired {
		level = slog.LevelWarn
	}
	w.pool.log.LogAttrs(context.Background(), level, "registry state", slog.String("zone", src.cfg.Zone),
		slog.String("from", from), slog.String("to", state), slog.String("age", (time.Duration(age)*time.Second).String()))
}

// due marks the services whose time has come.
func (w *writer) due(now int64) {
	for s := w.timers.pop(now); s != nil; s = w.timers.pop(now) {
		w.mark(s)
	}
}

// flush rebuilds the dirty services and publishes them.
func (w *writer) flush(now time.Time) {
	v := &w.pool.view
	ns := now.UnixNano()
	type change struct {
		s    *svc
		next *Service
	}
	var changes []change
	if len(w.dirty) > 0 {
		v.clock.Store(ns)
	}
	for i := 0; i < len(w.dirty); i++ { //nolint:intrange // settling one may add its parents
		w.settle(w.dirty[i])
	}
	for _, s := range w.dirty {
		s.dirty = false
		if next, changed := w.rebuild(s, now); changed {
			changes = append(changes, change{s, next})
		}
	}
	clear(w.dirty)
	w.dirty = w.dirty[:0]
	if len(changes) > 0 || len(w.addrs.changed) > 0 {
		for _, c := range changes {
			w.publish(c.s, c.next)
		}
		w.addrs.publish(&w.pool.counts)
		w.lists.publish(&w.pool.counts)
		w.pool.counts.tableRebuilds.Store(v.services.rebuilds + v.addresses.rebuilds + v.listings.rebuilds)
		w.pool.shown.wake()
	}
	w.measure()
	for _, src := range w.sources {
		if src.content {
			src.content = false
			src.view.raiseSerial(now)
		}
		if src.asOf > src.view.asOf.Load() || src.snapshot != src.view.snapshot.Load() {
			src.view.snapshot.Store(src.snapshot)
			src.view.asOf.Store(src.asOf)
			w.tellFreshness(src, now)
		}
	}
}

// publish replaces the visible form of a service; nil removes it.
func (w *writer) publish(s *svc, next *Service) {
	v := &w.pool.view
	answered := int64(0)
	if next != nil {
		v.services.put(next)
		if !next.ancestor {
			answered++
		}
	} else if s.pub != nil {
		v.services.remove(s.pub)
	}
	if s.pub != nil && !s.pub.ancestor {
		answered--
	}
	s.src.view.services.Add(answered)
	w.lists.replace(s.pub, next)
	s.pub = next
	w.forget(s)
}

// forget drops a name of which nothing is left.
func (w *writer) forget(s *svc) {
	if s.pub == nil && !s.exists() && s.children == 0 && len(s.admin) == 0 && len(s.loads) == 0 && len(s.reports) == 0 {
		w.timers.remove(s)
		delete(s.src.services, s.name)
		delete(s.src.failures, s)
	}
}

// exists reports whether the name is registered, in itself.
func (s *svc) exists() bool { return len(s.insts) > 0 || s.own != nil }

// find returns the place of an instance and whether it is there.
func (s *svc) find(id string) (int, bool) {
	if n := len(s.insts); n == 0 || string(s.insts[n-1].rec.id()) < id {
		return n, false // states come sorted: the usual case of a load
	}
	return slices.BinarySearchFunc(s.insts, id, func(i inst, id string) int {
		return cmp.Compare(string(i.rec.id()), id)
	})
}

// fitMax is up to how many instances a service has no room for more: most
// services are small, and the room that append leaves is half of what they take.
// Of a large one it is a quarter, and a copy costs more.
const fitMax = 256

// fit gives back the room that instances have left in s.insts.
func (s *svc) fit() {
	if n := len(s.insts); n <= fitMax && cap(s.insts) > n {
		s.insts = append(make([]inst, 0, n), s.insts...)
	}
}

// event adds an event of a source.
func (w *writer) event(now time.Time, src *source, e Event) {
	e.At = now
	e.Source = src.cfg.ID
	w.pool.events.add(e)
}

// load is what is known of one instance's load.
type load struct {
	report   registry.Load
	round    uint32
	smoothed float64
	factor   float64
	shared   *lb.Load
}
