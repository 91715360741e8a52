package dsr

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/musterdns/muster/lb/kernel"
)

// Counters reads what was counted, by service and id of the instance. An
// instance's begin anew when it is listed again after it was not for long. Of
// connections whose opening was not seen none is counted, of their packets all.
func (p *Plane) Counters() (map[string]map[string]kernel.Traffic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]map[string]kernel.Traffic{}
	parts := make([]traffic, ebpf.MustPossibleCPU())
	for _, s := range p.services {
		out[s.Name] = map[string]kernel.Traffic{}
		for i := range s.Instances {
			in := &s.Instances[i]
			if err := p.maps.Counters.Lookup(p.ids[nameOf(&s.Service, in)], &parts); err != nil {
				return nil, fmt.Errorf("dsr: reading the counters of %s: %w", in.ID, err)
			}
			var t kernel.Traffic
			for _, c := range parts {
				t.Connections += c.Connections
				t.Packets += c.Packets
				t.Bytes += c.Bytes
			}
			out[s.Name][in.ID] = t
		}
	}
	return out, nil
}

// Explain says which instance a new connection from a client's address and port
// goes to, by what was last applied. The error is of a service or address family
// that the plane has not.
func (p *Plane) Explain(service string, client netip.AddrPort) (kernel.Choice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.services[service]
	if !ok {
		return kernel.Choice{}, fmt.Errorf("dsr: no service %q", service)
	}
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	if client.Addr().Is4() != s.VIP.Addr().Is4() {
		return kernel.Choice{}, fmt.Errorf("dsr: client %v is not of the family of %v", client, s.VIP)
	}
	c := kernel.Choice{Slot: kernel.Slot(&s.Service, client)}
	if s.ofSlot != nil {
		in := &s.Instances[s.ofSlot[c.Slot]]
		c.Instance, c.Addr = in.ID, in.Addr
	}
	return c, nil
}
