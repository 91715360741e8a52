package nat_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/kernel/nat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = kerneltest.Patience

type conn = kerneltest.Conn

// lab is a client, a balancer that routes, and backends that route by it. All
// have addresses of both families.
type lab struct {
	client, balancer *kerneltest.Machine
	backends         []*backend
	plane            *nat.Plane
}

// backend is a machine with a server on port 8080 of each family, which sends its
// name and then echoes lines.
type backend struct {
	*kerneltest.Machine
	addr4, addr6 netip.AddrPort
	accepted     chan net.Conn
}

// The VIPs belong to no machine; the client routes to them by the balancer.
var (
	vip4 = netip.MustParseAddrPort("10.9.9.9:80")
	vip6 = netip.MustParseAddrPort("[fd00:9::9]:80")
)

func newLab(t testing.TB, backends int) *lab {
	t.Helper()
	kerneltest.Require(t)
	l := &lab{client: kerneltest.New(t, "client"), balancer: kerneltest.New(t, "balancer")}
	outer, inner := kerneltest.NewSwitch(t, "outer"), kerneltest.NewSwitch(t, "inner")
	outer.Attach(l.client, "eth0", "10.1.0.2/24", "fd00:1::2/64", "10.1.0.253/24", "fd00:1::89ab:cdef:1234:5678/64")
	outer.Attach(l.balancer, "eth0", "10.1.0.1/24", "fd00:1::1/64")
	inner.Attach(l.balancer, "eth1", "10.2.0.1/24", "fd00:2::1/64")
	l.client.Route("0.0.0.0/0", "10.1.0.1")
	l.client.Route("::/0", "fd00:1::1")
	l.balancer.Sysctl("net/ipv4/ip_forward", "1")
	l.balancer.Sysctl("net/ipv6/conf/all/forwarding", "1")
	for i := range backends {
		b := &backend{
			Machine:  kerneltest.New(t, fmt.Sprintf("backend-%d", i)),
			accepted: make(chan net.Conn, 4096),
			addr4:    netip.MustParseAddrPort(fmt.Sprintf("10.2.0.%d:8080", 10+i)),
			addr6:    netip.MustParseAddrPort(fmt.Sprintf("[fd00:2::%d]:8080", 10+i)),
		}
		inner.Attach(b.Machine, "eth0", b.addr4.Addr().String()+"/24", b.addr6.Addr().String()+"/64")
		b.Route("0.0.0.0/0", "10.2.0.1")
		b.Route("::/0", "fd00:2::1")
		b.Serve(b.Listen(b.addr4.String()), func(c net.Conn) { b.accepted <- c })
		b.Serve(b.Listen(b.addr6.String()), func(c net.Conn) { b.accepted <- c })
		l.backends = append(l.backends, b)
	}
	l.plane = l.newPlane(t)
	return l
}

// newPlane makes a plane as a process on the balancer would.
func (l *lab) newPlane(t testing.TB) *nat.Plane {
	t.Helper()
	p, err := nat.New(nat.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// services are web4 and web6, of all backends.
func (l *lab) services() []kernel.Service {
	web6 := kernel.Service{Name: "web6", VIP: vip6, Protocol: kernel.TCP}
	for _, b := range l.backends {
		web6.Instances = append(web6.Instances, kernel.Instance{ID: b.Name, Addr: b.addr6, Weight: 1})
	}
	return []kernel.Service{l.web4(), web6}
}

// web4 is enough where the address family makes no difference.
func (l *lab) web4() kernel.Service {
	s := kernel.Service{Name: "web4", VIP: vip4, Protocol: kernel.TCP}
	for _, b := range l.backends {
		s.Instances = append(s.Instances, kernel.Instance{ID: b.Name, Addr: b.addr4, Weight: 1})
	}
	return s
}

// apply applies on the balancer.
func (l *lab) apply(t testing.TB, services ...kernel.Service) {
	t.Helper()
	l.balancer.Must(func() error { return l.plane.Apply(t.Context(), services) })
}

// kill kills on the balancer and returns how many connections there were.
func (l *lab) kill(ctx context.Context, t testing.TB, service string, addr netip.AddrPort) int {
	t.Helper()
	var n int
	l.balancer.Must(func() (err error) {
		n, err = l.plane.Kill(ctx, service, addr)
		return err
	})
	return n
}

func (l *lab) dial(t testing.TB, to netip.AddrPort) *conn {
	t.Helper()
	c, err := l.client.Greet("", to.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *lab) spread(t testing.TB, to netip.AddrPort) []*conn {
	t.Helper()
	return kerneltest.Spread(t, len(l.backends), func() *conn { return l.dial(t, to) })
}
