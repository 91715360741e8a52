package nat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/musterdns/muster/lb/kernel"
)

// Kill takes an instance of a service, that is at addr, for down: it gets no new
// connections, and those that it has are reset. When Kill returns, whatever a
// client has sent since is answered with a reset, and clients that are silent
// have been asked for a sign of life, which is answered so too. It returns how
// many connections there were. The instance may have been left out by Apply
// before; it stays dead until Apply lists it again, or for a minute.
//
// Where another service of the protocol has the same address and port and has not
// found it down, connections are forgotten rather than reset by this machine: the
// instance that gets the client's next packet resets it.
//
// An error that comes with a number above 0 is of what was to be done about
// connections after the slots had been moved.
func (p *Plane) Kill(ctx context.Context, service string, addr netip.AddrPort) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.services[service]
	if !ok {
		return 0, fmt.Errorf("nat: killing %v: no service %q", addr, service)
	}
	if addr.Addr().Is4() != s.VIP.Addr().Is4() || addr.Addr().Is4In6() {
		return 0, fmt.Errorf("nat: killing %v of %s: it is not of the family of %v", addr, service, s.VIP)
	}
	c, err := dialConntrack()
	if err != nil {
		return 0, fmt.Errorf("nat: killing %v of %s: %w", addr, service, err)
	}
	defer c.Close()
	n, err := p.kill(ctx, c, s, addr)
	if err != nil {
		return n, fmt.Errorf("nat: killing %v of %s: %w", addr, service, err)
	}
	return n, nil
}

// kill does what is quick first: one element more makes the kernel reset whoever
// sends, however many slots are to be moved then.
func (p *Plane) kill(ctx context.Context, c *conntrack, s kernel.Service, addr netip.AddrPort) (int, error) {
	f := families()[1]
	if s.VIP.Addr().Is4() {
		f = families()[0]
	}
	key := endpoint(addr, s.Protocol)
	if p.shared(&s, addr) {
		key = ""
	}
	if err := p.change(ctx, p.services, key); err != nil {
		return 0, err
	}
	var flows []flow
	var woken, err error
	if key != "" {
		if flows, err = c.flows(&f, s.VIP, addr, s.Protocol); err != nil {
			return 0, err
		}
		woken = wake(s.VIP, flows)
	}
	wanted := maps.Clone(p.services)
	s.Instances = slices.DeleteFunc(slices.Clone(s.Instances), func(in kernel.Instance) bool { return in.Addr == addr })
	wanted[s.Name] = s
	if err := p.change(ctx, wanted, key); err != nil {
		return len(flows), err
	}
	// Only now no new ones come, and segments that were lost are sent again.
	// Connections that can be reset keep their entries until they are: a packet
	// without one would go to another instance.
	if flows, err = c.flows(&f, s.VIP, addr, s.Protocol); err != nil {
		return len(flows), err
	}
	if key == "" {
		return len(flows), errors.Join(c.end(&f, flows, false), wake(s.VIP, flows))
	}
	return len(flows), errors.Join(woken, wake(s.VIP, flows), c.end(&f, flows, true))
}

// shared reports whether another service relies on the same address and port.
func (p *Plane) shared(s *kernel.Service, addr netip.AddrPort) bool {
	for name, other := range p.services {
		if name == s.Name || other.Protocol != s.Protocol {
			continue
		}
		if slices.ContainsFunc(other.Instances, func(in kernel.Instance) bool { return in.Addr == addr }) {
			return true
		}
	}
	return false
}

// wake wakes the clients of established connections.
func wake(vip netip.AddrPort, flows []flow) error {
	var clients []netip.AddrPort
	for _, fl := range flows {
		if fl.established {
			clients = append(clients, fl.client)
		}
	}
	return kernel.Wake(vip, clients)
}
