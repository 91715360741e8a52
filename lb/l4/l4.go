//go:build linux

// Package l4 is the proxy of TCP connections and UDP flows, in userspace. A
// Proxy is one listener; what comes to it goes to an instance that package
// dispatch chooses.
//
// # Loops
//
// A Proxy runs one loop a worker. A loop is a goroutine that waits for epoll
// and owns its connections: no other goroutine touches them, they need no lock,
// and an idle connection costs two descriptors and a few hundred octets, with
// no goroutine, buffer or pipe. (Two goroutines and two net.TCPConns are about
// 10 KiB.) Each socket is registered once, edge-triggered, so that a small
// message costs three system calls: wait, receive, send. What comes from
// elsewhere (an instance's end, an accepted connection of a loop that has more
// than its share, the order to stop) comes by message.
//
// # Copying and splicing
//
// A direction is copied through a buffer that all connections of the loop
// share. When a message fills the buffer, the direction goes on by splice(2)
// through a pipe: for large bodies that is cheaper by a third, for small
// messages it is not. A direction holds a pipe, or octets of its own, only
// while its receiver is slower than its sender. Octets are counted as they are
// moved, so counts are live.
//
// # Ends
//
// A FIN is passed on as a FIN, once all before it was sent, and a reset as a
// reset, so that a client can tell a cut-off answer from a whole one. With one
// side closed, the other may stay silent for HalfCloseTimeout only. An instance
// that fails its checks has its connections reset or left, as OnDown says; one
// that is drained or deregistered keeps them for DrainTimeout.
//
// # Handing over
//
// Sockets are the listening sockets, for another process, whose Config.Inherited
// returns them. Both accept from one queue until the old one's Run has ended, so
// no connection is refused, and none in the queue is lost.
package l4

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
)

// OnDown is what becomes of the connections of an instance whose checks fail.
type OnDown uint8

// The ways. The zero value is DownReset: a client that gets a reset connects
// again, one that waits for a dead instance waits for its own timeout.
const (
	DownReset OnDown = iota // they are reset at once
	DownDrain               // they are left to end by themselves
)

// Defaults of Config.
const (
	// DefaultConnectTimeout covers one lost SYN, which is sent again after 1 s.
	DefaultConnectTimeout   = 2 * time.Second
	DefaultRetries          = 3 // HAProxy's number
	DefaultHelloTimeout     = 5 * time.Second
	DefaultIdleTimeout      = 10 * time.Minute
	DefaultFlowTimeout      = 30 * time.Second // as conntrack's for UDP without a stream
	DefaultHalfCloseTimeout = 30 * time.Second
	DefaultStopTimeout      = 30 * time.Second
	DefaultConnsMax         = 100_000
)

// workersMax bounds the loops: more than any machine has cores for.
const workersMax = 256

// Config configures a Proxy: one listener. Durations and counts of zero mean
// their default.
type Config struct {
	Name   string         // of the listener, in logs
	Listen netip.AddrPort // port 0: any free one
	UDP    bool           // flows of datagrams; else TCP connections
	// Inherited returns a socket that another process has handed over, by the
	// name that Sockets gave it, or nil. Where there is one, none is bound. A nil
	// Inherited has none.
	Inherited func(name string) *os.File

	Dispatcher *dispatch.Dispatcher // required
	// Default is the service of all that Names does not route. Without a
	// service (the zero value), that is reset.
	Default dispatch.Ref
	// Names routes TLS connections by the name in their ClientHello. With
	// names, a client has to speak first.
	Names []NameRoute

	Workers int          // loops; default GOMAXPROCS
	Log     *slog.Logger // nil: none

	// ConnectTimeout bounds one attempt, Retries how many other instances are
	// tried (at most dispatch.TriedMax, -1: none), all before an octet of the
	// client was sent.
	ConnectTimeout time.Duration
	Retries        int
	// HelloTimeout bounds the wait for a PROXY header or ClientHello.
	HelloTimeout time.Duration
	// IdleTimeout ends what is silent in both directions: connections after
	// DefaultIdleTimeout, flows after DefaultFlowTimeout.
	IdleTimeout      time.Duration
	HalfCloseTimeout time.Duration // the same with one direction closed
	OnDown           OnDown
	// DrainTimeout is how long connections last after their instance was
	// drained or deregistered, or failed its checks under DownDrain; then they
	// are reset. 0: as long as they like.
	DrainTimeout time.Duration
	// StopTimeout is how long connections last after Run's context has ended.
	// Flows wait a second for one more answer.
	StopTimeout time.Duration

	// ConnsMax bounds the connections (flows), and ConnsPerClient those of one
	// client: an IPv4 address or an IPv6 network of 64 bits; 0: no bound.
	// InstanceMax bounds those in flight at one instance; 0: no bound. What is
	// beyond is reset (UDP: dropped) and counted.
	ConnsMax       int
	ConnsPerClient int
	InstanceMax    int64

	// ProxyFrom are networks whose connections begin with a PROXY header,
	// version 1 or 2. From elsewhere none is read.
	ProxyFrom []netip.Prefix
	ProxyTo   bool // send a PROXY header, version 2, to the instances

	// Transparent keeps the client's address towards the instance and takes
	// what is sent to any address and port (IP_TRANSPARENT). It needs
	// CAP_NET_ADMIN, rules that bring the packets here (testdata/tproxy.nft has
	// them; the Proxy makes none), and that the instances' answers come back by
	// this machine. For TCP. KeepPort connects to the
	// port that the client asked for instead of the instance's.
	Transparent bool
	KeepPort    bool
}

// NameRoute sends the clients that ask for a name to a service.
type NameRoute struct {
	// Names are host names, or "*.example.com" for all below it. A whole name
	// goes before a pattern, a longer pattern before a shorter.
	Names []string
	To    dispatch.Ref
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	or := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	or(&c.ConnectTimeout, DefaultConnectTimeout)
	or(&c.HelloTimeout, DefaultHelloTimeout)
	if c.UDP {
		or(&c.IdleTimeout, DefaultFlowTimeout)
	}
	or(&c.IdleTimeout, DefaultIdleTimeout)
	or(&c.HalfCloseTimeout, DefaultHalfCloseTimeout)
	or(&c.StopTimeout, DefaultStopTimeout)
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Retries == 0 {
		c.Retries = DefaultRetries
	}
	if c.ConnsMax == 0 {
		c.ConnsMax = DefaultConnsMax
	}
	if c.Inherited == nil {
		c.Inherited = func(string) *os.File { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports the first thing that cannot be.
func (c *Config) validate() error {
	switch {
	case c.Dispatcher == nil:
		return errors.New("no Dispatcher")
	case !c.Listen.IsValid():
		return errors.New("no address to listen on")
	case c.Workers < 0 || c.Workers > workersMax:
		return fmt.Errorf("%d workers: must be 0 to %d", c.Workers, workersMax)
	case c.Retries < -1 || c.Retries > dispatch.TriedMax:
		return fmt.Errorf("%d retries: must be -1 to %d", c.Retries, dispatch.TriedMax)
	case c.ConnsMax < 0 || c.ConnsPerClient < 0 || c.InstanceMax < 0:
		return errors.New("a limit of connections is negative")
	case c.OnDown > DownDrain:
		return fmt.Errorf("on down %d: unknown", c.OnDown)
	case c.UDP && (len(c.Names) > 0 || len(c.ProxyFrom) > 0 || c.ProxyTo):
		return errors.New("names and PROXY headers are for TCP")
	case c.UDP && c.Transparent:
		return errors.New("transparent mode is for TCP")
	case c.KeepPort && !c.Transparent:
		return errors.New("keeping the port needs transparent mode")
	case c.Default == (dispatch.Ref{}) && len(c.Names) == 0:
		return errors.New("no service to forward to")
	}
	for what, d := range map[string]time.Duration{
		"connect": c.ConnectTimeout, "hello": c.HelloTimeout, "idle": c.IdleTimeout,
		"half-close": c.HalfCloseTimeout, "drain": c.DrainTimeout, "stop": c.StopTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%s timeout %s is negative", what, d)
		}
	}
	for _, r := range c.Names {
		for _, n := range r.Names {
			if n == "" || strings.Contains(strings.TrimPrefix(n, "*."), "*") {
				return fmt.Errorf("name %q: want a host name or *. before one", n)
			}
		}
	}
	return nil
}
