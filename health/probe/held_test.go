package probe_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/registry/registrytest"
)

// running is a Set that runs until the test ends, and the losses it tells of.
func running(t testing.TB, cfg probe.Config) (*probe.Set, <-chan health.Target) {
	t.Helper()
	lost := make(chan health.Target, 100)
	cfg.AllowTargets, cfg.Lost = loopback, func(x health.Target) { lost <- x }
	s := newSet(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := s.Stats().Kept; n != 0 {
			t.Errorf("%d connections kept after the end", n)
		}
	})
	// It runs once it keeps something.
	x := health.Target{Type: health.TypeHeld, Addr: serve(t, silent), Timeout: patience}
	for s.Stats().Kept == 0 {
		s.Probe(t.Context(), x)
	}
	s.Forget(x)
	return s, lost
}

// instance is a server that can be killed and started again at its address. It
// hands out its connections, and closes those it still has when it is killed.
type instance struct {
	t     testing.TB
	addr  netip.AddrPort
	l     net.Listener
	conns chan net.Conn
	done  chan struct{}
	all   []net.Conn
}

func startInstance(t testing.TB) *instance {
	t.Helper()
	i := &instance{t: t, addr: netip.MustParseAddrPort(registrytest.FreeAddr(t)), conns: make(chan net.Conn, 16)}
	i.start()
	t.Cleanup(i.kill)
	return i
}

func (i *instance) start() {
	i.t.Helper()
	l, err := net.Listen("tcp", i.addr.String())
	if err != nil {
		i.t.Fatal(err)
	}
	i.l, i.done = l, make(chan struct{})
	go func() {
		defer close(i.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			i.all = append(i.all, c)
			i.conns <- c
		}
	}()
}

// kill closes what the kernel would close, in its order.
func (i *instance) kill() {
	_ = i.l.Close()
	<-i.done
	for _, c := range i.all {
		_ = c.Close()
	}
	i.all = nil
}

// wantLost waits to be told of the target.
func wantLost(t *testing.T, lost <-chan health.Target, want health.Target) {
	t.Helper()
	select {
	case got := <-lost:
		if got != want {
			t.Fatalf("told of %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatal("told of no end")
	}
}

func wantResult(t *testing.T, r health.Result, ok, final bool, output string) {
	t.Helper()
	if r.OK != ok || r.Final != final || !strings.Contains(r.Output, output) {
		t.Errorf("OK %v, final %v: %q; want OK %v, final %v: %q", r.OK, r.Final, r.Output, ok, final, output)
	}
}

// fast is how long a connection must last, and old waits until one just made
// has: real sockets know no bubble.
const fast = 50 * time.Millisecond

func old() { <-time.After(2 * fast) }

func TestSet_Held(t *testing.T) {
	s, lost := running(t, probe.Config{})
	probe1 := func(x health.Target) health.Result { return s.Probe(t.Context(), x) }
	held := func(addr netip.AddrPort) health.Target {
		return health.Target{Type: health.TypeHeld, Addr: addr, Interval: time.Second, FastInterval: fast, Timeout: 5 * time.Second}
	}
	t.Run("one connection serves many checks", func(t *testing.T) {
		i := startInstance(t)
		for range 3 {
			wantResult(t, probe1(held(i.addr)), true, false, "held "+i.addr.String()+": connected")
		}
		<-i.conns
		if len(i.conns) != 0 {
			t.Errorf("%d connections more than one", len(i.conns))
		}
		s.Forget(held(i.addr))
	})
	t.Run("killed: told at once, and refused is the verdict", func(t *testing.T) {
		i := startInstance(t)
		x := held(i.addr)
		wantResult(t, probe1(x), true, false, "connected")
		<-i.conns
		old()
		i.kill()
		wantLost(t, lost, x)
		r := probe1(x)
		wantResult(t, r, false, true, "closed by the instance: connection refused")
		if !r.Refused {
			t.Error("not refused")
		}
	})
	t.Run("started again: passes without a failure", func(t *testing.T) {
		i := startInstance(t)
		x := held(i.addr)
		wantResult(t, probe1(x), true, false, "connected")
		<-i.conns
		old()
		i.kill()
		i.start()
		wantLost(t, lost, x)
		wantResult(t, probe1(x), true, false, "closed by the instance: connected")
		s.Forget(x)
	})
	t.Run("reset: told at once", func(t *testing.T) {
		i := startInstance(t)
		x := held(i.addr)
		wantResult(t, probe1(x), true, false, "connected")
		c := <-i.conns
		old()
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		wantLost(t, lost, x)
		wantResult(t, probe1(x), true, false, "reset by the instance: connected")
		s.Forget(x)
	})
	t.Run("accepts and drops: failing, and not asked in a loop", func(t *testing.T) {
		i := startInstance(t)
		x := held(i.addr)
		x.FastInterval = time.Minute
		wantResult(t, probe1(x), true, false, "connected")
		_ = (<-i.conns).Close()
		wantLost(t, lost, x)
		wantResult(t, probe1(x), false, true, "closed by the instance, ")
		if len(i.conns) != 0 {
			t.Error("it was asked again at once")
		}
	})
	t.Run("what comes unasked is thrown away, to a limit", func(t *testing.T) {
		i := startInstance(t)
		x := held(i.addr)
		wantResult(t, probe1(x), true, false, "connected")
		c := <-i.conns
		if _, err := io.WriteString(c, "220 mail.test ESMTP\r\n"); err != nil {
			t.Fatal(err)
		}
		wantResult(t, probe1(x), true, false, "connected")
		go flood(c, "", strings.Repeat("x", 4096), new(atomic.Int64))
		wantLost(t, lost, x)
		wantResult(t, probe1(x), false, true, "unasked")
	})
	t.Run("with a path: a wrong answer is the verdict", func(t *testing.T) {
		code, conns := http.StatusOK, 0
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		server.Config.ConnState = func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns++
			}
		}
		server.Start()
		defer server.Close()
		x := held(addrOf(server.Listener.Addr()))
		x.Path = "/live"
		wantResult(t, probe1(x), true, false, "200 OK")
		wantResult(t, probe1(x), true, false, "200 OK")
		code = http.StatusInternalServerError
		wantResult(t, probe1(x), false, true, "500")
		if conns != 1 {
			t.Errorf("%d connections", conns)
		}
	})
	t.Run("with a path: a process that hangs is the verdict", func(t *testing.T) {
		x := health.Target{Type: health.TypeHeld, Addr: serve(t, silent), Path: "/", Interval: time.Second, Timeout: timeout}
		wantResult(t, probe1(x), false, true, "no response within 300ms")
	})
}

func TestSet_Held_KeepMax(t *testing.T) {
	s, _ := running(t, probe.Config{KeepMax: 2})
	before := s.Stats().Full // it may have found no room before it ran
	addr := serve(t, silent)
	for n := range 4 {
		x := health.Target{Type: health.TypeHeld, Addr: addr, Service: fmt.Sprint(n), Timeout: patience}
		if r := s.Probe(t.Context(), x); !r.OK || strings.Contains(r.Output, "not held") != (n >= 2) {
			t.Errorf("target %d: %+v", n, r)
		}
	}
	if st := s.Stats(); st.Kept != 2 || st.Full-before != 2 {
		t.Errorf("%+v", st)
	}
}

func TestSet_Held_without_Run_is_checked_once(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	before := openFiles(t)
	r := s.Probe(t.Context(), health.Target{Type: health.TypeHeld, Addr: serve(t, silent), Timeout: patience})
	wantResult(t, r, true, false, "not held")
	wantFiles(t, before+2) // the listener, and its end of the connection
}

func TestSet_HTTP_Keep(t *testing.T) {
	s, lost := running(t, probe.Config{})
	conns := make(chan net.Conn, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		if r.URL.Path == "/load" {
			w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization=0.8, application_utilization=0.3")
		}
		fmt.Fprint(w, "well")
	}))
	server.Config.ConnState = func(c net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns <- c
		}
	}
	server.Start()
	defer server.Close()
	x := health.Target{Type: health.TypeHTTP, Addr: addrOf(server.Listener.Addr()), Path: "/load", Keep: true, Interval: time.Second, FastInterval: fast, Timeout: 5 * time.Second}
	for range 3 {
		if r := s.Probe(t.Context(), x); !r.OK || r.Load != 0.3 {
			t.Errorf("%+v", r)
		}
	}
	first := <-conns
	if len(conns) != 0 {
		t.Errorf("%d connections more than one", len(conns))
	}
	t.Run("an end is told of, and the next check has a connection of its own", func(t *testing.T) {
		old()
		_ = first.Close()
		wantLost(t, lost, x)
		wantResult(t, s.Probe(t.Context(), x), true, false, "200 OK")
		<-conns
	})
	t.Run("the end of a young one is told of too, unless the one before was young", func(t *testing.T) {
		y := x
		y.Path, y.FastInterval = "/", time.Minute
		for _, told := range []bool{true, false, false} {
			wantResult(t, s.Probe(t.Context(), y), true, false, "200 OK")
			i := startInstance(t) // whose end is told of after it
			z := health.Target{Type: health.TypeHeld, Addr: i.addr, Timeout: patience}
			wantResult(t, s.Probe(t.Context(), z), true, false, "connected")
			_ = (<-conns).Close()
			if told {
				wantLost(t, lost, y)
			}
			_ = (<-i.conns).Close()
			wantLost(t, lost, z)
			s.Forget(z)
		}
		s.Forget(y)
	})
	t.Run("a server that announces the end of each connection is not told of", func(t *testing.T) {
		y := x
		y.Path = "/close"
		for range 3 {
			wantResult(t, s.Probe(t.Context(), y), true, false, "200 OK")
			<-conns
		}
		if len(lost) != 0 {
			t.Error("told of an end that the response announced")
		}
	})
	t.Run("what comes behind a response ends the connection", func(t *testing.T) {
		y := x
		y.Addr = says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n")
		kept := s.Stats().Kept
		wantResult(t, s.Probe(t.Context(), y), true, false, "200 OK")
		if s.Stats().Kept > kept {
			t.Error("it is kept")
		}
	})
}

// TestSet_Run_LeavesNothing holds targets that hang, drip, reset and flood, with
// and without a response, and counts what is left.
func TestSet_Run_LeavesNothing(t *testing.T) {
	before := openFiles(t)
	t.Run("bad peers", func(t *testing.T) {
		s, _ := running(t, probe.Config{})
		reset := func(_ context.Context, c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() }
		peers := []netip.AddrPort{
			serve(t, silent), serve(t, reset), serve(t, func(ctx context.Context, c net.Conn) { drip(ctx, c, "HTTP/1.1 200 OK\r\nX: ") }),
			serve(t, func(_ context.Context, c net.Conn) { flood(c, "", strings.Repeat("x", 4096), new(atomic.Int64)) }),
			says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), registrytest.Nobody(t),
		}
		for range 20 {
			for _, addr := range peers {
				for _, path := range []string{"", "/"} {
					s.Probe(t.Context(), health.Target{Type: health.TypeHeld, Addr: addr, Path: path, Interval: time.Second, Timeout: 5 * time.Millisecond})
				}
				s.Probe(t.Context(), health.Target{Type: health.TypeHTTP, Addr: addr, Keep: true, Interval: time.Second, Timeout: 5 * time.Millisecond})
			}
		}
		if n := s.Stats().Kept; n > 3*len(peers) {
			t.Errorf("%d connections kept for %d targets", n, 3*len(peers))
		}
	})
	wantFiles(t, before+2) // the runtime's poller is one
}
