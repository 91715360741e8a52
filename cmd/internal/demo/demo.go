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

// samplePort is where every sample listens on its own address; any free port
// is taken when it is busy.
const samplePort = 8000

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
	s := &Set{log: cfg.Logger}
	for i, in := range instances() {
		sm := &sample{instance: in, addr: netip.AddrPortFrom(in.Addresses[0], samplePort), version: "v1"}
		if len(in.Tags) > 0 {
			sm.version = in.Tags[0]
		}
		s.samples = append(s.samples, sm)
		if err := s.serve(ctx, sm); err != nil {
			s.Close()
			return nil, fmt.Errorf("starting sample instance %d (%s): %w", i+1, in.ID, err)
		}
	}
	return s, nil
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
			if err := s.serve(ctx, sm); err != nil {
				return fmt.Errorf("reviving %s: %w", id, err)
			}
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

// serve binds the sample's address, on any port when its own is busy at the
// first start, and serves until the server is closed. s.mu is held, or s is
// not yet shared.
func (s *Set) serve(ctx context.Context, sm *sample) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", sm.addr.String())
	if err != nil && sm.mode == "" {
		l, err = lc.Listen(ctx, "tcp", netip.AddrPortFrom(sm.addr.Addr(), 0).String())
	}
	if err != nil {
		return err
	}
	sm.addr = l.Addr().(*net.TCPAddr).AddrPort()
	srv := &http.Server{Handler: s.handler(sm), ReadHeaderTimeout: 5 * time.Second}
	sm.server, sm.mode = srv, Revive
	s.wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("sample instance ended", "instance", sm.instance.ID, "error", err)
		}
	})
	return nil
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
