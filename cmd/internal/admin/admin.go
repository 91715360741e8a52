// Package admin is the HTTP side of a server: liveness, readiness, metrics,
// profiles and the JSON API, whose types are package api's.
//
// Reading is open to whoever reaches the listener. Writing needs the token;
// without one configured, only requests from this machine may write.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/demo"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// Store is where what the API writes goes.
type Store interface {
	registry.Writer
	registry.Holder
	registry.Reader
}

// Zone is a service zone that can be read and written.
type Zone struct {
	Name   string // absolute
	Source registry.SourceID
	Prefix string // of its keys
	Store  Store
}

// Config is what a Server is made of.
type Config struct {
	Listen netip.AddrPort
	// Inherited is the listening socket that another process has handed over;
	// nil: one is bound.
	Inherited *os.File
	Token     string // empty: only this machine may write
	Pprof     bool   // serve /debug/pprof
	Logger    *slog.Logger

	Metrics http.Handler
	Pool    *pool.Pool
	Zones   []Zone // none: nothing can be registered; the first is the default

	// Ready says what readiness waits for; none: ready.
	Ready func() []string
	// Status is the server's state, and Findings what only the server as a
	// whole can find wrong; the doctor adds the records'.
	Status   func(ctx context.Context) (api.Status, error)
	Findings func(ctx context.Context) []api.Finding
	// ZoneNames are the zones in force, of every source.
	ZoneNames func() []string
	// Ask answers a question as DNS would, for explain.
	Ask func(name, typ string, client netip.Addr) (Reply, error)
	// Near is the zones' parts in the answers of a service to a client; nil: it is
	// answered from all.
	Near func(source registry.SourceID, service string, client netip.Addr) map[string]float64
	// Proxy is the companion proxy's state, and ExplainProxy what it would do;
	// nil: there is none.
	Proxy        func() api.Proxy
	ExplainProxy func(ProxyQuestion) (api.ProxyExplanation, error)
	// Demo has the sample instances of `muster dev`; nil: none.
	Demo *demo.Set
}

// Server is the admin listener.
type Server struct {
	cfg   Config
	log   *slog.Logger
	holds *holds
	lis   net.Listener
	http  *http.Server

	streams atomic.Int64 // event streams open
}

// shutdownMax bounds how long a stop waits for requests under way.
const shutdownMax = 2 * time.Second

// New returns a Server; Listen and Run start it.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, holds: newHolds(cfg.Logger)}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Listen binds the address.
func (s *Server) Listen(ctx context.Context) error {
	var lis net.Listener
	var err error
	if f := s.cfg.Inherited; f != nil {
		lis, err = net.FileListener(f)
		f.Close()
	} else {
		var lc net.ListenConfig
		network := "tcp"
		if s.cfg.Listen.Addr().Is4() {
			network = "tcp4" // or 0.0.0.0 would be IPv6, too
		}
		lis, err = lc.Listen(ctx, network, s.cfg.Listen.String())
	}
	if err != nil {
		return fmt.Errorf("admin.listen %s: %w", s.cfg.Listen, err)
	}
	s.lis = lis
	return nil
}

// SocketName is what the listener of an address is handed over as.
func SocketName(listen netip.AddrPort) string { return "admin " + listen.String() }

// Socket is the listening socket, for a process to follow this one.
func (s *Server) Socket() syscall.Conn { return s.lis.(*net.TCPListener) }

// Addr is the address that Listen bound.
func (s *Server) Addr() netip.AddrPort { return s.lis.Addr().(*net.TCPAddr).AddrPort() }

// Run serves until ctx ends, then lets requests under way finish for a moment.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		s.holds.run(ctx)
	}()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownMax)
		defer cancel()
		if s.http.Shutdown(stop) != nil {
			s.http.Close()
		}
	}()
	err := s.http.Serve(s.lis)
	if ctx.Err() == nil {
		return fmt.Errorf("serving the admin API: %w", err)
	}
	<-stopped
	<-swept
	return nil
}

// handler is the routes.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathHealthz, s.healthz)
	mux.HandleFunc("GET "+api.PathReadyz, s.readyz)
	mux.Handle("GET "+api.PathMetrics, s.cfg.Metrics)

	mux.HandleFunc("GET "+api.PathServices, s.get(s.services))
	mux.HandleFunc("GET "+api.PathServices+"/{service}", s.get(s.service))
	mux.HandleFunc("GET "+api.PathInstances, s.get(s.instances))
	mux.HandleFunc("GET "+api.PathExplain, s.get(s.explain))
	mux.HandleFunc("GET "+api.PathStatus, s.get(func(r *http.Request) (any, error) { return s.cfg.Status(r.Context()) }))
	mux.HandleFunc("GET "+api.PathDoctor, s.get(s.doctor))
	mux.HandleFunc("GET "+api.PathPrometheus, s.get(s.targets))
	mux.HandleFunc("GET "+api.PathEvents, s.events)
	if s.cfg.Proxy != nil {
		mux.HandleFunc("GET "+api.PathProxy, s.get(func(*http.Request) (any, error) { return s.cfg.Proxy(), nil }))
		mux.HandleFunc("GET "+api.PathProxyExplain, s.get(s.explainProxy))
	}

	mux.HandleFunc("POST "+api.PathRegister, post(s, s.register))
	mux.HandleFunc("POST "+api.PathDeregister, post(s, s.deregister))
	mux.HandleFunc("POST "+api.PathHeartbeat, post(s, s.heartbeat))
	mux.HandleFunc("POST "+api.PathAdmin, post(s, s.admin))
	mux.HandleFunc("POST "+api.PathWeight, post(s, s.weight))
	mux.HandleFunc("POST "+api.PathService, post(s, s.setService))
	if s.cfg.Demo != nil {
		mux.HandleFunc("GET "+api.PathDemo, s.get(s.demoList))
		mux.HandleFunc("POST "+api.PathDemo, post(s, s.demoDo))
	}
	if s.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	console(mux)
	mux.HandleFunc("/", s.unknown)
	return mux
}

// unknown answers every other path with what there is.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	e := &api.Error{
		Status: http.StatusNotFound, Message: "there is no " + r.Method + " " + quote(r.URL.Path),
		Mend: "see /v1/services, /v1/instances, /v1/explain?name=NAME, /v1/status, /v1/doctor, /v1/events, /healthz, /readyz, /metrics",
	}
	switch r.URL.Path {
	case api.PathRegister, api.PathDeregister, api.PathHeartbeat, api.PathAdmin, api.PathWeight, api.PathService:
		e.Status, e.Mend = http.StatusMethodNotAllowed, "use POST"
		w.Header().Set("Allow", http.MethodPost)
	case api.PathProxy, api.PathProxyExplain:
		e.Mend = "this server has no proxy: name listeners in proxy.listeners"
	case api.PathDemo:
		e.Mend = "sample instances exist under `muster dev` only"
	}
	s.fail(w, e)
}

// healthz answers while the process lives.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// readyz answers 200 once the server is ready; with ?verbose it says what it
// waits for, a line each.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	waiting := s.cfg.Ready()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(waiting) == 0 {
		fmt.Fprintln(w, "ready")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, "not ready")
	if r.URL.Query().Has("verbose") {
		for _, line := range waiting {
			fmt.Fprintln(w, "waiting for "+line)
		}
	}
}
