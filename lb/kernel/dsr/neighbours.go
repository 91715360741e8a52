package dsr

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

const (
	// findTimeout is how long Apply waits for instances that it did not know:
	// as long as the kernel asks before it gives up, at most.
	findTimeout = time.Second
	// findInterval is how often it looks.
	findInterval = 10 * time.Millisecond
	// askInterval is how often Run has the kernel make sure that instances are
	// still there: well below the minute after which it takes that for
	// uncertain (gc_stale_time).
	askInterval = 5 * time.Second
	// updatesMax is how many changes of neighbours wait for Run.
	updatesMax = 1024
)

// reachable are the states of a neighbour whose MAC address can be used; in all
// but the first and the last the kernel is about to find out whether it still is.
const reachable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_NOARP | netlink.NUD_PERMANENT

// addresses are those of all instances.
func addresses(services []kernel.Service) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, s := range services {
		for i := range s.Instances {
			out[s.Instances[i].Addr.Addr()] = true
		}
	}
	return out
}

// find learns the MAC addresses of instances, and waits for those that are new.
func (p *Plane) find(ctx context.Context, services []kernel.Service) error {
	wanted := addresses(services)
	deadline := time.NewTimer(findTimeout)
	defer deadline.Stop()
	look := time.NewTicker(findInterval)
	defer look.Stop()
	asked := false
	for {
		if err := p.learn(wanted); err != nil {
			return err
		}
		missing := 0
		for a := range wanted {
			if _, ok := p.macs[a]; ok {
				continue
			}
			if !asked {
				p.ask(a)
			}
			if !p.silent[a] {
				missing++
			}
		}
		asked = true
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C: // Left says who is missing
			for a := range wanted {
				if _, ok := p.macs[a]; !ok {
					p.silent[a] = true
				}
			}
			return nil
		case <-look.C:
		}
	}
}

// learn reads the kernel's table of neighbours.
func (p *Plane) learn(wanted map[netip.Addr]bool) error {
	list, err := netlink.NeighList(p.ifi.Index, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing neighbours: %w", err)
	}
	macs := map[netip.Addr]mac{}
	for i := range list {
		if a, m, ok := neighbour(&list[i]); ok && wanted[a] {
			macs[a] = m
			delete(p.silent, a)
		}
	}
	maps.DeleteFunc(p.silent, func(a netip.Addr, _ bool) bool { return !wanted[a] })
	p.macs = macs
	return nil
}

// neighbour reads an entry; ok is false for one that cannot be used.
func neighbour(n *netlink.Neigh) (a netip.Addr, m mac, ok bool) {
	a, ok = netip.AddrFromSlice(n.IP)
	if !ok || len(n.HardwareAddr) != len(m) || n.State&reachable == 0 {
		return a.Unmap(), m, false
	}
	copy(m[:], n.HardwareAddr)
	return a.Unmap(), m, true
}

// ask has the kernel ask for an address, or make sure of it, by ARP or neighbour
// solicitation. What fails here is seen when nothing is learned.
func (p *Plane) ask(a netip.Addr) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	_ = netlink.NeighSet(&netlink.Neigh{
		LinkIndex: p.ifi.Index, Family: family, IP: net.IP(a.AsSlice()),
		State: netlink.NUD_NONE, Flags: netlink.NTF_USE,
	})
}

// Run follows the kernel's table of neighbours until ctx is done, and has it kept
// fresh: an instance whose MAC address changes is followed, one that does not
// answer gets nothing until it does. Without it, instances are as they were when
// Apply was called.
func (p *Plane) Run(ctx context.Context) error {
	updates := make(chan netlink.NeighUpdate, updatesMax)
	failed := make(chan error, 1)
	err := netlink.NeighSubscribeWithOptions(updates, ctx.Done(), netlink.NeighSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default: // the first counts
			}
		},
	})
	if err != nil {
		return fmt.Errorf("dsr: watching neighbours: %w", err)
	}
	again := time.NewTicker(askInterval)
	defer again.Stop()
	for {
		select {
		case u, ok := <-updates: // closed by the library when ctx is done or it has failed
			switch {
			case ctx.Err() != nil:
				drain(updates)
				return nil
			case !ok:
				return fmt.Errorf("dsr: watching neighbours: %w", <-failed)
			case u.LinkIndex != p.ifi.Index:
				continue
			}
		case <-ctx.Done():
			drain(updates)
			return nil
		case <-again.C:
			p.askAll()
		}
		if err := p.follow(); err != nil {
			return err
		}
	}
}

// drain waits until the library has ended its goroutine.
func drain(updates <-chan netlink.NeighUpdate) {
	for range updates {
	}
}

// askAll makes sure of all instances.
func (p *Plane) askAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range addresses(p.list()) {
		p.ask(a)
	}
}

// list is what was applied.
func (p *Plane) list() []kernel.Service {
	services := make([]kernel.Service, 0, len(p.services))
	for _, s := range p.services {
		services = append(services, s.Service)
	}
	return services
}

// follow applies what has changed among the neighbours.
func (p *Plane) follow() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	services := p.list()
	wanted, before := addresses(services), p.macs
	if err := p.learn(wanted); err != nil {
		return fmt.Errorf("dsr: %w", err)
	}
	for a := range wanted {
		if _, ok := p.macs[a]; !ok {
			p.ask(a) // the kernel forgets all when the link goes down
		}
	}
	changed := len(before) != len(p.macs)
	for a, m := range p.macs {
		changed = changed || before[a] != m
	}
	if !changed {
		return nil
	}
	if err := p.change(services); err != nil {
		return fmt.Errorf("dsr: following neighbours: %w", err)
	}
	return nil
}
