//go:build linux

package l4_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/registry/registrytest"
)

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) net.Addr { return net.TCPAddrFromAddrPort(registrytest.Nobody(t)) }

// blackHole is an address that answers nothing: its queue is full, and the
// kernel drops every SYN.
func blackHole(t *testing.T) net.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "black hole")
	defer f.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for { // until one is not taken
		c, err := net.DialTimeout("tcp", l.Addr().String(), 500*time.Millisecond)
		if err != nil {
			return l.Addr()
		}
		t.Cleanup(func() { c.Close() })
	}
}

func TestProxy_RefusedConnectionsGoToAnother(t *testing.T) {
	e := newEnv(t)
	e.add("web/dead", closedPort(t))
	e.add("web/live", serve(t, echo).Addr())
	p := e.start()
	for range 50 {
		say(t, p.dial(), "hello\n")
	}
	s := p.Stats()
	if s.Connected != 50 || s.Unserved != 0 || s.Unreachable == 0 || s.Retried != s.Unreachable {
		t.Errorf("stats %+v", s)
	}
	for _, i := range p.Explain(p.Addr().Addr(), "").Backend.Instances {
		if failed := i.Failures > 0; failed != (i.ID == "dead") {
			t.Errorf("instance %s has %d failures", i.ID, i.Failures)
		}
	}
}

func TestProxy_SilentInstancesGiveWayToAnother(t *testing.T) {
	e := newEnv(t)
	e.policy("round-robin")
	e.add("web/dead", blackHole(t))
	e.add("web/live", serve(t, echo).Addr())
	p := e.start(func(c *l4.Config) { c.ConnectTimeout = time.Second })
	for range 6 {
		say(t, p.dial(), "hello\n")
	}
	if s := p.Stats(); s.Connected != 6 || s.ConnectLate == 0 || s.Retried != s.ConnectLate {
		t.Errorf("stats %+v", s)
	}
}

// TestProxy_InstanceThatResetsAtOnce: a process that is being killed accepts in
// the kernel and resets. What it never got goes to another.
func TestProxy_InstanceThatResetsAtOnce(t *testing.T) {
	for _, header := range []bool{false, true} {
		e := newEnv(t)
		e.add("web/dying", serve(t, func(c *net.TCPConn) { _ = c.SetLinger(0) }).Addr())
		e.add("web/live", serve(t, func(c *net.TCPConn) {
			if header {
				if _, err := io.ReadFull(c, make([]byte, 28)); err != nil {
					t.Error(err)
				}
			}
			named("live")(c)
		}).Addr())
		p := e.start(func(c *l4.Config) { c.ProxyTo = header })
		for range 30 {
			c := p.dial() // says nothing first
			hear(t, c, "live\n")
			say(t, c, "hello\n")
		}
		if s := p.Stats(); s.Retried == 0 || s.Unserved > 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

func TestProxy_NobodyToServe(t *testing.T) {
	e := newEnv(t)
	p := e.start(func(c *l4.Config) { c.Retries = 1 })
	p.refused("127.0.0.1") // not registered
	for _, id := range []string{"a", "b", "c", "d"} {
		e.add("web/"+id, closedPort(t))
	}
	p.refused("127.0.0.1") // all refuse; two were asked
	p.count("unserved", func(s l4.Stats) uint64 { return s.Unserved }, 2)
	if s := p.Stats(); s.Unreachable != 2 || s.Retried != 1 {
		t.Errorf("stats %+v", s)
	}
	p.idle()
}

func TestProxy_Limits(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	all := e.start(func(c *l4.Config) { c.ConnsMax = 3 })
	one := e.start(func(c *l4.Config) { c.ConnsPerClient = 2 })
	instance := e.start(func(c *l4.Config) { c.InstanceMax = 8 })
	var first []*net.TCPConn
	for range 3 {
		c := all.dial()
		say(t, c, "hello\n")
		first = append(first, c)
	}
	all.refused("127.0.0.1")
	all.count("refused", func(s l4.Stats) uint64 { return s.RefusedMax }, 1)

	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		for range 2 {
			say(t, dialFrom(t, from, one.Addr().String()), "hello\n")
		}
		one.refused(from)
	}
	one.count("refused", func(s l4.Stats) uint64 { return s.RefusedOne }, 2)

	say(t, instance.dial(), "hello\n") // the first two proxies have 3 and 4 there
	instance.refused("127.0.0.1")
	instance.count("unserved", func(s l4.Stats) uint64 { return s.Unserved }, 1)

	for _, c := range first { // room again
		c.Close()
	}
	all.idle()
	say(t, all.dial(), "hello\n")
}

// TestProxy_WithoutDescriptors: accepting pauses, what is open goes on, and when
// there are some again, who waits is served.
func TestProxy_WithoutDescriptors(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start(func(c *l4.Config) { c.Workers = 1 })
	open := p.dial()
	say(t, open, "hello\n")

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	// The clients have their sockets: what is free meanwhile the proxy would take.
	waiting := sockets(t, 5)
	limit := was
	limit.Cur = uint64(highestDescriptor(t) + 1 + 10)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	filler := fill(t)
	for _, s := range waiting {
		if err := syscall.Connect(int(s.Fd()), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(p.Addr().Port())}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "accepting to fail", func() bool { return p.Stats().AcceptFailed > 0 })
	before, began := p.Stats().AcceptFailed, time.Now()
	for range 1000 {
		say(t, open, "hello\n")
	}
	// It is tried again after 100 ms.
	if n, most := p.Stats().AcceptFailed-before, 10+time.Since(began)/(50*time.Millisecond); n > uint64(most) {
		t.Errorf("accepting was tried %d times in vain, want %d at most", n, most)
	}
	restore()
	for _, f := range filler {
		f.Close()
	}
	for _, s := range waiting {
		c, err := net.FileConn(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		say(t, c, "hello\n")
	}
	say(t, p.dial(), "hello\n")
}

// sockets are TCP sockets that are not connected yet.
func sockets(t *testing.T, n int) (list []*os.File) {
	t.Helper()
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	return list
}

// fill takes all descriptors that are left.
func fill(t *testing.T) (files []*os.File) {
	t.Helper()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return files
		}
		files = append(files, f)
	}
}

func highestDescriptor(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, f := range list {
		n := 0
		for _, c := range f.Name() {
			n = n*10 + int(c-'0')
		}
		most = max(most, n)
	}
	return most
}

func TestProxy_HashSendsAClientToOneInstance(t *testing.T) {
	e := newEnv(t)
	e.policy("hash")
	for _, id := range []string{"a", "b", "c", "d"} {
		e.add("web/"+id, serve(t, named(id)).Addr())
	}
	p := e.start()
	seen := map[string]bool{}
	for i := range 16 {
		client := netip.AddrFrom4([4]byte{127, 0, 1, byte(i)})
		x := p.Explain(client, "")
		if !x.Certain || x.Instance == "" || x.Route != "default" {
			t.Fatalf("explained %+v", x)
		}
		for range 3 {
			hear(t, dialFrom(t, client.String(), p.Addr().String()), x.Instance+"\n")
		}
		seen[x.Instance] = true
	}
	if len(seen) < 3 {
		t.Errorf("16 clients go to %v", seen)
	}
	before := p.Stats().Accepted
	if x := p.Explain(netip.MustParseAddr("127.0.1.1"), ""); x.Backend.Active != 48 || before != p.Stats().Accepted {
		t.Errorf("explaining changed something: %+v", x)
	}
}
