// Package probe runs the checks of package health over the network, a kind of
// check a file.
//
// A check opens a connection of its own and closes it, unless the target says
// otherwise: a connection kept from the last check would go on working while
// the instance accepts no new ones (its listener gone, its file descriptors used
// up), which is just what its clients would meet. What a kept connection gives
// for that is its end, which is known at once: held checks live by it, and http,
// https and grpc checks with Keep are repeated then. No proxy of the environment
// is used, no redirect is followed, no name is resolved: what is connected to is
// the target's address, after the guard has let it pass.
package probe

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/musterdns/muster/health"
)

// UserAgent is what http, https and grpc checks call themselves.
const UserAgent = "muster-health/1"

// TimeoutDefault is the timeout of a target that has none.
const TimeoutDefault = time.Second

// Config is what a Set needs; its zero value works.
type Config struct {
	// AllowTargets are networks that may be probed although their addresses
	// are loopback, link-local, multicast, unspecified or a cloud's metadata
	// service.
	AllowTargets []netip.Prefix
	// RootCAs verifies the certificates of https targets; nil is the system's.
	RootCAs *x509.CertPool
	// Lost is called when a connection that was kept of a target has ended, nil
	// for no one (health.Monitor.Lost). It must not block.
	Lost func(health.Target)
	// KeepMax is how many connections are kept at most; zero is half of the
	// descriptors that this process may open. Targets beyond are checked over
	// connections of their own.
	KeepMax int
	// Exec says whether exec checks are run; Commands lists those of
	// ExecConfigured, in the form of health.Target.Command.
	Exec     Exec
	Commands []string
}

// Set probes targets of every kind but TypeTTL. It is safe for concurrent use
// and implements health.Keeper. While Run runs it keeps a connection of each
// target that asks for it, else nothing.
type Set struct {
	guard   guard
	dialer  net.Dialer
	links   links
	readers readers
	watches watches
	cfg     Config
	running chan struct{} // a place for each command that runs
}

var _ health.Keeper = (*Set)(nil)

// New makes a Set.
func New(cfg Config) (*Set, error) {
	g := guard{allow: make([]netip.Prefix, 0, len(cfg.AllowTargets))}
	for _, p := range cfg.AllowTargets {
		if !p.IsValid() {
			return nil, fmt.Errorf("probe: Config.AllowTargets: %v: not a network", p)
		}
		g.allow = append(g.allow, unmapPrefix(p))
	}
	if cfg.KeepMax < 0 {
		return nil, fmt.Errorf("probe: Config.KeepMax: %d: must not be negative", cfg.KeepMax)
	}
	cfg.KeepMax = cmp.Or(cfg.KeepMax, descriptors()/2)
	if cfg.Lost == nil {
		cfg.Lost = func(health.Target) {}
	}
	return &Set{
		guard: g,
		// A check is over long before TCP keepalives would begin.
		dialer:  net.Dialer{Control: g.control, KeepAlive: -1, FallbackDelay: -1},
		cfg:     cfg,
		running: make(chan struct{}, execMax),
		watches: watches{byKey: map[linkKey]*watch{}},
		links:   links{max: cfg.KeepMax, lost: cfg.Lost, byKey: map[linkKey]*link{}, byID: map[uint64]*link{}},
	}, nil
}

// descriptors is how many this process may open.
func descriptors() int {
	const usual = 1024
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return usual
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// Run watches what is kept until ctx ends, and closes it then. It can run once
// at a time.
func (s *Set) Run(ctx context.Context) error {
	s.watches.open()
	defer s.watches.close()
	return s.links.watch(ctx)
}

// Forget closes the connection that is kept of a target.
func (s *Set) Forget(t health.Target) {
	switch {
	case t.Type == health.TypeGRPC && t.Keep:
		s.watches.forget(keyOf(t))
	case t.Keep, t.Type == health.TypeHeld:
		s.links.forget(keyOf(t))
	}
}

// Stats are figures of a Set at one moment.
type Stats struct {
	Kept int    // connections
	Full uint64 // checks whose connection was not kept, for want of room, since the start
}

// Stats returns the present figures.
func (s *Set) Stats() Stats {
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	return Stats{Kept: len(s.links.byID) + s.watches.count(), Full: s.links.full}
}

// Probe checks t once, within its Timeout as a whole. The Result's Output says
// what was asked and what came of it.
func (s *Set) Probe(ctx context.Context, t health.Target) health.Result {
	start := time.Now()
	if t.Timeout <= 0 {
		t.Timeout = TimeoutDefault
	}
	if err := Validate(t); err != nil {
		return health.Result{Output: line(err.Error()), Load: -1}
	}
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var r health.Result
	switch t.Type {
	case health.TypeHTTP, health.TypeHTTPS:
		r = s.http(ctx, &t)
	case health.TypeTCP:
		r = s.tcp(ctx, &t)
	case health.TypeGRPC:
		r = s.grpc(ctx, &t)
	case health.TypeDNS:
		r = s.dns(ctx, &t)
	case health.TypeHeld:
		r = s.held(ctx, &t)
	case health.TypeExec:
		r = s.exec(ctx, &t)
	case health.TypeNone, health.TypeTTL:
		panic("probe: Validate let a target pass that is not probed")
	}
	r.Latency = time.Since(start)
	return r
}

// Validate reports what makes a target unfit to be probed, whatever state it
// is in; the error names the field and the mend. Addresses that the guard
// refuses are not its matter.
func Validate(t health.Target) error {
	if t.Type == health.TypeNone || t.Type == health.TypeTTL || t.Type > health.TypeExec {
		return fmt.Errorf("a %v check is not a probe", t.Type)
	}
	if !t.Addr.IsValid() || t.Addr.Port() == 0 {
		return fmt.Errorf("%v check: no address and port to connect to: give the instance a port", t.Type)
	}
	switch t.Type {
	case health.TypeHTTP, health.TypeHTTPS, health.TypeHeld:
		return validateHTTP(&t)
	case health.TypeGRPC:
		return validateGRPC(&t)
	case health.TypeDNS:
		_, _, err := dnsQuestion(&t)
		return err
	case health.TypeExec:
		return validateExec(&t)
	case health.TypeTCP, health.TypeNone, health.TypeTTL:
	}
	return nil
}

// dialUDP makes a socket for the target. When ctx ends before hangUp is called, reads
// and writes fail at once.
func (s *Set) dialUDP(ctx context.Context, t *health.Target) (c net.Conn, hangUp func(), err error) {
	// Not net.DialUDP: it binds the socket first (go1.26), and ports that are
	// bound run out for all targets together, not for each.
	if c, err = s.dialer.DialContext(ctx, "udp", t.Addr.String()); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(longPast()) // fails only on a closed connection
	})
	return c, func() {
		stop()
		_ = c.Close() // nothing was left to be written
	}, nil
}

// longPast is a deadline that ends what waits.
func longPast() time.Time { return time.Unix(1, 0) }

// isToken reports whether s is printable ASCII without spaces, so that it can
// stand in a request line or a header and end neither.
func isToken(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
