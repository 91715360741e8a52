package probe_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// timeout is that of checks that are to reach it; others get patience, which
	// only a failing test waits for.
	timeout  = 300 * time.Millisecond
	patience = 20 * time.Second
	// grace is by how much a check may outlive its timeout on a machine that is
	// busy; on an idle one it is a few milliseconds.
	grace = 2 * time.Second
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newSet(t testing.TB, cfg probe.Config) *probe.Set {
	t.Helper()
	s, err := probe.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expect is what a probe must come to.
type expect struct {
	ok      bool
	refused bool
	output  string // contained in Output; "ADDR" stands for the target's address
	load    float64
	slow    bool // it takes the whole timeout
}

// probeOnce probes with loopback allowed and holds the result against want and
// every rule that results keep.
func probeOnce(t *testing.T, s *probe.Set, x health.Target, want expect) {
	t.Helper()
	if x.Timeout == 0 {
		if x.Timeout = patience; want.slow {
			x.Timeout = timeout
		}
	}
	start := time.Now()
	r := s.Probe(t.Context(), x)
	took := time.Since(start)
	want.output = strings.ReplaceAll(want.output, "ADDR", x.Addr.String())
	if r.OK != want.ok || r.Refused != want.refused || !strings.Contains(r.Output, want.output) {
		t.Errorf("got OK %v, refused %v, %q; want OK %v, refused %v, %q", r.OK, r.Refused, r.Output, want.ok, want.refused, want.output)
	}
	if r.Load != want.load {
		t.Errorf("load %v, want %v", r.Load, want.load)
	}
	wantLine(t, r.Output)
	if took > x.Timeout+grace || (took >= x.Timeout) != want.slow {
		t.Errorf("took %v with a timeout of %v", took, x.Timeout)
	}
	if r.Latency <= 0 || r.Latency > took {
		t.Errorf("latency %v of a probe that took %v", r.Latency, took)
	}
}

// wantLine checks what Outputs promise.
func wantLine(t *testing.T, output string) {
	t.Helper()
	bad := strings.ContainsFunc(output, func(r rune) bool { return r < ' ' || r >= 0x7f })
	if output == "" || len(output) > 200 || bad {
		t.Errorf("output %q: want one line of printable ASCII, 1 to 200 octets", output)
	}
}

// serve accepts connections and hands each to handle, which owns it. All are
// closed, and every handle has returned, when the test ends.
func serve(t testing.TB, handle func(ctx context.Context, c net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				ctx, cancel := context.WithCancel(t.Context())
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				defer cancel()
				handle(ctx, c)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return addrOf(l.Addr())
}

// silent reads until the client goes and answers nothing.
func silent(_ context.Context, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// openFiles counts this process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// wantFiles waits until no more than most are open: servers see the ends of their
// connections a little later.
func wantFiles(t testing.TB, most int) {
	t.Helper()
	n := openFiles(t)
	for end := time.Now().Add(patience); n > most && time.Now().Before(end); n = openFiles(t) {
		runtime.Gosched()
	}
	if n > most {
		t.Errorf("%d files open, want %d at most", n, most)
	}
}
