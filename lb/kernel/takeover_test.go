package kernel_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/kernel/vip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen, on a busy machine.
const patience = 15 * time.Second

// baton is an Elector that gives one term at a time.
type baton chan struct{}

// term is one, for an hour. It is lost when changed is closed.
type term struct {
	baton   baton
	changed chan struct{}
}

func (b baton) Campaign(ctx context.Context, _ netip.Addr) (vip.Lease, error) {
	select {
	case <-b:
		return &term{b, make(chan struct{})}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *term) NotBefore() time.Time     { return time.Time{} }
func (t *term) Deadline() time.Time      { return time.Now().Add(time.Hour) }
func (t *term) Changed() <-chan struct{} { return t.changed }
func (t *term) Resign(context.Context) error {
	t.baton <- struct{}{}
	return nil
}

// balancer is a machine that serves the VIP while it holds it.
type balancer struct {
	*kerneltest.Machine
	plane *dsr.Plane
	stop  func()
}

func newBalancer(t *testing.T, m *kerneltest.Machine, elector vip.Elector, services []kernel.Service) *balancer {
	t.Helper()
	pins := t.TempDir()
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(pins, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := &balancer{Machine: m}
	m.Must(func() (err error) {
		if b.plane, err = dsr.New(dsr.Config{Interface: "eth0", PinDir: pins}); err != nil {
			return err
		}
		return b.plane.Apply(t.Context(), services)
	})
	v, err := vip.New(vip.Config{
		Address: netip.PrefixFrom(services[0].VIP.Addr(), 32), Interface: "eth0",
		Elector: elector, Hold: b.plane.Hold,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Do(func() error { return v.Run(ctx) }) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		b.stop()
		if err := b.plane.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// packets is how many the balancer has forwarded.
func (b *balancer) packets(t *testing.T) uint64 {
	t.Helper()
	counters, err := b.plane.Counters()
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, c := range counters["web"] {
		n += c.Packets
	}
	return n
}

// The VIP moves to another balancer, which has seen none of the connections and
// has the same table.
func TestTakeover_KeepsFlows(t *testing.T) {
	kerneltest.Require(t)
	link, client := kerneltest.NewSwitch(t, "link"), kerneltest.New(t, "client")
	link.Attach(client, "eth0", "10.1.0.2/24")
	s := kernel.Service{Name: "web", VIP: netip.MustParseAddrPort("10.1.0.100:80"), Protocol: kernel.TCP, Fenced: true}
	for i := range 3 {
		m := kerneltest.New(t, fmt.Sprintf("backend-%d", i))
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(20 + i)})
		link.Attach(m, "eth0", addr.String()+"/24")
		m.Sysctl("net/ipv4/conf/all/arp_ignore", "1")
		m.Sysctl("net/ipv4/conf/all/arp_announce", "2")
		m.Address("lo", "10.1.0.100/32")
		echo(t, m.Listen(s.VIP.String()))
		s.Instances = append(s.Instances, kernel.Instance{ID: m.Name, Addr: netip.AddrPortFrom(addr, 80), Weight: 1})
	}
	elector := make(baton, 1)
	var both []*balancer
	for i := range 2 {
		m := kerneltest.New(t, fmt.Sprintf("balancer-%d", i))
		link.Attach(m, "eth0", fmt.Sprintf("10.1.0.%d/24", 10+i))
		both = append(both, newBalancer(t, m, elector, []kernel.Service{s}))
	}
	elector <- struct{}{} // one of them is elected
	var conns []net.Conn
	for range 24 {
		c, err := client.Dial(net.Dialer{Timeout: patience}, "tcp", "", s.VIP.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	first, second := both[0], both[1]
	if second.HasAddress("eth0", s.VIP.Addr()) {
		first, second = second, first
	}
	if first.packets(t) < 48 || second.packets(t) != 0 {
		t.Fatalf("before: %d and %d packets", first.packets(t), second.packets(t))
	}
	first.stop()
	for _, c := range conns {
		if err := ask(c); err != nil {
			t.Errorf("after the VIP has moved: %v", err)
		}
	}
	if second.packets(t) < 24 {
		t.Errorf("the other balancer has forwarded %d packets", second.packets(t))
	}
}

// echo echoes until the listener is closed.
func echo(t *testing.T, l net.Listener) {
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close() // its machine may have closed it
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() { _, _ = io.Copy(c, c) }() // until either side ends
		}
	}()
}

// ask sends a line and reads it.
func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}
