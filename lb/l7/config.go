// Package l7 is the HTTP proxy: it accepts HTTP/1.1, HTTP/2 (TLS and cleartext)
// and gRPC, finds a request's route, asks package dispatch for an instance of
// the route's service, and forwards; WebSockets and other upgrades it tunnels.
// It fails over before a response has begun, and keeps what flows flowing
// through every change of routes, instances and certificates.
//
// # Two engines, one proxy
//
// Floors of CPU time per small keep-alive request were measured before anything
// was built (16 connections, one machine, alternated in one run, medians):
// net/http with httputil.ReverseProxy 45 us, net/http with a lean round tripper
// 32 us, an own loop per connection 21 us; nginx 17 us, HAProxy 19 us, Caddy
// 80 us beside them. So HTTP/1.1 is served by an engine of its own (package
// http1 and the files h1*.go), in which one goroutine a connection reads the
// request, writes it to the instance and reads the response. HTTP/2 is served by
// net/http (h2.go), towards instances too (instanceh2.go). What came of it, in
// one run beside the others (integration/bench l7): 20.5 us a small request,
// 1.23 of nginx, 1.15 of HAProxy, 0.27 of Caddy; bodies of 1 MiB, which are
// spliced, a third of nginx's CPU. What lies above the
// wire is one piece of code for both: an exchange, which handle and forward
// take through routing, limits, choice, tries and the response.
//
// A connection that waits for a request has no buffers of its own, over TLS those of
// package tls. One that is idle for a second, or less where many are awake, is parked
// (park.go): it has no goroutine either, and in cleartext it is no more than a
// descriptor. When the proxy stops, connections on which nothing is under way are heard
// out for a moment.
//
// # What is sent twice
//
// Nothing is once a byte of a response has come. Before that, a request that
// found no connection is sent to another instance whatever its method, since no
// byte of it was sent. One that was sent goes to another only if its method is
// idempotent (RFC 9110 section 9.2.2) or it has an Idempotency-Key or its route
// says so, its body is at most 64 KiB, and retries are at most a fifth of what
// is in flight, or 3; it never goes to the same instance twice. A connection
// that was kept open and turns out to be closed says nothing of the instance
// (RFC 9112 section 9.3.1) and is replaced by another to the same one.
//
// # TLS to instances
//
// A route may name a way of speaking to its instances over TLS (InstanceTLS).
// They are verified by the service's name, unless the way says otherwise, and
// HTTP/2 is spoken to those that agree to it by ALPN: the first connection to an
// instance finds out, and is used. What fails in the handshake was not sent, so
// it goes to another instance; clients are told why, without names, and the log
// names the instance, once until it works again. Routes name no file and no
// key: who may write routes in etcd could have any file read, or be shown to
// instances as the proxy.
package l7

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/registry"
)

// Config configures a Proxy. Zero fields take the defaults that they name.
type Config struct {
	Dispatcher *dispatch.Dispatcher // required; run by the caller
	Listeners  []Listener           // at least one, with distinct names
	// Inherited returns a listening socket that another process has handed over,
	// by the name that Proxy.Sockets gave it, or nil. Where there is one, none is
	// bound. A nil Inherited has none.
	Inherited func(name string) *os.File
	// Source is where services of routes without a zone are found, and Zones
	// where those of routes with one are, by the zone's name.
	Source registry.SourceID // required
	Zones  map[string]registry.SourceID
	// InstanceTLS are the ways in which instances are spoken to over TLS, by the
	// name that routes call them; run by the caller.
	InstanceTLS map[string]*InstanceTLS
	// Secret signs sticky cookies; servers that share clients share it. At least
	// 16 bytes; nil: a random one, which nobody shares.
	Secret []byte
	// Log takes one line an event; AccessLog one a request. nil: none.
	Log       *slog.Logger
	AccessLog *slog.Logger
	Limits    Limits
}

// Limits bound what clients and instances may do. Zero fields take the defaults
// that they name.
type Limits struct {
	Connections int           // of one listener at once; 20,000
	HeadBytes   int           // of a request's head, and of a response's; 32 KiB
	BodyBytes   int64         // of a request's body, where its route says nothing; 1 GiB
	Streams     int           // of one HTTP/2 connection at once; 250
	ReadHead    time.Duration // from the first byte of a head to its last; 10 s
	Idle        time.Duration // without a request; 60 s, up to twice as long
	Stall       time.Duration // without progress of a body, in either direction; 5 min
	Connect     time.Duration // to an instance; 1 s
	Response    time.Duration // to the first byte, all tries together, where a route says nothing; 30 s
	Retries     int           // further tries where a route says nothing; 3, negative: none
	Active      int64         // requests in flight at one instance through one service; 0: any number
	Pooled      int           // idle connections kept to one instance; 256
	PoolIdle    time.Duration // after which they are closed; 30 s
	TunnelAge   time.Duration // how long upgraded connections to an instance that drains may stay; 10 min
	ConnAge     time.Duration // after which an HTTP/2 client is told to connect anew; 1 h
	Drain       time.Duration // how long Run waits for requests in flight when it ends; 30 s
}

// Listener is an address that is listened on.
type Listener struct {
	Name    string // what routes call it; required
	Address string // "127.0.0.1:8080"; required
	// Service is where requests go that match no route; empty: they are
	// answered with 404.
	Service string
	// Certificate makes it speak TLS; nil: cleartext.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Trusted are networks whose X-Forwarded-For and Forwarded are believed and
	// added to; everybody else's are replaced.
	Trusted []netip.Prefix
}

// secretMin is the least size of a Secret in bytes.
const secretMin = 16

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Dispatcher == nil:
		return c, errors.New("l7: a proxy needs a Dispatcher")
	case c.Source == 0:
		return c, errors.New("l7: a proxy needs the source of its services")
	case len(c.Listeners) == 0:
		return c, errors.New("l7: a proxy needs a listener")
	case c.Secret != nil && len(c.Secret) < secretMin:
		return c, fmt.Errorf("l7: the secret has %d bytes, want at least %d", len(c.Secret), secretMin)
	}
	seen := map[string]bool{}
	for _, l := range c.Listeners {
		if l.Name == "" || seen[l.Name] {
			return c, fmt.Errorf("l7: listener %q: the name is missing or stands twice", l.Name)
		}
		seen[l.Name] = true
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			return c, fmt.Errorf("l7: listener %q: address %q: %w", l.Name, l.Address, err)
		}
		if l.Service != "" {
			if _, err := registry.FoldService(l.Service); err != nil {
				return c, fmt.Errorf("l7: listener %q: service: %w", l.Name, err)
			}
		}
	}
	if c.Secret == nil {
		c.Secret = make([]byte, 32)
		if _, err := rand.Read(c.Secret); err != nil {
			return c, fmt.Errorf("l7: making a secret: %w", err)
		}
	}
	if c.Inherited == nil {
		c.Inherited = func(string) *os.File { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.withDefaults()
	return c, nil
}

func (l Limits) withDefaults() Limits {
	for _, d := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.ReadHead, 10 * time.Second},
		{&l.Idle, time.Minute},
		{&l.Stall, 5 * time.Minute},
		{&l.Connect, time.Second},
		{&l.Response, 30 * time.Second},
		{&l.PoolIdle, 30 * time.Second},
		{&l.TunnelAge, 10 * time.Minute},
		{&l.ConnAge, time.Hour},
		{&l.Drain, 30 * time.Second},
	} {
		*d.field = cmp.Or(*d.field, d.value)
	}
	l.Connections = cmp.Or(l.Connections, 20_000)
	l.HeadBytes = cmp.Or(l.HeadBytes, 32<<10)
	l.BodyBytes = cmp.Or(l.BodyBytes, 1<<30)
	l.Streams = cmp.Or(l.Streams, 250)
	l.Retries = cmp.Or(l.Retries, 3)
	l.Pooled = cmp.Or(l.Pooled, 256)
	return l
}

// New returns a Proxy without routes but those of its listeners.
func New(cfg Config) (*Proxy, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, backends: map[backendKey]*backend{}, rates: map[rateKey]*rateLimit{}}
	p.dialer.Timeout = cfg.Limits.Connect
	p.dialer.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}
	p.now(time.Now())
	if cfg.AccessLog != nil {
		p.access = newAccessLog(cfg.AccessLog)
	}
	for _, l := range cfg.Listeners {
		p.listeners = append(p.listeners, newListener(p, l))
	}
	return p, errors.Join(p.SetRoutes(nil)...)
}
