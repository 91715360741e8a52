// Package app is the composition root: it builds a server out of the other
// packages, runs its parts as one group, reloads the configuration, and stops
// everything in order.
//
// Start: the snapshot is applied and static zones are loaded, the listeners
// are bound, then etcd is watched. DNS begins to answer once every service
// zone has a state, or after listenGrace without one: static zones must not
// wait for etcd. Ready is a server that has every state. Stop: readiness is
// withdrawn, the listeners finish what is in flight, the last snapshot is
// written, the registry connection ends last.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/demo"
	"github.com/musterdns/muster/cmd/internal/handover"
	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/dnsserver/notify"
	"github.com/musterdns/muster/dnsserver/push"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/lb/locality"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/etcd/embedded"
	"github.com/musterdns/muster/zones/service"
)

const (
	// listenGrace is how long DNS waits for the first complete state of the
	// service zones before it answers SERVFAIL for them and serves the rest.
	listenGrace = 500 * time.Millisecond
	// firstRoundMax bounds how long readiness waits for the first round of
	// checks.
	firstRoundMax = time.Second
	// memberTTL is how long a server that died stays listed as a member.
	memberTTL = 10 * time.Second
)

// Options is what a server is started with.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for a reload; nil: it cannot be.
	Load    func() (*config.Config, config.Problems)
	Dev     bool   // sample instances run, and loopback may be checked
	Proxy   bool   // the proxy alone: no DNS is answered
	Version string // of the program
	// Stderr takes the log; nil: nobody does.
	Stderr io.Writer
	// Started is called once the server answers; nil: nobody waits.
	Started func(Endpoints)
	// Reload starts a reload each time something is received.
	Reload <-chan os.Signal
	// Upgrade starts this program anew each time something is received, hands
	// it the sockets, and stops once it answers.
	Upgrade <-chan os.Signal
	// Sockets are what the process before this one has handed over; nil: none.
	Sockets *handover.Set
}

// Endpoints is where a server that runs can be reached.
type Endpoints struct {
	DNS   []string
	Proxy []string // the proxy's listeners
	Admin string
	Etcd  []string
	Zones []string // the service zones
}

// server is one running Muster.
type server struct {
	opt     Options
	log     *slog.Logger
	level   *slog.LevelVar
	started time.Time

	cfg     atomic.Pointer[config.Config] // in force; reload writes
	refused atomic.Pointer[[]string]      // problems of a newer configuration; reload writes
	loaded  atomic.Int64                  // when cfg was, unix nanoseconds

	reloadsDone, reloadsFailed    atomic.Uint64
	reportsWritten, reportsFailed atomic.Uint64
	alone                         atomic.Pointer[string] // why it is not among the members; nil: it is, or has not tried

	etcd      *embedded.Server // nil in mode etcd
	client    *etcd.Client
	endpoints []string
	sources   []source // the service zones, in the configuration's order
	cluster   *etcd.Source
	// ownCookies is a secret of DNS cookies that no other server knows.
	ownCookies cookie.Secret
	peers      peers

	pool      *pool.Pool
	monitor   *health.Monitor
	prober    *probe.Set
	authority *authority.Handler
	notifier  *notify.Notifier
	push      *push.Hub
	// signaturesEvicted counts signatures that gave way to others.
	signaturesEvicted atomic.Uint64
	encrypted         encrypted
	networks          atomic.Pointer[locality.Table] // of the proxies' clients; nil: there are none
	dns               *dnsserver.Server              // neither listens nor runs under Options.Proxy
	proxies           *proxies
	admin             *admin.Server
	metrics           *metrics.Registry
	checks            checkCounts
	samples           *demo.Set
	snapshots         *snapshots

	ready   atomic.Bool
	leaving atomic.Bool            // a lame duck
	reason  atomic.Pointer[string] // what readiness waits for
}

// source is one service zone's connection to its keys.
type source struct {
	zone    string
	etcd    *etcd.Source     // its own keys: what is written goes there
	foreign *etcd.Foreign    // what others write; nil: there is none
	sky     *service.SkyTree // source skydns: the records
	feed    registry.Watcher // everything that it is made from
}

// stats are what is known of all that the source is made from.
func (s *source) stats() etcd.Stats {
	all := s.etcd.Stats()
	if s.foreign != nil {
		more := s.foreign.Stats()
		all.Revision = max(all.Revision, more.Revision)
		all.Problems += more.Problems
		all.Lists += more.Lists
		all.Events += more.Events
		all.Rollbacks += more.Rollbacks
	}
	return all
}

// Run runs a server until ctx ends; it then stops in order and returns nil.
func Run(ctx context.Context, o Options) error {
	s := &server{opt: o, started: time.Now(), level: new(slog.LevelVar)}
	s.peers = peers{server: s, self: etcd.NewMemberName(o.Config.Node), members: map[string]registry.Member{}}
	s.cfg.Store(o.Config)
	s.loaded.Store(s.started.UnixNano())
	s.log = newLogger(o.Stderr, o.Config.Log, s.level)
	s.waitFor("the start")
	defer s.close()
	if err := s.build(ctx); err != nil {
		return err
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	return s.run(ctx)
}

// waitFor says what readiness waits for.
func (s *server) waitFor(what string) { s.reason.Store(&what) }

// listen binds every listener, so that a busy port is told before anything
// else is done.
func (s *server) listen(ctx context.Context) error {
	if !s.opt.Proxy {
		if err := s.dns.Listen(); err != nil {
			return notListening("dns.listen", err)
		}
		if err := s.encrypted.listen(); err != nil {
			return err
		}
	}
	if err := s.listenProxies(ctx); err != nil {
		return notListening("proxy.listeners", err)
	}
	return notListening("admin.listen", s.admin.Listen(ctx))
}

// notListening adds to an error of a listener what is likely to mend it; nil
// stays nil.
func notListening(key string, err error) error {
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		return err
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program listens there: end it, or set %s to another address", err, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this machine has that address: set %s to one that has", err, key)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 are for root and for programs with CAP_NET_BIND_SERVICE: give it that, or set %s to another port", err, key)
	}
	return err
}

// run starts every part and waits for the first that ends, then for all.
//
// Two groups: what answers and what feeds it. The feeding parts stop last, so
// that queries in flight find the view they need and the last snapshot can
// still ask the pool.
func (s *server) run(ctx context.Context) error {
	feed, stopFeeding := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFeeding()
	feeders, feed := errgroup.WithContext(feed)
	feeders.Go(func() error { return s.pool.Run(feed) })
	feeders.Go(func() error { return s.prober.Run(feed) })
	feeders.Go(func() error { return s.monitor.Run(feed) })
	feeders.Go(func() error { return s.proxies.dispatch.Run(feed) })
	if err := s.applySnapshot(feed); err != nil {
		s.log.Warn("the snapshot was not used", "error", err)
	}
	if s.etcd != nil {
		feeders.Go(func() error { return s.etcd.Run(feed) })
	}
	for i := range s.sources {
		feeders.Go(func() error { return s.watch(feed, &s.sources[i]) })
	}
	if s.cluster != nil && s.sourceZone(s.cluster.ID()) == "" {
		feeders.Go(func() error { return s.watchCluster(feed) })
	}

	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	front, frontCtx := errgroup.WithContext(stopping)
	front.Go(func() error {
		s.linger(ctx, frontCtx)
		stop()
		return nil
	})
	front.Go(func() error { return s.admin.Run(frontCtx) })
	front.Go(func() error { return s.answer(frontCtx) })
	front.Go(func() error { return s.reloads(frontCtx) })
	front.Go(func() error { return s.upgrades(frontCtx, stop) })
	front.Go(func() error { return s.snapshots.run(frontCtx) })
	front.Go(func() error { return s.join(frontCtx) })
	if !s.opt.Proxy {
		front.Go(func() error { return s.notifier.Run(frontCtx) })
		front.Go(func() error { return s.push.Run(frontCtx) })
		if s.cluster != nil {
			front.Go(func() error { return s.shareCookies(frontCtx) })
		}
	}
	if s.opt.Dev {
		front.Go(func() error { return s.registerSamples(frontCtx) })
	}
	front.Go(func() error { // a feeding part that fails ends the server
		select {
		case <-feed.Done():
			return context.Cause(feed)
		case <-frontCtx.Done():
			return nil
		}
	})
	err := front.Wait()
	s.ready.Store(false)
	stopFeeding()
	if ferr := feeders.Wait(); ferr != nil && !errors.Is(ferr, context.Canceled) {
		err = ferr
	}
	if errors.Is(err, context.Canceled) && stopping.Err() != nil {
		return nil
	}
	return err
}

// linger waits for the order to stop, and then for the time of a lame duck: the
// server says that it is not ready, asks its proxies' clients to go elsewhere, and
// goes on with all that it does. It returns early when running ends.
func (s *server) linger(ordered, running context.Context) {
	select {
	case <-ordered.Done():
	case <-running.Done():
		return
	}
	left := s.cfg.Load().Admin.LameDuck
	if left == 0 {
		return
	}
	s.leaving.Store(true)
	s.notify("STOPPING=1")
	for _, h := range s.proxies.now.Load().http {
		h.proxy.Leave()
	}
	s.log.Info("stopping: not ready any more, and answering all the same", "for", left)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-running.Done():
	}
}

// watch follows one source for as long as the server runs.
func (s *server) watch(ctx context.Context, src *source) error {
	err := src.feed.Watch(ctx, s.sink(ctx, src.etcd.ID()))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watching zone %s: %w", src.zone, err)
}

// answer serves DNS from the moment that there is something to answer, and
// tells when the server is ready.
func (s *server) answer(ctx context.Context) error {
	s.waitFor("the first state from the registry")
	grace, cancel := context.WithTimeout(ctx, listenGrace)
	s.awaitState(grace) // what is late is SERVFAIL until it comes
	cancel()
	if ctx.Err() != nil {
		return nil
	}
	parts, ctx := errgroup.WithContext(ctx) // its failure ends the waiting too
	if !s.opt.Proxy {
		parts.Go(func() error { return s.dns.Run(ctx) })
		parts.Go(func() error { return s.encrypted.run(ctx) })
	}
	parts.Go(func() error { return s.runProxies(ctx) })
	if s.opt.Started != nil {
		s.opt.Started(s.reachable())
	}
	s.log.Info("answering", "dns", s.dns.Addrs(), "admin", s.admin.Addr(), "zones", len(s.cfg.Load().Zones))
	s.awaitState(ctx) // a server that answers SERVFAIL for a zone is not ready
	s.waitFor("the first round of checks")
	select {
	case <-s.monitor.FirstRound():
	case <-time.After(firstRoundMax):
	case <-ctx.Done():
	}
	s.ready.Store(ctx.Err() == nil)
	if err := s.opt.Sockets.Ready(); err != nil {
		s.log.Error("telling the process before this one to stop failed; stop it by hand", "error", err)
	}
	s.notify("READY=1")
	return parts.Wait()
}

// awaitState returns when every service zone has a state, or with ctx.
func (s *server) awaitState(ctx context.Context) {
	for i := range s.sources {
		_ = s.pool.WaitFor(ctx, s.sources[i].etcd.ID(), 0) // fails with ctx alone
	}
}

// join keeps this server listed among the members of its registry. Without
// etcd it goes on alone; the lease is taken when etcd is there.
func (s *server) join(ctx context.Context) error {
	if s.cluster == nil {
		return nil
	}
	member := registry.Member{
		Name: s.peers.self, Address: "http://" + s.admin.Addr().String(), Version: s.opt.Version, Since: s.started.UTC().Truncate(time.Second),
	}
	var lease registry.Lease
	for lease == nil {
		var err error
		if lease, err = s.cluster.HoldMember(ctx, member, memberTTL); err != nil {
			s.cannotJoin(err)
			pause(ctx, time.Second)
		}
		if ctx.Err() != nil && lease == nil {
			return nil
		}
	}
	s.alone.Store(nil)
	err := s.report(ctx, lease, member)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := lease.Revoke(end); err != nil {
		s.log.Debug("leaving the members failed; the lease expires by itself", "error", err)
	}
	return ended(ctx, err)
}

// cannotJoin notes why this server is not among the members, which somebody has to mend
// unless etcd is only away.
func (s *server) cannotJoin(err error) {
	text := err.Error()
	if before := s.alone.Swap(&text); before == nil && s.client.Err() == nil {
		s.log.Warn("this server cannot list itself among the others of its registry, and checks alone",
			"error", text, "mend", s.aloneMend(text))
	}
}

// pause waits for d or the context's end.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// reachable says where the server can be reached.
func (s *server) reachable() Endpoints {
	e := Endpoints{Admin: "http://" + s.admin.Addr().String(), Etcd: s.endpoints}
	for _, a := range s.dns.Addrs() {
		e.DNS = append(e.DNS, a.String())
	}
	e.DNS = append(e.DNS, s.urls()...)
	for i := range s.sources {
		e.Zones = append(e.Zones, s.sources[i].zone)
	}
	for _, l := range s.proxyState().Listeners {
		e.Proxy = append(e.Proxy, l.Address)
	}
	return e
}

// close frees what build made, whatever of it there is.
func (s *server) close() {
	if s.samples != nil {
		s.samples.Close()
	}
	if s.client != nil {
		if err := s.client.Close(); err != nil {
			s.log.Debug("closing the registry's connection", "error", err)
		}
	}
}
