package nat

import (
	"fmt"
	"net/netip"

	"github.com/musterdns/muster/lb/kernel"
)

// Explain says which instance the kernel gives to a new connection from a
// client's address and port. It is computed here from what was last applied, by
// the kernel's own arithmetic. The error is of a service or address family that
// the plane has not.
func (p *Plane) Explain(service string, client netip.AddrPort) (kernel.Choice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.services[service]
	if !ok {
		return kernel.Choice{}, fmt.Errorf("nat: no service %q", service)
	}
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	if client.Addr().Is4() != s.VIP.Addr().Is4() {
		return kernel.Choice{}, fmt.Errorf("nat: client %v is not of the family of %v", client, s.VIP)
	}
	c := kernel.Choice{Slot: kernel.Slot(&s, client)}
	for _, h := range p.halves {
		if slots, size := h.slots[service], h.targetSize(); h.of(s.VIP.Addr()) && slots != nil {
			c.Addr = untarget(slots[c.Slot*size:][:size])
		}
	}
	for i := range s.Instances {
		if s.Instances[i].Addr == c.Addr {
			c.Instance = s.Instances[i].ID
		}
	}
	return c, nil
}
