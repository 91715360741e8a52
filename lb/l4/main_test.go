//go:build linux

package l4_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(childVariable); to != "" {
		if err := child(to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait; only a failing test waits so long.
const patience = 30 * time.Second

// env is a live pool and what stands before and behind a proxy.
type env struct {
	t        *testing.T
	dispatch *dispatch.Dispatcher
	sink     func(registry.Batch) error
	pool     *pool.Pool
	rev      int64
	list     []registry.Instance
}

// web is the service of the tests.
var web = dispatch.Ref{Source: 1, Service: "web"}

// newEnv runs a pool and a Dispatcher until the test ends. By then all
// descriptors that were opened since must be closed.
func newEnv(t *testing.T) *env {
	t.Helper()
	settle, err := net.Listen("tcp", "127.0.0.1:0") // package net's own descriptors
	if err != nil {
		t.Fatal(err)
	}
	settle.Close()
	before := descriptors(t)
	t.Cleanup(func() {
		wait(t, "all descriptors to be closed", func() bool {
			runtime.GC() // the tests' own clients may leave a file to it; the Proxy's are bare numbers
			return descriptors(t) <= before
		})
	})
	p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: "svc.internal."}}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dispatch.New(dispatch.Config{Pool: p})
	if err != nil {
		t.Fatal(err)
	}
	run(t, p.Run)
	run(t, d.Run)
	return &env{t: t, dispatch: d, pool: p, sink: p.Sink(context.Background())} //nolint:usetesting // outlives the test's context, in cleanups
}

// run runs f until the test ends; what is returned ends it earlier.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // t.Context ends before cleanups
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run goes on after its context has ended")
		}
	})
	t.Cleanup(stop)
	return stop
}

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// wait waits until what is true.
func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	end, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-end:
			t.Fatalf("waited for %s", what)
		case <-tick.C:
		}
	}
}

// apply sinks a batch and waits until the pool has it.
func (e *env) apply(b registry.Batch) {
	e.t.Helper()
	e.rev++
	b.Source, b.Revision, b.AsOf = 1, e.rev, time.Now()
	if err := e.sink(b); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.pool.Status(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// add registers an instance "web/a" at an address.
func (e *env) add(name string, at net.Addr) {
	e.t.Helper()
	service, id, _ := strings.Cut(name, "/")
	a := netip.MustParseAddrPort(at.String())
	in := registry.Instance{Service: service, ID: id, Weight: 1, Port: a.Port(), Incarnation: 1, Addresses: []netip.Addr{a.Addr()}}
	e.list = append(e.list, in)
	e.apply(registry.Batch{Reset: e.rev == 0, Instances: []registry.Instance{in}})
}

// admin is an administrator's word on an instance of web.
func (e *env) admin(id string, s registry.AdminState) {
	e.t.Helper()
	e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: id, State: s}}})
}

// policy sets how web's proxies choose.
func (e *env) policy(name string) {
	e.t.Helper()
	e.apply(registry.Batch{Reset: e.rev == 0, Services: []registry.Service{{Name: "web", Policy: name}}})
}

// proxy is one that runs.
type proxy struct {
	*l4.Proxy
	t    *testing.T
	stop func()
}

// newProxy makes one for service web on 127.0.0.1, and does not run it.
func (e *env) newProxy(change ...func(*l4.Config)) *l4.Proxy {
	e.t.Helper()
	cfg := l4.Config{Name: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Dispatcher: e.dispatch, Default: web, Workers: 2}
	for _, f := range change {
		f(&cfg)
	}
	p, err := l4.New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := p.Listen(); err != nil {
		e.t.Fatal(err)
	}
	return p
}

func (e *env) start(change ...func(*l4.Config)) *proxy {
	e.t.Helper()
	p := e.newProxy(change...)
	return &proxy{Proxy: p, t: e.t, stop: run(e.t, p.Run)}
}

// dial connects to the proxy; the connection is closed with the test, and its
// waits are bounded.
func (p *proxy) dial() *net.TCPConn {
	p.t.Helper()
	return dialFrom(p.t, "", p.Addr().String())
}

func dialFrom(t *testing.T, local, to string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// refused wants a connection to be reset as soon as it is made.
func (p *proxy) refused(from string) {
	p.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", p.Addr().String())
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			p.t.Error(err)
		}
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	wantEnding(p.t, c, "reset")
}

// backend is a TCP server of the test.
type backend struct {
	net.Listener
	conns sync.WaitGroup
	mu    sync.Mutex
	open  map[net.Conn]struct{}
}

// serve runs a server that handles each connection by f and closes it after.
func serve(t *testing.T, f func(*net.TCPConn)) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{Listener: l, open: map[net.Conn]struct{}{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open[c] = struct{}{}
			b.mu.Unlock()
			b.conns.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		b.mu.Lock()
		for c := range b.open {
			c.Close()
		}
		b.mu.Unlock()
		b.conns.Wait()
	})
	return b
}

// echo says back what it hears, and ends when the client does.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // ends with the connection
}

// named says its name, and then what it hears.
func named(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if _, err := io.WriteString(c, name+"\n"); err == nil {
			echo(c)
		}
	}
}

// say sends a line and wants it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	hear(t, c, text)
}

// hear wants text next.
func hear(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("reading %q: %v", text, err)
	}
	if string(b) != text {
		t.Fatalf("read %q, want %q", b, text)
	}
}

// ending is how a connection ends: "closed", "reset", or what comes instead.
func ending(c net.Conn) string {
	b := make([]byte, 64)
	n, err := c.Read(b)
	switch {
	case n > 0:
		return fmt.Sprintf("%q", b[:n])
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	default:
		return err.Error()
	}
}

func wantEnding(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got := ending(c); got != want {
		t.Errorf("the connection ends with %s, want %s", got, want)
	}
}

// count waits until a figure of the proxy is n.
func (p *proxy) count(what string, f func(l4.Stats) uint64, n uint64) {
	p.t.Helper()
	wait(p.t, fmt.Sprintf("%d %s", n, what), func() bool { return f(p.Stats()) == n })
}

// idle waits until the proxy has no connection.
func (p *proxy) idle() {
	p.t.Helper()
	wait(p.t, "the last connection to end", func() bool { return p.Stats().Active == 0 })
}
