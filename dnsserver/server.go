package dnsserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/dnsserver/tsig"
)

// Defaults and limits of Config.
const (
	defaultMaxSlow          = 1024             // goroutines; about 10 KiB each while they wait for an upstream
	defaultMaxConns         = 2048             // about 10 KiB each when idle
	defaultMaxConnsPerIP    = 256              // a resolver needs a few; an attacker gets an eighth
	defaultFirstByteTimeout = 2 * time.Second  // a client connects because it has a query
	defaultMessageTimeout   = 5 * time.Second  // three retransmissions of a lost segment
	defaultIdleTimeout      = 10 * time.Second // RFC 7766 section 6.2.3: "of the order of a few seconds"
	maxWorkers              = 1024
	drainTimeout            = 2 * time.Second // to finish what is in flight when told to stop
	// lingerTimeout is how long connections are still read from after the order
	// to stop: what is on its way gets its answer. Those that have asked nothing
	// yet get freshLinger.
	lingerTimeout = 50 * time.Millisecond
	freshLinger   = 1500 * time.Millisecond
	// acceptLinger is how long connections are still accepted: those that the
	// kernel has made already.
	acceptLinger = 10 * time.Millisecond
)

// Config is what a Server needs. Zero means the default where one is named.
type Config struct {
	// Listen has the addresses, for UDP and TCP both; one at least. Port 0 takes
	// a free port, the same for both. 0.0.0.0 is IPv4 alone and :: IPv6 alone.
	Listen []netip.AddrPort
	// TLS has further addresses, for DNS over TLS (RFC 7858); with any, Certificate
	// must be set.
	TLS []netip.AddrPort
	// Certificate chooses the certificate for a client, as tls.Config's GetCertificate
	// does.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ProxyFrom are proxies whose datagrams and connections, TLS too, begin with a header
	// of the PROXY protocol that says whose they are. Whoever is in these networks can
	// claim to be anybody.
	ProxyFrom []netip.Prefix
	// Workers is the number of UDP sockets, and of goroutines that answer, for
	// each address. Zero: one for each core (GOMAXPROCS).
	Workers int
	// Handler answers; required.
	Handler Handler
	// Slow answers what Handler defers. Nil: that gets SERVFAIL.
	Slow SlowHandler
	// Sessions has the stateful sessions over TLS. Nil: there are none (NOTIMP).
	Sessions SessionHandler
	// MaxSlow is how many deferred queries run at once. Zero: 1024.
	MaxSlow int

	// MaxConns and MaxConnsPerIP bound the TCP connections, together and of one
	// client: an IPv4 address or an IPv6 /64. Zero: 2048 and 256.
	MaxConns, MaxConnsPerIP int
	// FirstByteTimeout, MessageTimeout and IdleTimeout bound the wait on a TCP
	// connection for its first octet, for the rest of a message that has begun,
	// and for the next message. Zero: 2 s, 5 s and 10 s.
	FirstByteTimeout, MessageTimeout, IdleTimeout time.Duration

	// NSID is what clients that ask for the server's name get (RFC 5001), of at
	// most NSIDMax octets; empty: nothing. SetNSID changes it.
	NSID string

	// Inherited returns a socket that another process has handed over, by the
	// name that its Sockets had, and gives it away; nil: there is none, and one
	// is bound. A nil Inherited has none.
	Inherited func(name string) *os.File

	// Logger is told of what an operator must know, never of queries. Nil: none.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if len(c.Listen) == 0 {
		return errors.New("dnsserver: Listen: no address to listen on")
	}
	for _, a := range slices.Concat(c.Listen, c.TLS) {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("dnsserver: Listen: %s: not an IPv4 or IPv6 address and port", a)
		}
	}
	if len(c.TLS) > 0 && c.Certificate == nil {
		return errors.New("dnsserver: Certificate: must be set for TLS")
	}
	if c.Handler == nil {
		return errors.New("dnsserver: Handler: must be set")
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"Workers", int64(c.Workers)},
		{"MaxSlow", int64(c.MaxSlow)},
		{"MaxConns", int64(c.MaxConns)},
		{"MaxConnsPerIP", int64(c.MaxConnsPerIP)},
		{"FirstByteTimeout", int64(c.FirstByteTimeout)},
		{"MessageTimeout", int64(c.MessageTimeout)},
		{"IdleTimeout", int64(c.IdleTimeout)},
	} {
		if f.n < 0 {
			return fmt.Errorf("dnsserver: %s: %d: must not be negative", f.name, f.n)
		}
	}
	if c.Workers > maxWorkers {
		return fmt.Errorf("dnsserver: Workers: %d: at most %d", c.Workers, maxWorkers)
	}
	return nil
}

// withDefaults is c with its zeros filled in.
func (c Config) withDefaults() Config {
	orElse := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	orElseTime := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Inherited == nil {
		c.Inherited = func(string) *os.File { return nil }
	}
	orElse(&c.Workers, min(runtime.GOMAXPROCS(0), maxWorkers))
	orElse(&c.MaxSlow, defaultMaxSlow)
	orElse(&c.MaxConns, defaultMaxConns)
	orElse(&c.MaxConnsPerIP, defaultMaxConnsPerIP)
	orElseTime(&c.FirstByteTimeout, defaultFirstByteTimeout)
	orElseTime(&c.MessageTimeout, defaultMessageTimeout)
	orElseTime(&c.IdleTimeout, defaultIdleTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Server listens and answers. Listen, then Run, once each.
type Server struct {
	cfg        Config
	addrs      []netip.AddrPort
	tlsAddrs   []netip.AddrPort
	tls        *tls.Config
	exchanges  sync.Pool // of *exchange
	exchanged  [transports]counters
	badHeaders atomic.Uint64 // datagrams and connections of proxies without a header
	udp        []*udpWorker
	tcp        []*tcpListener
	conns      *connTable
	slow       *slowPool
	panics     *panicLog
	stopping   atomic.Bool
	stopAt     time.Time // when the order to stop came; set before stopping is
	outBuffers bufferPool
	nsid       atomic.Pointer[[]byte] // latest value; SetNSID writes
	cookies    *cookie.Jar
	keys       atomic.Pointer[tsig.Keys] // latest value; SetKeys writes
	stopped    chan struct{}             // closed when stopping becomes true
}

// New checks cfg. It binds nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, stopped: make(chan struct{}), panics: &panicLog{logger: cfg.Logger}}
	s.tls = &tls.Config{GetCertificate: cfg.Certificate, NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS12} // RFC 7858 section 3.2, RFC 8310 section 7.1
	s.conns = newConnTable(cfg.MaxConns, cfg.MaxConnsPerIP)
	s.slow = newSlowPool(cfg.Slow, cfg.MaxSlow, s.panics)
	if err := s.SetNSID(cfg.NSID); err != nil {
		return nil, err
	}
	var err error
	s.cookies, err = newCookies()
	return s, err
}

// Addrs are the addresses bound by Listen, in the order of Config.Listen, with
// the ports that port 0 became.
func (s *Server) Addrs() []netip.AddrPort { return s.addrs }

// Listen binds every address or none, for UDP and TCP. Datagrams and connections
// that come before Run wait in the kernel.
func (s *Server) Listen() error {
	if s.addrs != nil {
		return errors.New("dnsserver: already listening")
	}
	for _, want := range s.cfg.Listen {
		b, err := bind(want, s.cfg.Workers, s.cfg.Inherited)
		if err != nil {
			s.closeAll()
			s.addrs, s.udp, s.tcp = nil, nil, nil
			return fmt.Errorf("dnsserver: listening on %s: %w", want, err)
		}
		s.addrs = append(s.addrs, b.addr)
		s.tcp = append(s.tcp, &tcpListener{ln: b.tcp, srv: s, name: socketName("tcp", want, 0)})
		for _, c := range b.udp {
			s.udp = append(s.udp, newUDPWorker(s, c, b.addr.Addr()))
		}
	}
	for _, want := range s.cfg.TLS {
		name := socketName("tls", want, 0)
		ln, err := ListenTCP(want, s.cfg.Inherited(name))
		if err != nil {
			s.closeAll()
			s.addrs, s.tlsAddrs, s.udp, s.tcp = nil, nil, nil, nil
			return fmt.Errorf("dnsserver: listening on %s for TLS: %w", want, err)
		}
		s.tlsAddrs = append(s.tlsAddrs, ln.Addr().(*net.TCPAddr).AddrPort())
		s.tcp = append(s.tcp, &tcpListener{ln: ln, srv: s, name: name, tls: true})
	}
	return nil
}

// TLSAddrs are the addresses bound for TLS, in the order of Config.TLS.
func (s *Server) TLSAddrs() []netip.AddrPort { return s.tlsAddrs }

// Sockets are the bound sockets by name, for a process to follow this one.
func (s *Server) Sockets() map[string]syscall.Conn {
	sockets := map[string]syscall.Conn{}
	for _, l := range s.tcp {
		sockets[l.name] = l.ln
	}
	for i, w := range s.udp {
		sockets[socketName("udp", s.cfg.Listen[i/s.cfg.Workers], i%s.cfg.Workers)] = w.socket.file
	}
	return sockets
}

func (s *Server) closeAll() {
	for _, w := range s.udp {
		w.socket.close()
	}
	for _, l := range s.tcp {
		l.ln.Close()
	}
}

// Run answers until ctx ends or a socket fails for good. It then answers what
// has been received, lets TCP connections and deferred queries finish what they
// are at, for 2 seconds at most, and closes every socket. When it returns, all
// goroutines have ended. The error is nil when ctx was the reason.
func (s *Server) Run(ctx context.Context) error {
	if s.addrs == nil {
		return errors.New("dnsserver: Run before Listen")
	}
	slowCtx, endSlow := context.WithCancel(context.WithoutCancel(ctx))
	defer endSlow()
	runCtx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	var workers sync.WaitGroup
	for _, w := range s.udp {
		workers.Go(func() {
			if err := w.run(slowCtx); err != nil {
				fail(err)
			}
		})
	}
	for _, l := range s.tcp {
		workers.Go(func() {
			if err := l.run(slowCtx); err != nil {
				fail(err)
			}
		})
	}
	<-runCtx.Done()
	s.stop()
	force := time.AfterFunc(drainTimeout, func() {
		endSlow()
		s.conns.closeAll()
		s.closeAll()
	})
	workers.Wait()
	s.slow.running.Wait()
	for _, w := range s.udp {
		// What has come while streams and deferred queries were finished.
		w.rest(slowCtx)
	}
	s.slow.running.Wait()
	force.Stop()
	s.closeAll()
	if ctx.Err() == nil {
		return context.Cause(runCtx)
	}
	return nil
}

// stop makes every goroutine finish: those that wait for a datagram, a
// connection or a message are woken.
func (s *Server) stop() {
	s.stopAt = time.Now()
	s.stopping.Store(true)
	close(s.stopped)
	for _, w := range s.udp {
		w.socket.wake()
	}
	for _, l := range s.tcp {
		_ = l.ln.SetDeadline(s.stopAt.Add(acceptLinger)) // fails only once closed
	}
	s.conns.wakeAll()
}
