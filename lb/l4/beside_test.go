//go:build linux

package l4_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// The benchmarks below measure a Proxy beside HAProxy: each a process of its
// own with one thread for traffic on core 0, turn by turn, before the same
// instance and clients. What counts is the CPU time and the memory of the
// process; a figure is the median of the rounds' ratios.

// childVariable names the instance that this program proxies to when it runs as
// a process of its own, childListen where a transparent one listens.
const (
	childVariable = "L4_PROXY_TO"
	childListen   = "L4_PROXY_TRANSPARENT"
)

// child is that process: it prints its address and serves until its input ends.
func child(to string) error {
	p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: "svc.internal."}}}})
	if err != nil {
		return err
	}
	d, err := dispatch.New(dispatch.Config{Pool: p})
	if err != nil {
		return err
	}
	cfg := l4.Config{Name: "child", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Dispatcher: d, Default: web, StopTimeout: time.Nanosecond}
	if at := os.Getenv(childListen); at != "" {
		cfg.Listen, cfg.Transparent, cfg.KeepPort = netip.MustParseAddrPort(at), true, true
	}
	proxy, err := l4.New(cfg)
	if err != nil {
		return err
	}
	if err := proxy.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{p.Run, d.Run, proxy.Run} {
		go func() { done <- run(ctx) }()
	}
	a := netip.MustParseAddrPort(to)
	in := registry.Instance{Service: "web", ID: "a", Weight: 1, Port: a.Port(), Incarnation: 1, Addresses: []netip.Addr{a.Addr()}}
	if err := p.Sink(ctx)(registry.Batch{Source: 1, Revision: 1, Reset: true, AsOf: time.Now(), Instances: []registry.Instance{in}}); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, proxy.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	for range 3 {
		if e := <-done; e != nil && !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// contender is a process that proxies.
type contender struct {
	cmd  *exec.Cmd
	addr string
}

// contenders starts both before an instance.
func contenders(b *testing.B, to string) [2]contender {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	own := exec.Command("taskset", "-c", "0", self)
	own.Env = append(os.Environ(), childVariable+"="+to)
	out, err := own.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	startChild(b, own)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}

	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy = "/usr/sbin/haproxy" // Debian's place, in few users' PATH
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	file := filepath.Join(b.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
  maxconn 9950
  maxpipes 40
  tune.pipesize 262144
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  option splice-request
  option splice-response
listen web
  bind %s
  server a %s
`, at, to)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	peer := exec.Command("taskset", "-c", "0", haproxy, "-db", "-f", file)
	peer.Stderr = os.Stderr
	startChild(b, peer)
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
	return [2]contender{{own, strings.TrimSpace(line)}, {peer, at}}
}

// startChild starts a program that ends with the benchmark.
func startChild(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatalf("%v: apt-get install haproxy util-linux", err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by that signal
	})
}

// cpu is the time that a process's threads have been on a core.
func (c contender) cpu(b *testing.B) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		b.Fatalf("no threads of %s: %v", c.cmd.Path, err)
	}
	var sum time.Duration
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// memory is a process's share of resident memory, octets.
func (c contender) memory(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "Pss: %g kB", &kib); err == nil {
			return kib * 1024
		}
	}
	b.Fatal("no Pss")
	return 0
}

// besideRounds is how often both have their turn.
const besideRounds = 7

// beside reports what one unit of load costs each, in what unit says.
func beside(b *testing.B, unit string, serve func(*net.TCPConn), load func(b *testing.B, to string) (units int)) {
	both := contenders(b, serveFor(b, serve))
	var ratios, cost [2][]float64
	for round := range besideRounds + 1 {
		var us [2]float64
		for i, c := range both {
			from := c.cpu(b)
			n := load(b, c.addr)
			us[i] = float64((c.cpu(b) - from).Microseconds()) / float64(n)
		}
		if round == 0 {
			continue // warm-up
		}
		for i := range both {
			cost[i] = append(cost[i], us[i])
		}
		ratios[0] = append(ratios[0], us[0]/us[1])
	}
	for b.Loop() { // what was measured was the children
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(middle(cost[0]), "us/"+unit)
	b.ReportMetric(middle(cost[1]), "haproxy-us/"+unit)
	b.ReportMetric(middle(ratios[0]), "ratio")
	b.ReportMetric(slices.Min(ratios[0]), "ratio-min")
	b.ReportMetric(slices.Max(ratios[0]), "ratio-max")
}

func middle(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// serveFor runs an instance for a benchmark and returns its address.
func serveFor(b *testing.B, f func(*net.TCPConn)) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

// exchange sends a question of 100 octets and reads n.
func exchange(b *testing.B, c net.Conn, buf []byte, n int) {
	if _, err := c.Write(buf[:100]); err != nil {
		b.Error(err)
		return
	}
	for n > 0 {
		got, err := c.Read(buf[:min(n, len(buf))])
		if err != nil {
			b.Error(err)
			return
		}
		n -= got
	}
}

// answering answers each question of 100 octets with n.
func answering(n int) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		question, answer := make([]byte, 100), make([]byte, n)
		for {
			if _, err := io.ReadFull(c, question); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// exchanges has clients ask on a connection each, n times.
func exchanges(clients, n, octets int) func(*testing.B, string) int {
	return func(b *testing.B, to string) int {
		var group sync.WaitGroup
		for range clients {
			group.Go(func() {
				c, err := net.Dial("tcp", to)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				buf := make([]byte, 256<<10)
				for range n {
					exchange(b, c, buf, octets)
				}
			})
		}
		group.Wait()
		return clients * n
	}
}

func BenchmarkBeside_Small(b *testing.B) {
	beside(b, "request", answering(200), exchanges(32, 1000, 200))
}

func BenchmarkBeside_OneAtATime(b *testing.B) {
	beside(b, "request", answering(200), exchanges(1, 10_000, 200))
}

func BenchmarkBeside_Megabyte(b *testing.B) {
	beside(b, "MB", answering(1<<20), exchanges(4, 200, 1<<20))
}

func BenchmarkBeside_Connection(b *testing.B) {
	beside(b, "connection", answering(200), func(b *testing.B, to string) int {
		const clients, each = 8, 500
		var group sync.WaitGroup
		for range clients {
			group.Go(func() {
				buf := make([]byte, 256)
				for range each {
					c, err := net.Dial("tcp", to)
					if err != nil {
						b.Error(err)
						return
					}
					exchange(b, c, buf, 200)
					_ = c.(*net.TCPConn).SetLinger(0) // or ports run out
					c.Close()
				}
			})
		}
		group.Wait()
		return clients * each
	})
}

func BenchmarkBeside_Idle(b *testing.B) {
	both := contenders(b, serveFor(b, answering(200)))
	var each [2]float64
	const n = 9_000 // with a limit of 20,000 descriptors that many go through
	for i, c := range both {
		exchanges(32, 100, 200)(b, c.addr) // warm-up
		before := c.memory(b)
		var open []net.Conn
		buf := make([]byte, 256)
		for range n {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				b.Fatal(err)
			}
			exchange(b, conn, buf, 200)
			open = append(open, conn)
		}
		each[i] = (c.memory(b) - before) / n
		for _, conn := range open {
			conn.Close()
		}
	}
	for b.Loop() { // what was measured was the children
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(each[0], "B/connection")
	b.ReportMetric(each[1], "haproxy-B/connection")
	b.ReportMetric(each[0]/each[1], "ratio")
}
