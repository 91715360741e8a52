// Package demo runs the sample instances of `muster dev`: real HTTP servers on
// 127.0.1.x that can be killed, revived, slowed and made to fail, so that a
// person can watch what that does to the answers.
//
// The instances are registered under leases that this package's owner keeps,
// also while an instance is killed: what takes a killed instance out of the
// answers is its health check, and `muster explain` can say so.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/musterdns/muster/registry"
)

// Action is what can be done to a sample instance.
type Action string

// The actions. Each replaces the one before it.
const (
	Kill   Action = "kill"   // closes the listener and every connection
	Revive Action = "revive" // serves again, at normal speed
	Slow   Action = "slow"   // answers late
	Fail   Action = "fail"   // answers 500
)

// ErrUnknown is returned for an instance that is not a sample.
var ErrUnknown = errors.New("no such sample instance")

// slownessDefault is longer than the default check timeout of 1 s, so that a
// slow instance fails its checks.
const slownessDefault = 5 * time.Second

// samplePort is where every sample listens on its own address. When one finds
// it busy, as beside another server's samples, all take another port together:
// instances that differ in their ports would be answered in another order.
const samplePort = 8000

// portTries bounds the search for a port that is free on every address.
const portTries = 16

// Config says what the samples run with.
type Config struct {
	Logger *slog.Logger // nil: none
}

// Set is the sample instances. Safe for concurrent use.
type Set struct {
	log *slog.Logger
	wg  sync.WaitGroup // the serving goroutines

	mu      sync.Mutex // guards the samples' fields
	samples []*sample
}

// sample is one instance; its fields are guarded by Set.mu.
type sample struct {
	instance registry.Instance
	addr     netip.AddrPort
	mode     Action
	delay    time.Duration // of answers, while slow
	server   *http.Server  // nil while killed
	version  string
}

// Services are the policies of the sample services.
func Services() []registry.Service {
	check := []registry.Check{{Type: "http", Path: "/healthz", Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 2}}
	return []registry.Service{
		{Name: "web", Policy: "weighted", TTL: 2 * time.Second, Checks: check},
		{Name: "api", Policy: "weighted", TTL: 2 * time.Second, Checks: check},
	}
}

// Start binds every sample's address and begins to serve. The caller calls
// Close when done.
func Start(ctx context.Context, cfg Config) (*Set, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	all := instances()
	listeners, err := listen(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("starting the sample instances: %w", err)
	}
	s := &Set{log: cfg.Logger}
	for i, in := range all {
		sm := &sample{instance: in, addr: listeners[i].Addr().(*net.TCPAddr).AddrPort(), version: "v1"}
		if len(in.Tags) > 0 {
			sm.version = in.Tags[0]
		}
		s.samples = append(s.samples, sm)
		s.serve(sm, listeners[i])
	}
	return s, nil
}

// listen binds the address of every instance at one port.
func listen(ctx context.Context, all []registry.Instance) ([]net.Listener, error) {
	port := uint16(samplePort)
	for try := 1; ; try++ {
		listeners, err := listenAt(ctx, all, port)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || try == portTries {
			return listeners, err
		}
		port = 0 // any that the first finds free
	}
}

// listenAt binds every instance's address at a port, or none. Port 0 is what the
// first is given.
func listenAt(ctx context.Context, all []registry.Instance, port uint16) ([]net.Listener, error) {
	var lc net.ListenConfig
	var listeners []net.Listener
	for i := range all {
		l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(all[i].Addresses[0], port).String())
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	return listeners, nil
}

// instances are the samples as they are registered, without their ports.
func instances() []registry.Instance {
	mk := func(service, id string, last byte, weight uint16, zone string, tags ...string) registry.Instance {
		return registry.Instance{
			Service: service, ID: id, Weight: weight, Region: "local", Zone: zone, Tags: tags,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 1, last})},
		}
	}
	return []registry.Instance{
		mk("web", "web-1", 1, 1, "zone-a", "v1"),
		mk("web", "web-2", 2, 1, "zone-b", "v1"),
		mk("web", "web-3", 3, 1, "zone-a", "v2"),
		mk("api", "api-1", 11, 1, "zone-a", "v1"),
		mk("api", "api-2", 12, 3, "zone-b", "v2"),
	}
}

// Instances returns the samples as they are to be registered.
func (s *Set) Instances() []registry.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]registry.Instance, 0, len(s.samples))
	for _, sm := range s.samples {
		in := sm.instance
		in.Port = sm.addr.Port()
		in.Ports = []registry.Port{{Name: "http", Number: in.Port, Proto: "tcp"}}
		out = append(out, in)
	}
	return out
}

// Mode returns what was last done to a sample; Revive when nothing was.
func (s *Set) Mode(id string) Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sm := range s.samples {
		if sm.instance.ID == id {
			return sm.mode
		}
	}
	return ""
}

// Do acts on the sample with the given instance id. It returns ErrUnknown,
// wrapped with the ids there are, for any other. delay is how late a Slow one
// answers; 0 means 5 s.
func (s *Set) Do(ctx context.Context, id string, a Action, delay time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.samples, func(sm *sample) bool { return sm.instance.ID == id })
	if i < 0 {
		var ids []string
		for _, sm := range s.samples {
			ids = append(ids, sm.instance.ID)
		}
		return fmt.Errorf("%w: %q; there are %q", ErrUnknown, id, ids)
	}
	sm := s.samples[i]
	switch a {
	case Kill:
		if sm.server != nil {
			sm.server.Close() // resets every connection, as the kernel does for a dead process
			sm.server = nil
		}
	case Revive, Slow, Fail:
		if sm.server == nil {
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp", sm.addr.String())
			if err != nil {
				return fmt.Errorf("reviving %s: %w", id, err)
			}
			s.serve(sm, l)
		}
	default:
		return fmt.Errorf("unknown action %q: want kill, revive, slow or fail", a)
	}
	sm.mode = a
	sm.delay = cmp.Or(delay, slownessDefault)
	s.log.Info("sample instance changed", "instance", id, "action", string(a))
	return nil
}

// Close stops every sample and returns when their goroutines have ended.
func (s *Set) Close() {
	s.mu.Lock()
	for _, sm := range s.samples {
		if sm.server != nil {
			sm.server.Close()
			sm.server = nil
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// serve serves a sample at l until its server is closed. s.mu is held, or s is
// not yet shared.
func (s *Set) serve(sm *sample, l net.Listener) {
	srv := &http.Server{Handler: s.handler(sm), ReadHeaderTimeout: 5 * time.Second}
	sm.server, sm.mode = srv, Revive
	s.wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("sample instance ended", "instance", sm.instance.ID, "error", err)
		}
	})
}

// handler answers as the sample's mode says.
func (s *Set) handler(sm *sample) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		mode, delay := sm.mode, sm.delay
		s.mu.Unlock()
		if mode == Fail {
			http.Error(w, sm.instance.ID+" was told to fail", http.StatusInternalServerError)
			return
		}
		if mode == Slow {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "%s %s says hello\n", sm.instance.ID, sm.version)
	})
}
