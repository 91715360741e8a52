package nat_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

// avoids fails if new connections go to the backend.
func (l *lab) avoids(t *testing.T, when string, to netip.AddrPort, name string) {
	t.Helper()
	for range 12 {
		if c := l.dial(t, to); c.Name == name {
			t.Errorf("%s: a new connection went to %s", when, name)
		}
	}
}

func TestPlane_ChangesCutNothing(t *testing.T) {
	l := newLab(t, 3)
	web := l.web4()
	l.apply(t, web)
	conns := l.spread(t, vip4)

	all := web.Instances
	web.Instances = slices.Clone(all)
	web.Instances[1].Draining = true
	l.apply(t, web)
	kerneltest.Alive(t, "one drains", conns...)
	l.avoids(t, "one drains", vip4, "backend-1")

	web.Instances = all[1:]
	l.apply(t, web)
	kerneltest.Alive(t, "one is gone", conns...)
	l.avoids(t, "one is gone", vip4, "backend-0")

	web.Instances = nil
	l.apply(t, web)
	kerneltest.Alive(t, "none is left", conns...)
	if _, err := l.client.Greet("", vip4.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting without instances: %v, want refused", err)
	}

	web.Instances = all
	web.Affinity = kernel.BySource
	l.apply(t, web)
	kerneltest.Alive(t, "another affinity", conns...)
	want, err := l.plane.Explain("web4", netip.MustParseAddrPort("10.1.0.2:1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if c := l.dial(t, vip4); c.Name != want.Instance {
			t.Errorf("by source: a connection went to %s, Explain says %+v", c.Name, want)
		}
	}

	l.apply(t)
	kerneltest.Alive(t, "the service is gone", conns...)
}

// ruleset is what nft(8) prints of chains, rules and sets: all with handles that
// change when they are made anew.
func (l *lab) ruleset(t *testing.T) string {
	t.Helper()
	var out []byte
	l.balancer.Must(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "nft", "--handle", "--terse", "list", "ruleset").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
		return err
	})
	return string(out)
}

func TestPlane_ARestartCutsNothing(t *testing.T) {
	l := newLab(t, 3)
	l.apply(t, l.services()...)
	conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
	before := l.ruleset(t)

	l.plane = l.newPlane(t) // as another process would
	kerneltest.Alive(t, "before the first Apply", conns...)
	l.apply(t, l.services()...)
	if after := l.ruleset(t); after != before {
		t.Errorf("rules were made anew:\n%s\n%s", before, after)
	}
	kerneltest.Alive(t, "adopted", conns...)
	for port := 21_000; port < 21_020; port++ {
		local := netip.AddrPortFrom(netip.MustParseAddr("10.1.0.2"), uint16(port))
		c, err := l.client.Greet(local.String(), vip4.String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if want, err := l.plane.Explain("web4", local); err != nil || want.Instance != c.Name {
			t.Errorf("client %v got %s, Explain says %+v, %v", local, c.Name, want, err)
		}
	}

	// A process that is started with another configuration.
	l.plane = l.newPlane(t)
	services := l.services()
	services[0].Instances = services[0].Instances[:2]
	l.apply(t, services[0])
	kerneltest.Alive(t, "adopted and changed", conns...)
	l.avoids(t, "adopted and changed", vip4, "backend-2")
	if _, err := l.plane.Explain("web6", netip.MustParseAddrPort("[fd00:1::2]:1")); err == nil {
		t.Error("a service that is gone is explained")
	}
}

func TestPlane_Remove(t *testing.T) {
	l := newLab(t, 1)
	l.apply(t, l.web4())
	l.balancer.Must(l.plane.Remove)
	if left := l.ruleset(t); left != "" {
		t.Errorf("left behind: %s", left)
	}
	l.balancer.Must(l.plane.Remove) // and again
	l.apply(t, l.web4())
	l.spread(t, vip4)
}

// Where no service is of IPv6 its packets are not tracked. What another version has left
// there goes, and an address that was held before is held when its service comes.
func TestPlane_TableOfAFamilyWithoutServices(t *testing.T) {
	l := newLab(t, 2)
	l.balancer.Must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "muster", Family: nftables.TableFamilyIPv6})
		c.AddChain(&nftables.Chain{Name: "of-another-version", Table: table})
		return c.Flush()
	})
	l.apply(t, l.web4())
	if rules := l.ruleset(t); strings.Contains(rules, "table ip6") {
		t.Errorf("a table for IPv6: %s", rules)
	}
	l.balancer.Must(func() error { return l.plane.Hold(t.Context(), vip6.Addr(), time.Now().Add(time.Hour)) })
	l.apply(t, l.web4())
	services := l.services()
	for i := range services {
		services[i].Fenced = services[i].VIP == vip6
	}
	l.apply(t, services...)
	l.spread(t, vip6)
}

// Somebody has flushed what Muster wrote.
func TestPlane_MendsADamagedTable(t *testing.T) {
	l := newLab(t, 2)
	l.apply(t, l.web4())
	l.balancer.Must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: "muster", Family: nftables.TableFamilyIPv4}
		c.FlushSet(&nftables.Set{Table: table, Name: "fronts"})
		key := []byte{7, 0, 0, 0}
		if err := c.SetDeleteElements(&nftables.Set{Table: table, Name: "slots-web4", IsMap: true}, []nftables.SetElement{{Key: key}}); err != nil {
			return err
		}
		return c.Flush()
	})
	l.plane = l.newPlane(t)
	l.apply(t, l.web4())
	l.spread(t, vip4)
}

func TestPlane_KilledAndListedAgainIsAlive(t *testing.T) {
	l := newLab(t, 2)
	l.apply(t, l.web4())
	addr := l.backends[0].addr4
	for range 2 {
		conns := l.spread(t, vip4)
		l.kill(t.Context(), t, "web4", addr)
		for _, c := range conns {
			if err := c.Echo(); c.Name == "backend-0" != kerneltest.IsReset(err) {
				t.Errorf("a connection to %s: %v", c.Name, err)
			}
		}
		l.avoids(t, "killed", vip4, "backend-0")
		// A checker here, or behind this machine, must see that it is well.
		for _, from := range []*kerneltest.Machine{l.balancer, l.client} {
			c, err := from.Greet("", addr.String())
			if err != nil {
				t.Fatalf("%s to the killed instance itself: %v", from.Name, err)
			}
			if err := c.Echo(); err != nil {
				t.Errorf("%s to the killed instance itself: %v", from.Name, err)
			}
			c.Close()
		}
		l.plane = l.newPlane(t) // which has to read that it was killed
		l.apply(t, l.web4())
	}
	kerneltest.Alive(t, "listed again", l.spread(t, vip4)...)
	l.balancer.Must(func() error {
		if _, err := l.plane.Kill(t.Context(), "nobody", addr); err == nil {
			return errors.New("a service that is not there is killed")
		}
		return nil
	})
}

// Two services have an instance in common, and one of them finds it down.
func TestPlane_KillLeavesTheOtherServiceAlone(t *testing.T) {
	l := newLab(t, 2)
	web := l.web4()
	api := web
	api.Name, api.VIP = "api", netip.AddrPortFrom(vip4.Addr(), 8000)
	l.apply(t, web, api)
	conns := l.spread(t, vip4)
	others := l.spread(t, api.VIP)
	l.kill(t.Context(), t, "web4", l.backends[0].addr4)
	kerneltest.Alive(t, "of the other service", others...)
	for _, c := range conns {
		if err := c.Echo(); c.Name == "backend-0" != kerneltest.IsReset(err) {
			t.Errorf("a connection to %s: %v", c.Name, err)
		}
	}
}

// Another machine takes over, which knows none of the connections. The backends
// speak first: what they send is not translated, and must not reach the client so.
func TestPlane_TakesOverConnections(t *testing.T) {
	l := newLab(t, 3)
	l.apply(t, l.services()...)
	conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
	l.balancer.Must(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	for range conns {
		for _, b := range l.backends {
			select {
			case c := <-b.accepted:
				fmt.Fprintln(c, "from the backend")
			default:
			}
		}
	}
	for _, c := range conns {
		// Both lines arrive, in whatever order.
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, "hello")
		var got []string
		for range 2 {
			line, err := c.Lines.ReadString('\n')
			if err != nil {
				t.Fatalf("a connection to %s: %v", c.Name, err)
			}
			got = append(got, line)
		}
		if slices.Sort(got); got[0] != "from the backend\n" || got[1] != "hello\n" {
			t.Errorf("a connection to %s: %q", c.Name, got)
		}
	}
}

// Backends that do not route clients through the balancer.
func TestPlane_Masquerades(t *testing.T) {
	l := newLab(t, 2)
	for _, b := range l.backends {
		b.Route("0.0.0.0/0", "10.2.0.200") // nobody
	}
	web := l.web4()
	web.Masquerade = true
	l.apply(t, web)
	kerneltest.Alive(t, "masqueraded", l.spread(t, vip4)...)
	c := <-l.backends[0].accepted
	if from, _, _ := net.SplitHostPort(c.RemoteAddr().String()); from != "10.2.0.1" {
		t.Errorf("the backend sees %s, want the balancer's 10.2.0.1", from)
	}
}

// A client on the balancer itself.
func TestPlane_ServesLocalClients(t *testing.T) {
	l := newLab(t, 2)
	l.balancer.Address("lo", "10.9.9.9/32")
	l.apply(t, l.web4())
	byName := map[string][]*conn{}
	for range 20 {
		c, err := l.balancer.Greet("", vip4.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		byName[c.Name] = append(byName[c.Name], c)
		kerneltest.Alive(t, "local", c)
	}
	if len(byName) != 2 {
		t.Fatalf("20 connections went to %d backends", len(byName))
	}
	l.backends[0].Down("eth0")
	l.kill(t.Context(), t, "web4", l.backends[0].addr4)
	for i, c := range byName["backend-0"] {
		if err := c.UntilReset(i%2 == 0); err != nil {
			t.Error(err)
		}
	}
	kerneltest.Alive(t, "on the living instance", byName["backend-1"]...)
}

func TestPlane_UDP(t *testing.T) {
	l := newLab(t, 2)
	s := kernel.Service{Name: "dns", VIP: netip.AddrPortFrom(vip4.Addr(), 53), Protocol: kernel.UDP}
	for _, b := range l.backends {
		s.Instances = append(s.Instances, kernel.Instance{ID: b.Name, Addr: b.addr4, Weight: 1})
		c := b.ListenPacket("udp", b.addr4.String())
		kerneltest.Reply(t, c, func(question []byte) []byte { return append(question[:1:1], b.Name...) })
	}
	l.apply(t, s)
	c, err := l.client.Dial(net.Dialer{}, "udp", "", s.VIP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first, err := kerneltest.Ask(c, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	dead := slices.IndexFunc(l.backends, func(b *backend) bool { return b.Name == first })
	l.active(t, map[string]map[string]int64{"dns": {first: 1, l.backends[1-dead].Name: 0}})
	l.backends[dead].Down("eth0")
	if n := l.kill(t.Context(), t, "dns", l.backends[dead].addr4); n != 1 {
		t.Errorf("%d flows killed, want 1", n)
	}
	if second, err := kerneltest.Ask(c, 2, 1); err != nil || second == first {
		t.Errorf("after %s was killed, %q answers, %v", first, second, err)
	}
	s.Instances = nil
	l.apply(t, s)
	if _, err := l.client.Dial(net.Dialer{}, "udp", "", s.VIP.String()); err != nil {
		t.Fatal(err)
	}
}

// A machine that does not hold the VIP must not serve it.
func TestPlane_FencedServicesNeedToBeHeld(t *testing.T) {
	l := newLab(t, 1)
	services := l.services()
	services[0].Fenced = true
	hold := func(until time.Time) {
		t.Helper()
		l.balancer.Must(func() error { return l.plane.Hold(t.Context(), vip4.Addr(), until) })
	}
	hold(time.Now().Add(time.Hour)) // before there is a table
	l.apply(t, services...)
	l.spread(t, vip4)
	hold(time.Time{})
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
	l.plane = l.newPlane(t) // a restart does not give it up
	l.apply(t, services...)
	kerneltest.Alive(t, "held", conns...)
	hold(time.Now().Add(200 * time.Millisecond))
	// The kernel gives it up by itself.
	for deadline := time.Now().Add(patience); served() == nil; {
		if time.Now().After(deadline) {
			t.Fatal("still served after the deadline")
		}
	}
	if err := conns[0].SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(conns[0], "hello")
	if _, err := conns[0].Lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an old connection after the deadline: %v, want silence", err)
	}
	hold(time.Now().Add(time.Hour))
	l.spread(t, vip4)
	hold(time.Time{})
	if err := served(); err == nil {
		t.Error("served after the address was given up")
	}
	l.spread(t, vip6) // needs no holding
	services[0].Fenced = false
	l.apply(t, services...)
	l.spread(t, vip4)
	services[0].Fenced = true
	l.apply(t, services...)
	if err := served(); err == nil {
		t.Error("served without holding the address that is fenced again")
	}
}
