package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

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
	streams  []*stream // of modes tcp and udp
	http     []*httpProxy
	kernel   *kernelProxies // modes nat and dsr, virtual addresses
	reloaded chan struct{}  // 1-slot: the configuration's routes may have changed
}

// httpProxy is one listener of mode http.
type httpProxy struct {
	cfg          config.Listener
	proxy        *l7.Proxy
	certificates *l7.Certificates // nil: cleartext
}

// buildProxies makes every listener's proxy.
func (s *server) buildProxies(cfg *config.Config) error {
	d, err := dispatch.New(dispatch.Config{Pool: s.pool, Log: s.log.With("part", "proxy")})
	if err != nil {
		return err
	}
	s.proxies = &proxies{dispatch: d, reloaded: make(chan struct{}, 1)}
	secret, err := cfg.Proxy.Secret()
	if err != nil {
		return fmt.Errorf("proxy.secret_file: %w", err)
	}
	for _, l := range s.listeners(cfg) {
		switch {
		case l.Mode == config.ModeHTTP:
			err = s.buildHTTP(&l, secret)
		case !l.Mode.Kernel():
			err = s.buildStream(&l)
		}
		if err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", l.Name, err)
		}
	}
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

// buildHTTP makes a listener of mode http.
func (s *server) buildHTTP(l *config.Listener, secret []byte) error {
	h := &httpProxy{cfg: *l}
	listener := l7.Listener{Name: l.Name, Address: l.Listen.String(), Service: l.Service, Trusted: l.Trusted}
	if len(l.Certificates) > 0 {
		var files []l7.CertificateFile
		for _, c := range l.Certificates {
			files = append(files, l7.CertificateFile{Certificate: c.Cert, Key: c.Key})
		}
		var err error
		if h.certificates, err = l7.LoadCertificates(files, s.log.With("part", "proxy", "listener", l.Name)); err != nil {
			return err
		}
		listener.Certificate = h.certificates.Get
	}
	cfg := l7.Config{
		Dispatcher: s.proxies.dispatch, Listeners: []l7.Listener{listener}, Source: s.sourceID(l.Zone), Zones: map[string]registry.SourceID{},
		Secret: secret, Inherited: s.opt.Sockets.Take, Log: s.log.With("part", "proxy", "listener", l.Name),
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
		return err
	}
	s.proxies.http = append(s.proxies.http, h)
	return nil
}

// listenProxies binds every listener. That of muster dev takes a free port
// where its own is busy.
func (s *server) listenProxies(ctx context.Context) error {
	for _, st := range s.proxies.streams {
		if err := st.listen(); err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", st.cfg.Name, err)
		}
	}
	for _, h := range s.proxies.http {
		err := h.proxy.Listen(ctx)
		if errors.Is(err, syscall.EADDRINUSE) && len(s.cfg.Load().Proxy.Listeners) == 0 {
			l := h.cfg
			l.Listen = netip.AddrPortFrom(l.Listen.Addr(), 0)
			s.proxies.http = nil
			if err = s.buildHTTP(&l, nil); err == nil {
				err = s.proxies.http[0].proxy.Listen(ctx)
			}
		}
		if err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", h.cfg.Name, err)
		}
	}
	if err := s.listenKernel(); err != nil {
		return fmt.Errorf("proxy.listeners: %w", err)
	}
	return nil
}

// runProxies serves until ctx ends and what is in flight has ended.
func (s *server) runProxies(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, st := range s.proxies.streams {
		group.Go(func() error { return st.run(ctx) })
	}
	for _, h := range s.proxies.http {
		group.Go(func() error { return h.proxy.Run(ctx) })
		if h.certificates != nil {
			group.Go(func() error { return h.certificates.Run(ctx) })
		}
	}
	group.Go(func() error { return s.runKernel(ctx) })
	if len(s.proxies.http) > 0 {
		group.Go(func() error { return s.followRoutes(ctx) })
	}
	return group.Wait()
}

// followRoutes puts the routes of the configuration and of etcd in force
// whenever they change, until ctx ends.
func (s *server) followRoutes(ctx context.Context) error {
	var last [][]registry.Route
	var told string
	for {
		changed := s.pool.Published()
		if lists := s.routeLists(); last == nil || !slices.EqualFunc(lists, last, sameList) {
			last = lists
			var errs []error
			for _, h := range s.proxies.http {
				errs = append(errs, h.proxy.SetRoutes(mergeRoutes(lists)))
			}
			if err := errors.Join(errs...); err != nil && err.Error() != told {
				told = err.Error()
				s.log.Warn("a route cannot be used", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-s.proxies.reloaded:
		}
	}
}

// routeLists are the routes by where they come from, the first going before the
// others: the service zones' in etcd, then the configuration's.
func (s *server) routeLists() [][]registry.Route {
	lists := make([][]registry.Route, 0, len(s.sources)+1)
	for i := range s.sources {
		lists = append(lists, s.pool.View().Routes(s.sources[i].etcd.ID()))
	}
	return append(lists, s.cfg.Load().Proxy.Routes)
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
