package nat_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/nat"
)

func TestPlane_SaysWhatIsWrong(t *testing.T) {
	good := kernel.Instance{ID: "a", Addr: netip.MustParseAddrPort("10.2.0.10:80"), Weight: 1}
	for _, row := range []struct {
		name     string
		services []kernel.Service
	}{
		{"no name", []kernel.Service{{VIP: vip4, Protocol: kernel.TCP}}},
		{"a name that nft cannot read", []kernel.Service{{Name: "a b", VIP: vip4, Protocol: kernel.TCP}}},
		{"no VIP", []kernel.Service{{Name: "web", Protocol: kernel.TCP}}},
		{"no protocol", []kernel.Service{{Name: "web", VIP: vip4}}},
		{"an instance of another family", []kernel.Service{{Name: "web", VIP: vip6, Protocol: kernel.TCP, Instances: []kernel.Instance{good}}}},
		{"one id twice", []kernel.Service{{Name: "web", VIP: vip4, Protocol: kernel.TCP, Instances: []kernel.Instance{good, good}}}},
		{"one name twice", []kernel.Service{{Name: "web", VIP: vip4, Protocol: kernel.TCP}, {Name: "web", VIP: vip6, Protocol: kernel.TCP}}},
		{"one VIP twice", []kernel.Service{{Name: "web", VIP: vip4, Protocol: kernel.TCP}, {Name: "api", VIP: vip4, Protocol: kernel.TCP}}},
		{"too many", make([]kernel.Service, 257)},
	} {
		p, err := nat.New(nat.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Apply(t.Context(), row.services); err == nil {
			t.Errorf("%s: no error", row.name)
		}
	}
}

func TestCapabilities(t *testing.T) {
	l := newLab(t, 0)
	l.balancer.Must(func() error {
		if needs := nat.Capabilities(vip4.Addr(), vip6.Addr()); len(needs) != 0 {
			return fmt.Errorf("lacking: %+v", needs)
		}
		return nil
	})
	if left := l.ruleset(t); left != "" {
		t.Errorf("left behind: %s", left)
	}
	l.balancer.Sysctl("net/ipv4/ip_forward", "0")
	l.balancer.Must(func() error {
		if needs := nat.Capabilities(vip4.Addr(), vip6.Addr()); len(needs) != 1 || needs[0].Mend != "sysctl -w net.ipv4.ip_forward=1" {
			return fmt.Errorf("without forwarding, lacking: %+v", needs)
		}
		if needs := nat.Capabilities(vip6.Addr()); len(needs) != 0 {
			return fmt.Errorf("without an IPv4 service, lacking: %+v", needs)
		}
		return nil
	})
}

// More slots than one transaction takes.
func TestPlane_StartsManyServices(t *testing.T) {
	l := newLab(t, 2)
	var services []kernel.Service
	for i := range 9 {
		s := l.web4()
		s.Name, s.VIP = fmt.Sprintf("web-%d", i), netip.AddrPortFrom(vip4.Addr(), uint16(8000+i))
		services = append(services, s)
	}
	l.apply(t, services...)
	for _, s := range services {
		c := l.dial(t, s.VIP)
		if err := c.Echo(); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	for i := range services {
		services[i].Instances = services[i].Instances[1:]
	}
	l.apply(t, services...)
	for _, s := range services {
		if c := l.dial(t, s.VIP); c.Name != "backend-1" {
			t.Errorf("%s: a connection went to %s", s.Name, c.Name)
		}
	}
}
