package dsr_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

// Every mode must run, and none may run in the place of another.
func TestPlane_Balances(t *testing.T) {
	for _, row := range []struct{ mode, want dsr.Mode }{
		{dsr.XDPNative, dsr.XDPNative},
		{dsr.XDPGeneric, dsr.XDPGeneric},
		{dsr.TCX, dsr.TCX},
		{dsr.Auto, dsr.TCX}, // on one end of a veth pair
	} {
		t.Run(row.mode.String(), func(t *testing.T) {
			l := newLab(t, row.mode, 3)
			if got := l.plane.Mode(); got != row.want {
				t.Fatalf("attached as %v, want %v", got, row.want)
			}
			l.apply(t, l.services()...)
			before := l.balancer.Sent("eth0")
			l.balances(t, "web4", "10.1.0.2", vip4)
			l.balances(t, "web6", "[fd00:1::2]", vip6)
			// What the balancer has sent is what it counted: no reply passed
			// it. Some packets more are its own, neighbour solicitation and
			// the like.
			sent, counted := l.balancer.Sent("eth0")-before, l.counted(t)
			if sent > counted+50 {
				t.Errorf("the balancer has sent %d packets, of clients' are %d", sent, counted)
			}
		})
	}
}

// balances compares 50 connections with what Explain says, and counts.
func (l *lab) balances(t *testing.T, service, client string, vip netip.AddrPort) {
	t.Helper()
	want := map[string]uint64{}
	var conns []*conn
	for port := 20_000; port < 20_050; port++ {
		local := fmt.Sprintf("%s:%d", client, port)
		c := l.dial(t, local, vip)
		conns = append(conns, c)
		want[c.Name]++
		choice, err := l.plane.Explain(service, netip.MustParseAddrPort(local))
		if err != nil {
			t.Fatal(err)
		}
		if choice.Instance != c.Name {
			t.Errorf("client %s got %s, Explain says %+v", local, c.Name, choice)
		}
	}
	kerneltest.Alive(t, "balanced", conns...)
	if len(want) != 3 {
		t.Errorf("50 connections went to %v, want all three", want)
	}
	counters, err := l.plane.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		got := counters[service][name]
		if got.Connections != n || got.Packets < 3*n || got.Bytes < 40*got.Packets {
			t.Errorf("%s of %s: %+v, want %d connections", name, service, got, n)
		}
	}
}

// counted is how many packets the plane has forwarded.
func (l *lab) counted(t *testing.T) uint64 {
	t.Helper()
	counters, err := l.plane.Counters()
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, instances := range counters {
		for _, c := range instances {
			n += c.Packets
		}
	}
	return n
}

func TestPlane_ChangesCutNothing(t *testing.T) {
	l := newLab(t, dsr.Auto, 3)
	services := l.services()
	l.apply(t, services...)
	conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
	avoids := func(when, name string) {
		t.Helper()
		for range 12 {
			if c := l.dial(t, "", vip4); c.Name == name {
				t.Errorf("%s: a new connection went to %s", when, name)
			}
		}
	}
	all := services[0].Instances
	services[0].Instances = slices.Clone(all)
	services[0].Instances[1].Draining = true
	l.apply(t, services...)
	kerneltest.Alive(t, "one drains", conns...)
	avoids("one drains", "backend-1")

	services[0].Instances = all[1:]
	l.apply(t, services...)
	kerneltest.Alive(t, "one is gone", conns...)
	avoids("one is gone", "backend-0")

	services[0].Instances = all
	services[0].Affinity = kernel.BySource
	l.apply(t, services...)
	kerneltest.Alive(t, "another affinity", conns...)
	want, err := l.plane.Explain("web4", netip.MustParseAddrPort("10.1.0.2:1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if c := l.dial(t, "", vip4); c.Name != want.Instance {
			t.Errorf("by source: a connection went to %s, Explain says %+v", c.Name, want)
		}
	}
	services[0].Instances = nil
	l.apply(t, services...)
	if _, err := l.client.Dial(net.Dialer{Timeout: patience}, "tcp", "", vip4.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting without instances: %v, want refused", err)
	}
	kerneltest.Alive(t, "the other service", conns[12:]...)
}

// Auto takes what it would have taken without the process before it, which has left
// the program in another mode.
func TestPlane_ARestartCutsNothing(t *testing.T) {
	for _, mode := range []dsr.Mode{dsr.XDPNative, dsr.XDPGeneric, dsr.TCX} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, mode, 3)
			l.apply(t, l.services()...)
			conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
			if err := l.plane.Close(); err != nil {
				t.Fatal(err)
			}
			kerneltest.Alive(t, "no process", conns...)
			l.spread(t, vip4)
			if needs := l.plane.Needs(); (len(needs) > 0) != (mode == dsr.XDPNative) {
				t.Errorf("as %v it lacks %+v", mode, needs)
			}
			l.open(t, dsr.Auto)
			if got := l.plane.Mode(); got != dsr.TCX {
				t.Errorf("attached as %v, want %v", got, dsr.TCX)
			}
			if mode != dsr.TCX {
				kerneltest.Alive(t, "as before it", conns...)
				if err := l.plane.Close(); err != nil {
					t.Fatal(err)
				}
				l.open(t, mode) // as somebody wishes
				if got := l.plane.Mode(); got != mode {
					t.Errorf("attached as %v, want %v", got, mode)
				}
			}
			kerneltest.Alive(t, "before the first Apply", conns...)
			services := l.services()
			services[0].Instances = services[0].Instances[1:]
			l.apply(t, services...)
			kerneltest.Alive(t, "after it", conns...)
			for range 12 {
				if c := l.dial(t, "", vip4); c.Name == "backend-0" {
					t.Error("a new connection went to an instance that is gone")
				}
			}
			l.apply(t, services[1])
			if _, err := l.plane.Explain("web4", netip.MustParseAddrPort("10.1.0.2:1")); err == nil {
				t.Error("a service that is gone is explained")
			}
			l.balancer.Must(l.plane.Remove)
			if _, err := os.Stat(filepath.Join(l.pins, "eth0")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was pinned is left behind: %v", err)
			}
		})
	}
}

// Another balancer takes over: flows that it has not seen go on.
func TestPlane_TakesOverFlows(t *testing.T) {
	l := newLab(t, dsr.Auto, 3)
	l.apply(t, l.services()...)
	conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
	l.balancer.Must(l.plane.Remove) // with all that it knew
	l.open(t, dsr.Auto)
	l.apply(t, l.services()...)
	kerneltest.Alive(t, "taken over", conns...)
}

func TestPlane_KillResetsClients(t *testing.T) {
	for _, row := range []struct {
		service string
		vip     netip.AddrPort
	}{{"web4", vip4}, {"web6", vip6}} {
		t.Run(row.service, func(t *testing.T) {
			l := newLab(t, dsr.Auto, 2)
			l.apply(t, l.services()...)
			conns := l.spread(t, row.vip)
			addr := l.backends[0].addr4
			if row.vip == vip6 {
				addr = l.backends[0].addr6
			}
			l.backends[0].Down("eth0")
			reset := make(chan error, len(conns))
			began := time.Now()
			dead := 0
			for i, c := range conns {
				if c.Name != "backend-0" {
					continue
				}
				dead++
				go func() { // half of them send, the others are silent
					err := c.UntilReset(i%2 == 0)
					t.Logf("sending %v: reset after %v", i%2 == 0, time.Since(began))
					reset <- err
				}()
			}
			if n := l.kill(t.Context(), t, row.service, addr); n < dead {
				t.Errorf("%d flows killed, want %d or more", n, dead)
			}
			for range dead {
				if err := <-reset; err != nil {
					t.Error(err)
				}
			}
			for _, c := range conns {
				if c.Name == "backend-1" {
					kerneltest.Alive(t, "of the living", c)
				}
			}
			for range 12 {
				if c := l.dial(t, "", row.vip); c.Name != "backend-1" {
					t.Errorf("a new connection went to %s", c.Name)
				}
			}
			l.backends[0].Up("eth0")
			l.apply(t, l.services()...)
			l.spread(t, row.vip)
		})
	}
}

func TestPlane_FencedServicesNeedToBeHeld(t *testing.T) {
	l := newLab(t, dsr.Auto, 1)
	services := l.services()
	services[0].Fenced = true
	l.apply(t, services...)
	hold := func(until time.Time) {
		t.Helper()
		l.balancer.Must(func() error { return l.plane.Hold(t.Context(), vip4.Addr(), until) })
	}
	served := func() error {
		c, err := l.client.Dial(net.Dialer{Timeout: 300 * time.Millisecond}, "tcp", "", vip4.String())
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := served(); err == nil {
		t.Error("served without holding the address")
	}
	hold(time.Now().Add(time.Hour))
	conns := l.spread(t, vip4)
	if err := l.plane.Close(); err != nil {
		t.Fatal(err)
	}
	l.open(t, dsr.Auto)
	l.apply(t, services...)
	kerneltest.Alive(t, "after a restart", conns...)
	hold(time.Now().Add(200 * time.Millisecond))
	for deadline := time.Now().Add(patience); served() == nil; {
		if time.Now().After(deadline) {
			t.Fatal("still served after the deadline")
		}
	}
	l.spread(t, vip6) // needs no holding
}

// An instance whose machine is replaced by one with another MAC address, and one
// that leaves the link.
func TestPlane_FollowsNeighbours(t *testing.T) {
	l := newLab(t, dsr.Auto, 2)
	l.apply(t, l.services()...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.balancer.Do(func() error { return l.plane.Run(ctx) }) }()
	l.backends[0].Sysctl("net/ipv4/conf/eth0/arp_notify", "1") // tells the link of the change
	l.backends[0].MAC("eth0", "02:00:00:00:00:42")
	seen := func() bool {
		for range 20 {
			c, err := l.client.Dial(net.Dialer{Timeout: 100 * time.Millisecond}, "tcp", "", vip4.String())
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	}
	for deadline := time.Now().Add(patience); !seen(); {
		if time.Now().After(deadline) {
			t.Fatal("packets still go to the old MAC address")
		}
	}
	l.balancer.Down("eth0") // which makes the kernel forget all neighbours
	l.balancer.Up("eth0")
	for deadline := time.Now().Add(patience); !seen(); {
		if time.Now().After(deadline) {
			t.Fatal("instances are not found again")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An instance that is not on the link is left out, and said to be.
func TestPlane_LeavesOutWhatDoesNotAnswer(t *testing.T) {
	l := newLab(t, dsr.Auto, 1)
	s := l.services()[0]
	s.Instances = append(s.Instances, kernel.Instance{ID: "nobody", Addr: netip.MustParseAddrPort("10.1.0.77:80"), Weight: 1})
	l.balancer.Must(func() error { return l.plane.Apply(t.Context(), []kernel.Service{s}) })
	if left := l.plane.Left(); len(left) != 1 || left[0].Instance != "nobody" {
		t.Errorf("left out: %+v", left)
	}
	for range 12 {
		l.dial(t, "", vip4)
	}
}

func TestPlane_SaysWhatIsWrong(t *testing.T) {
	l := newLab(t, dsr.Auto, 1)
	s := l.services()[0]
	s.Instances[0].Addr = netip.AddrPortFrom(s.Instances[0].Addr.Addr(), 8080)
	if err := l.plane.Apply(t.Context(), []kernel.Service{s}); !errors.Is(err, dsr.ErrPort) {
		t.Errorf("an instance with another port: %v", err)
	}
	if err := l.plane.Apply(t.Context(), make([]kernel.Service, dsr.ServicesMax+1)); err == nil {
		t.Error("too many services: no error")
	}
	err := l.balancer.Do(func() error {
		_, err := dsr.New(dsr.Config{Interface: "none"})
		return err
	})
	if err == nil {
		t.Error("an interface that is not there: no error")
	}
}

func TestCapabilities(t *testing.T) {
	l := newLab(t, dsr.Auto, 0)
	l.balancer.Must(func() error {
		if needs := dsr.Capabilities(l.pins); len(needs) != 0 {
			return fmt.Errorf("lacking: %+v", needs)
		}
		if needs := dsr.Capabilities(t.TempDir()); len(needs) != 1 || needs[0].Mend != "mount -t bpf bpf /sys/fs/bpf" {
			return fmt.Errorf("without a BPF file system, lacking: %+v", needs)
		}
		return nil
	})
}
