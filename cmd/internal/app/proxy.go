package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
)

// demoListen is where the proxy of muster dev listens; a free port is taken
// when it is busy.
const demoListen = "127.0.0.1:8080"

// proxies is the companion proxy: listeners over one dispatcher.
type proxies struct {
	dispatch *dispatch.Dispatcher
	secret   []byte                      // of sticky cookies; nil: a random one
	now      atomic.Pointer[listenerSet] // reloads alone store once the server runs
	starts   chan []*unit                // to runProxies
	kernel   *kernelProxies              // modes nat and dsr, virtual addresses
	reloaded chan struct{}               // 1-slot: the configuration was read again
	// problems are the routes that cannot be used and why, by name. The map is
	// immutable; followRoutes alone stores.
	problems atomic.Pointer[map[string]string]
}

// httpProxy is one listener of mode http.
type httpProxy struct {
	*unit

	cfg          config.Listener
	proxy        *l7.Proxy
	certificates *l7.Certificates // nil: cleartext
}

// buildProxies makes every listener's proxy.
func (s *server) buildProxies(cfg *config.Config) error {
	d, err := dispatch.New(dispatch.Config{Pool: s.pool, Locality: s.localityOf, Log: s.log.With("part", "proxy")})
	if err != nil {
		return err
	}
	s.proxies = &proxies{dispatch: d, starts: make(chan []*unit), reloaded: make(chan struct{}, 1)}
	if s.proxies.secret, err = cfg.Proxy.Secret(); err != nil {
		return fmt.Errorf("proxy.secret_file: %w", err)
	}
	set, err := s.buildSet(cfg, &listenerSet{})
	if err != nil {
		return err
	}
	s.proxies.now.Store(set)
	return s.buildKernel(cfg)
}

// listeners are those of the configuration; without any, muster dev has one for
// its samples.
func (s *server) listeners(cfg *config.Config) []config.Listener {
	if len(cfg.Proxy.Listeners) > 0 || !s.opt.Dev || len(s.sources) == 0 {
		return cfg.Proxy.Listeners
	}
	return []config.Listener{{
		Name: "web", Mode: config.ModeHTTP, Listen: netip.MustParseAddrPort(demoListen), Service: "web", Zone: s.sources[0].zone,
		StopTimeout: time.Second, // a person waits
	}}
}

// buildHTTP makes a listener of mode http. inherited has its socket, if it is
// there.
func (s *server) buildHTTP(l *config.Listener, ways map[string]*l7.InstanceTLS, inherited func(name string) *os.File) (*httpProxy, error) {
	h := &httpProxy{cfg: *l}
	listener := l7.Listener{Name: l.Name, Address: l.Listen.String(), Service: l.Service, Trusted: l.Trusted}
	if len(l.Certificates) > 0 {
		var err error
		if h.certificates, err = s.certificates(l.Certificates, s.log.With("part", "proxy", "listener", l.Name)); err != nil {
			return nil, err
		}
		listener.Certificate = h.certificates.Get
	}
	cfg := l7.Config{
		Dispatcher: s.proxies.dispatch, Listeners: []l7.Listener{listener}, Source: s.sourceID(l.Zone), Zones: map[string]registry.SourceID{},
		InstanceTLS: ways, Secret: s.proxies.secret, Inherited: inherited, Log: s.log.With("part", "proxy", "listener", l.Name),
		Limits: l7.Limits{
			Connections: l.MaxConnections, Active: int64(l.MaxPerInstance), Idle: l.IdleTimeout, Connect: l.ConnectTimeout, Drain: l.StopTimeout,
		},
	}
	if l.AccessLog {
		cfg.AccessLog = s.log.With("part", "access")
	}
	for i := range s.sources {
		cfg.Zones[s.sources[i].zone] = s.sources[i].etcd.ID()
	}
	var err error
	if h.proxy, err = l7.New(cfg); err != nil {
		return nil, err
	}
	h.unit = newUnit(h.run, h.proxy.Close)
	return h, nil
}

// run serves until ctx ends and what is in flight has ended.
func (h *httpProxy) run(ctx context.Context) error {
	for _, c := range h.proxy.Sockets() { // which may have been a transparent listener's
		if err := opaque(c); err != nil {
			return fmt.Errorf("listener %s: %w", h.cfg.Name, err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.proxy.Run(ctx) })
	if h.certificates != nil {
		group.Go(func() error { return h.certificates.Run(ctx) })
	}
	return group.Wait()
}

// listenProxies binds every listener. That of muster dev takes a free port
// where its own is busy.
func (s *server) listenProxies(ctx context.Context) error {
	set := s.proxies.now.Load()
	err := set.listen(ctx, set.units())
	if errors.Is(err, syscall.EADDRINUSE) && len(s.cfg.Load().Proxy.Listeners) == 0 {
		h := set.http[0]
		l := h.cfg
		l.Listen = netip.AddrPortFrom(l.Listen.Addr(), 0)
		if set.http[0], err = s.buildHTTP(&l, set.ways(), s.opt.Sockets.Take); err == nil {
			set.http[0].want = h.want
			err = set.listen(ctx, set.units())
		}
		h.proxy.Close()
	}
	if err != nil {
		return err
	}
	if err := s.listenKernel(); err != nil {
		return fmt.Errorf("proxy.listeners: %w", err)
	}
	return nil
}

// runProxies serves until ctx ends and what is in flight has ended. Listeners
// come by starts, and end when they are retired.
func (s *server) runProxies(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.runKernel(ctx) })
	group.Go(func() error { return s.followRoutes(ctx) })
	for units := s.proxies.now.Load().units(); ; {
		for _, u := range units {
			group.Go(func() error { return u.live(ctx) })
		}
		select {
		case <-ctx.Done():
			return group.Wait()
		case units = <-s.proxies.starts:
		}
	}
}

// followRoutes puts the routes of the configuration and of etcd in force
// whenever they change, until ctx ends.
func (s *server) followRoutes(ctx context.Context) error {
	var last [][]registry.Route
	for {
		changed := s.pool.Published()
		if lists := s.routeLists(); last == nil || !slices.EqualFunc(lists, last, sameList) {
			last = lists
			s.setRoutes(mergeRoutes(lists))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-s.proxies.reloaded:
			last = nil // there may be other listeners, or other ways to instances
		}
	}
}

// setRoutes puts routes in force at every listener, and notes those that cannot
// be used. Each is logged when that becomes so, or the reason another.
func (s *server) setRoutes(routes []registry.Route) {
	before, now := s.proxies.problems.Load(), map[string]string{}
	for _, h := range s.proxies.now.Load().http {
		for _, err := range h.proxy.SetRoutes(routes) {
			bad, ok := errors.AsType[*l7.RouteError](err)
			if !ok {
				s.log.Warn("a listener cannot be used", "error", err)
				continue
			}
			reason := bad.Err.Error()
			if now[bad.Route] == "" && (before == nil || (*before)[bad.Route] != reason) {
				s.log.Warn("a route cannot be used", "route", bad.Route, "error", reason)
			}
			now[bad.Route] = reason
		}
	}
	s.proxies.problems.Store(&now)
}

// routeProblem is why a route cannot be used; empty: it can.
func (s *server) routeProblem(name string) string {
	if problems := s.proxies.problems.Load(); problems != nil {
		return (*problems)[name]
	}
	return ""
}

// routeFindings are the routes that cannot be used though their records are good.
func (s *server) routeFindings() []api.Finding {
	var out []api.Finding
	for _, r := range mergeRoutes(s.routeLists()) {
		if problem := s.routeProblem(r.Name); problem != "" {
			out = append(out, api.Finding{
				Severity: api.SeverityWarning, Subject: "route " + r.Name, Problem: problem, Mend: "mend the route, or its key in etcd; the others are in force",
			})
		}
	}
	return out
}

// routeLists are the routes by where they come from, the first going before the
// others: the service zones' in etcd, then the configuration's.
func (s *server) routeLists() [][]registry.Route { return s.routeListsWith(s.cfg.Load()) }

// routeListsWith is routeLists as a configuration will make them.
func (s *server) routeListsWith(cfg *config.Config) [][]registry.Route {
	lists := make([][]registry.Route, 0, len(s.sources)+1)
	for i := range s.sources {
		lists = append(lists, s.pool.View().Routes(s.sources[i].etcd.ID()))
	}
	return append(lists, cfg.Proxy.Routes)
}

// sameList reports whether two lists, neither of which is ever written to, are
// one.
func sameList(a, b []registry.Route) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// mergeRoutes makes one list of several, without names that an earlier one has.
func mergeRoutes(lists [][]registry.Route) []registry.Route {
	var routes []registry.Route
	for _, list := range lists {
		for _, r := range list {
			if !slices.ContainsFunc(routes, func(other registry.Route) bool { return other.Name == r.Name }) {
				routes = append(routes, r)
			}
		}
	}
	return routes
}
