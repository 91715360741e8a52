package dsr_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = kerneltest.Patience

type conn = kerneltest.Conn

// lab is a client, a balancer and backends on one link.
type lab struct {
	client, balancer *kerneltest.Machine
	backends         []*backend
	pins             string
	plane            *dsr.Plane
}

// backend has the VIPs on lo and a server there, which sends its name and then
// echoes.
type backend struct {
	*kerneltest.Machine
	addr4, addr6 netip.AddrPort
}

var (
	vip4 = netip.MustParseAddrPort("10.1.0.100:80")
	vip6 = netip.MustParseAddrPort("[fd00:1::100]:80")
)

// newLab makes the machines; the plane is attached in the mode.
func newLab(t testing.TB, mode dsr.Mode, backends int) *lab {
	t.Helper()
	kerneltest.Require(t)
	l := &lab{client: kerneltest.New(t, "client"), balancer: kerneltest.New(t, "balancer"), pins: bpffs(t)}
	link := kerneltest.NewSwitch(t, "link")
	link.Attach(l.client, "eth0", "10.1.0.2/24", "fd00:1::2/64")
	link.Attach(l.balancer, "eth0", "10.1.0.1/24", "fd00:1::1/64", vip4.Addr().String()+"/32", vip6.Addr().String()+"/128")
	if mode == dsr.XDPNative {
		// One end of a veth pair, see dsr.Auto.
		l.client.Checksums("eth0")
		link.ReceiveAsXDP(2)
	}
	for i := range backends {
		b := &backend{
			Machine: kerneltest.New(t, fmt.Sprintf("backend-%d", i)),
			addr4:   netip.MustParseAddrPort(fmt.Sprintf("10.1.0.%d:80", 10+i)),
			addr6:   netip.MustParseAddrPort(fmt.Sprintf("[fd00:1::%d]:80", 10+i)),
		}
		link.Attach(b.Machine, "eth0", b.addr4.Addr().String()+"/24", b.addr6.Addr().String()+"/64")
		b.Sysctl("net/ipv4/conf/all/arp_ignore", "1")
		b.Sysctl("net/ipv4/conf/all/arp_announce", "2")
		b.Address("lo", vip4.Addr().String()+"/32")
		b.Address("lo", vip6.Addr().String()+"/128")
		b.Serve(b.Listen(vip4.String()), nil)
		b.Serve(b.Listen(vip6.String()), nil)
		l.backends = append(l.backends, b)
	}
	l.open(t, mode)
	return l
}

// bpffs mounts a BPF file system for the test.
func bpffs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mounting a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// open makes a plane as a process on the balancer would.
func (l *lab) open(t testing.TB, mode dsr.Mode) {
	t.Helper()
	l.balancer.Must(func() (err error) {
		l.plane, err = dsr.New(dsr.Config{Interface: "eth0", Mode: mode, PinDir: l.pins})
		return err
	})
	plane := l.plane
	t.Cleanup(func() { plane.Close() }) // the test may have closed it
}

func (l *lab) services() []kernel.Service {
	web4 := kernel.Service{Name: "web4", VIP: vip4, Protocol: kernel.TCP}
	web6 := kernel.Service{Name: "web6", VIP: vip6, Protocol: kernel.TCP}
	for _, b := range l.backends {
		web4.Instances = append(web4.Instances, kernel.Instance{ID: b.Name, Addr: b.addr4, Weight: 1})
		web6.Instances = append(web6.Instances, kernel.Instance{ID: b.Name, Addr: b.addr6, Weight: 1})
	}
	return []kernel.Service{web4, web6}
}

func (l *lab) apply(t testing.TB, services ...kernel.Service) {
	t.Helper()
	l.balancer.Must(func() error { return l.plane.Apply(t.Context(), services) })
	if left := l.plane.Left(); len(left) > 0 {
		t.Fatalf("left out: %+v", left)
	}
}

func (l *lab) kill(ctx context.Context, t testing.TB, service string, addr netip.AddrPort) int {
	t.Helper()
	var n int
	l.balancer.Must(func() (err error) {
		n, err = l.plane.Kill(ctx, service, addr)
		return err
	})
	return n
}

// dial connects to a backend from local, or from any address if that is empty.
func (l *lab) dial(t testing.TB, local string, to netip.AddrPort) *conn {
	t.Helper()
	c, err := l.client.Greet(local, to.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *lab) spread(t testing.TB, to netip.AddrPort) []*conn {
	t.Helper()
	return kerneltest.Spread(t, len(l.backends), func() *conn { return l.dial(t, "", to) })
}
