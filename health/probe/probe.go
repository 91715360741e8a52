// Package probe runs the checks of package health over the network, a kind of
// check a file.
//
// Every check opens a connection of its own and closes it: a connection kept
// from the last check would go on working while the instance accepts no new
// ones (its listener gone, its file descriptors used up), which is just what
// its clients would meet. No proxy of the environment is used, no redirect is
// followed, no name is resolved: what is connected to is the target's address,
// after the guard has let it pass.
package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
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
}

// Set probes targets of every kind but TypeTTL. It keeps nothing open between
// probes and is safe for concurrent use. It implements health.Prober.
type Set struct {
	dialer  net.Dialer
	rootCAs *x509.CertPool
}

var _ health.Prober = (*Set)(nil)

// New makes a Set.
func New(cfg Config) (*Set, error) {
	g := guard{allow: make([]netip.Prefix, 0, len(cfg.AllowTargets))}
	for _, p := range cfg.AllowTargets {
		if !p.IsValid() {
			return nil, fmt.Errorf("probe: Config.AllowTargets: %v: not a network", p)
		}
		g.allow = append(g.allow, unmapPrefix(p))
	}
	return &Set{
		// A check is over long before TCP keepalives would begin.
		dialer:  net.Dialer{Control: g.control, KeepAlive: -1, FallbackDelay: -1},
		rootCAs: cfg.RootCAs,
	}, nil
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
	if t.Type == health.TypeNone || t.Type >= health.TypeTTL {
		return fmt.Errorf("a %v check is not a probe", t.Type)
	}
	if !t.Addr.IsValid() || t.Addr.Port() == 0 {
		return fmt.Errorf("%v check: no address and port to connect to: give the instance a port", t.Type)
	}
	switch t.Type {
	case health.TypeHTTP, health.TypeHTTPS:
		return validateHTTP(&t)
	case health.TypeGRPC:
		return validateGRPC(&t)
	case health.TypeDNS:
		_, _, err := dnsQuestion(&t)
		return err
	case health.TypeTCP, health.TypeNone, health.TypeTTL:
	}
	return nil
}

// dial connects to the target. When ctx ends before hangUp is called, reads
// and writes fail at once.
func (s *Set) dial(ctx context.Context, t *health.Target) (c net.Conn, hangUp func(), err error) {
	network := "tcp"
	if t.Type == health.TypeDNS {
		network = "udp"
	}
	// Not DialTCP and DialUDP: they bind the socket first (go1.26), and ports
	// that are bound run out for all targets together, not for each.
	if c, err = s.dialer.DialContext(ctx, network, t.Addr.String()); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(time.Unix(1, 0)) // long past; fails only on a closed connection
	})
	return c, func() {
		stop()
		_ = c.Close() // nothing was left to be written
	}, nil
}

// isToken reports whether s is printable ASCII without spaces, so that it can
// stand in a request line or a header and end neither.
func isToken(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
