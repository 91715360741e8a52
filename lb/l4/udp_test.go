//go:build linux

package l4_test

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/registry"
)

// udpServer says its name and what it hears to whoever sends to it.
func udpServer(t *testing.T, name string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(name+" "), b[:n]...), from) // the test sees what is missing
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c
}

// deafen has nobody listen at the server's address, as if it had closed its socket: it
// takes datagrams of one peer alone from here on, which sends none, so that the kernel
// refuses all others. Nobody else can come to the address meanwhile.
func deafen(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = syscall.Connect(int(fd), &syscall.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

func udp(c *l4.Config) { c.UDP = true }

// dialUDP is a client's socket; it takes answers from where it sends to only.
func dialUDP(t *testing.T, local, to string) net.Conn {
	t.Helper()
	d := net.Dialer{}
	if local != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(local)}
	}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a datagram and returns the answer.
func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func wantAnswer(t *testing.T, c net.Conn, text, want string) {
	t.Helper()
	if got := ask(t, c, text); got != want {
		t.Fatalf("%.20q is answered by %.40q, want %.40q", text, got, want)
	}
}

// askUntil asks until the answer is one of want: what is asked of an instance that
// goes may be lost.
func askUntil(t *testing.T, c net.Conn, text string, want ...string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	wait(t, "the answer "+want[0], func() bool {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ := c.Read(buf)
		return slices.Contains(want, string(buf[:n]))
	})
}

func TestProxy_UDP_Flows(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", udpServer(t, "a").LocalAddr())
	p := e.start(udp)
	var group sync.WaitGroup
	for range 20 {
		c := dialUDP(t, "", p.Addr().String())
		group.Go(func() {
			for i := range 50 {
				text := string(random(uint64(i), 1+i*20))
				wantAnswer(t, c, text, "a "+text)
			}
		})
	}
	group.Wait()
	wantAnswer(t, dialUDP(t, "", p.Addr().String()), "", "a ") // an empty datagram is one
	// That comes after it was sent.
	wait(t, "the last answer is counted", func() bool {
		i := p.Explain(p.Addr().Addr(), "").Backend.Instances
		return i[0].Active == 21 && i[0].BytesOut-i[0].BytesIn == 2002 && p.Stats().Replies == 1001
	})
	s := p.Stats()
	if s.Active != 21 || s.Accepted != 21 || s.Connected != 21 || s.Datagrams != 1001 || s.Replies != 1001 || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestProxy_UDP_AnswersFromTheAddressAsked: a client takes none from another.
func TestProxy_UDP_AnswersFromTheAddressAsked(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", udpServer(t, "a").LocalAddr())
	for wildcard, asked := range map[string][]string{"0.0.0.0:0": {"127.0.0.1", "127.0.0.7"}, "[::]:0": {"::1", "127.0.0.7"}} {
		p := e.start(udp, func(c *l4.Config) { c.Listen = netip.MustParseAddrPort(wildcard) })
		for _, to := range asked {
			c := dialUDP(t, "", netip.AddrPortFrom(netip.MustParseAddr(to), p.Addr().Port()).String())
			wantAnswer(t, c, "hello", "a hello")
			wantAnswer(t, c, "again", "a again")
		}
		askBoth(t, p.Addr().Port())
		if p.Stats().Accepted != 4 {
			t.Errorf("stats %+v", p.Stats())
		}
	}
}

// askBoth asks two addresses from one socket, which makes two flows.
func askBoth(t *testing.T, port uint16) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"127.0.0.5", "127.0.0.6"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(to), port)
		if _, err := c.WriteToUDPAddrPort([]byte(to), at); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64)
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil || string(b[:n]) != "a "+to || from.Addr().Unmap() != at.Addr() {
			t.Errorf("%s was asked; %s answered %q, %v", at, from, b[:n], err)
		}
	}
}

func TestProxy_UDP_FlowsTimeOut(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", udpServer(t, "a").LocalAddr())
	p := e.start(udp, func(c *l4.Config) { c.IdleTimeout = 2 * time.Second })
	c := dialUDP(t, "", p.Addr().String())
	wantAnswer(t, c, "hello", "a hello")
	p.idle()
	p.count("idle", func(s l4.Stats) uint64 { return s.Idle }, 1)
	wantAnswer(t, c, "hello", "a hello")
	if s := p.Stats(); s.Accepted != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestProxy_UDP_Limits(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", udpServer(t, "a").LocalAddr())
	p := e.start(udp, func(c *l4.Config) { c.ConnsMax, c.ConnsPerClient = 3, 2 })
	to := p.Addr().String()
	for range 2 {
		wantAnswer(t, dialUDP(t, "127.0.0.2", to), "hello", "a hello")
	}
	if _, err := dialUDP(t, "127.0.0.2", to).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	p.count("refused to one", func(s l4.Stats) uint64 { return s.RefusedOne }, 1)
	wantAnswer(t, dialUDP(t, "127.0.0.3", to), "hello", "a hello")
	if _, err := dialUDP(t, "127.0.0.4", to).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	p.count("refused to all", func(s l4.Stats) uint64 { return s.RefusedMax }, 1)
	p.count("dropped", func(s l4.Stats) uint64 { return s.Dropped }, 2)
}

// TestProxy_UDP_NobodyListens: the kernel says so, and the flow moves.
func TestProxy_UDP_NobodyListens(t *testing.T) {
	e := newEnv(t)
	e.policy("hash")
	a, b := udpServer(t, "a"), udpServer(t, "b")
	e.add("web/a", a.LocalAddr())
	e.add("web/b", b.LocalAddr())
	p := e.start(udp)
	flows := map[string]net.Conn{} // by the instance that answers
	for i := 1; len(flows) < 2; i++ {
		c := dialUDP(t, netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}).String(), p.Addr().String())
		flows[ask(t, c, "")] = c
	}
	deafen(t, a)
	askUntil(t, flows["a "], "x", "b x")
	wantAnswer(t, flows["b "], "still", "b still")
	if s := p.Stats(); s.Unreachable == 0 || s.Retried == 0 {
		t.Errorf("stats %+v", s)
	}
	for _, i := range p.Explain(p.Addr().Addr(), "").Backend.Instances {
		if (i.Failures > 0) != (i.ID == "a") {
			t.Errorf("instance %s has %d failures", i.ID, i.Failures)
		}
	}
	deafen(t, b)
	e.apply(registry.Batch{Deleted: []registry.Key{{Kind: registry.KindInstance, Service: "web", Name: "a"}}})
	wait(t, "the flows to end, as nobody is left", func() bool {
		if _, err := flows["b "].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		return p.Stats().Unserved > 0
	})
}

func TestProxy_UDP_InstanceEnds(t *testing.T) {
	e := newEnv(t)
	e.policy("hash")
	servers := map[string]*net.UDPConn{"a": udpServer(t, "a"), "b": udpServer(t, "b"), "c": udpServer(t, "c"), "d": udpServer(t, "d")}
	for id, s := range servers {
		e.add("web/"+id, s.LocalAddr())
	}
	p := e.start(udp)
	flows := map[string]net.Conn{}
	for i := 1; len(flows) < len(servers); i++ {
		c := dialUDP(t, netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}).String(), p.Addr().String())
		flows[ask(t, c, "")[:1]] = c
	}
	e.admin("a", registry.AdminDrain)
	e.apply(registry.Batch{Deleted: []registry.Key{{Kind: registry.KindInstance, Service: "web", Name: "d"}}})
	askUntil(t, flows["d"], "hello", "c hello", "b hello")
	e.admin("b", registry.AdminDown)
	askUntil(t, flows["b"], "hello", "c hello")
	wantAnswer(t, flows["a"], "hello", "a hello") // it may end what it has
	if s := p.Stats(); s.Down == 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestProxy_UDP_HandOver: answers to what was asked still come, and a Proxy that
// inherited the sockets gets what is asked from then on.
func TestProxy_UDP_HandOver(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", udpServer(t, "a").LocalAddr())
	p := e.start(udp, func(c *l4.Config) { c.IdleTimeout = 2 * time.Second })
	var group sync.WaitGroup
	var stopped atomic.Bool
	for range 8 {
		c := dialUDP(t, "", p.Addr().String())
		group.Go(func() {
			for !stopped.Load() {
				wantAnswer(t, c, "hello", "a hello")
			}
			for range 20 {
				wantAnswer(t, c, "hello", "a hello")
			}
		})
	}
	wait(t, "8 flows", func() bool { return p.Stats().Accepted >= 8 })
	next := e.start(udp, inherit(t, p))
	p.stop()
	stopped.Store(true)
	group.Wait()
	wait(t, "the answers through the next to be counted", func() bool { return next.Stats().Replies >= 8*20 })
}
