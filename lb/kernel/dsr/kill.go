package dsr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

// Kill takes an instance of a service, that is at addr, for down: it gets no more
// packets. Those of its connections go to the instances that the table says, which
// do not know them and reset them; clients that are silent are asked for a sign of
// life, which is answered so too. It returns how many flows there were. The
// instance may have been left out by Apply before; it stays dead until Apply lists
// it again.
func (p *Plane) Kill(ctx context.Context, service string, addr netip.AddrPort) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.kill(service, addr)
	if err != nil {
		return n, fmt.Errorf("dsr: killing %v of %q: %w", addr, service, err)
	}
	return n, nil
}

func (p *Plane) kill(service string, addr netip.AddrPort) (int, error) {
	s, ok := p.services[service]
	if !ok {
		return 0, fmt.Errorf("no such service")
	}
	id, ok := p.ids[nameOf(&s.Service, &kernel.Instance{Addr: addr})]
	if !ok {
		return 0, nil // it never had a flow
	}
	// First what is quick: from here on the table chooses for its flows.
	if err := p.setReal(id, mac{}, false); err != nil {
		return 0, err
	}
	services := p.list()
	for i := range services {
		if services[i].Name == service {
			services[i].Instances = slices.DeleteFunc(slices.Clone(services[i].Instances), func(in kernel.Instance) bool { return in.Addr == addr })
		}
	}
	if err := p.change(services); err != nil {
		return 0, err
	}
	clients, err := p.purge(id)
	if err != nil {
		return 0, err
	}
	if s.Protocol != kernel.TCP {
		return len(clients), nil
	}
	return len(clients), kernel.Wake(s.VIP, clients)
}

// Hold says that this machine holds the VIP until then; its fenced services are
// served that long and no longer, whatever becomes of this process. A time that
// has passed means that the VIP is not held.
func (p *Plane) Hold(ctx context.Context, vip netip.Addr, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	now, err := clockNow()
	if err != nil {
		return fmt.Errorf("dsr: holding %v: %w", vip, err)
	}
	deadline := uint64(max(now+time.Until(until), 1)) // 0 would be for ever
	p.held[vip] = deadline
	for _, s := range p.services {
		if !s.Fenced || s.VIP.Addr() != vip {
			continue
		}
		s.value.Deadline = deadline
		if err := p.maps.Services.Put(frontOf(&s.Service), s.value); err != nil {
			return fmt.Errorf("dsr: holding %v: %w", vip, err)
		}
	}
	return nil
}

// clockNow is the clock that the program compares deadlines with.
func clockNow() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("reading the clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
