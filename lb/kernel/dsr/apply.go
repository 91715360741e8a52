package dsr

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

// installed is a service as the kernel has it.
type installed struct {
	kernel.Service
	value   service
	choices []uint32 // of each slot: the index of a real; nil if none can be chosen
	// ofSlot is the same as an index in Instances.
	ofSlot []uint32
	// reached are the instances that the table was made of.
	reached []kernel.Instance
}

// Left is an instance that cannot take part.
type Left struct{ Service, Instance, Why string }

// Left lists the instances that Apply was told of and that get nothing, because
// they are not to be found on the link. Run takes them in when they are.
func (p *Plane) Left() []Left {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.left)
}

// Apply makes the services, all of them and no other, what the program does. Each
// service changes between two packets. Flows stay where they are, also of
// instances that are draining or gone. It waits, up to a second, for instances
// that it did not know to answer ARP or neighbour solicitation. Applying the same
// again changes nothing. An instance that was killed and is listed again is alive
// again.
func (p *Plane) Apply(ctx context.Context, services []kernel.Service) error {
	if err := p.validate(services); err != nil {
		return fmt.Errorf("dsr: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.find(ctx, services); err != nil {
		return fmt.Errorf("dsr: %w", err)
	}
	if err := p.change(kernel.Clone(services)); err != nil {
		return fmt.Errorf("dsr: applying %d services: %w", len(services), err)
	}
	return nil
}

func (p *Plane) validate(services []kernel.Service) error {
	if err := kernel.Validate(services); err != nil {
		return err
	}
	if len(services) > ServicesMax {
		return fmt.Errorf("%w: %d, at most %d", ErrTooManyServices, len(services), ServicesMax)
	}
	n := 0
	for i := range services {
		s := &services[i]
		n += len(s.Instances)
		for j := range s.Instances {
			if in := &s.Instances[j]; in.Addr.Port() != s.VIP.Port() {
				return fmt.Errorf("service %s, instance %s: %w from %d to %d", s.Name, in.ID, ErrPort, s.VIP.Port(), in.Addr.Port())
			}
		}
	}
	if n >= realsMax {
		return fmt.Errorf("%w: %d, at most %d", ErrTooManyInstances, n, realsMax-1)
	}
	return nil
}

// change writes the difference between what the kernel has and what is wanted.
func (p *Plane) change(services []kernel.Service) error {
	wanted := map[string]*installed{}
	var left []Left
	named := map[name]bool{}
	for _, s := range services {
		for i := range s.Instances {
			named[nameOf(&s, &s.Instances[i])] = true
		}
	}
	p.retire(named)
	for i := range services {
		next := &installed{Service: services[i]}
		l, err := p.prepare(next)
		if err != nil {
			return err
		}
		left = append(left, l...)
		wanted[next.Name] = next
		if err := p.install(next); err != nil {
			return fmt.Errorf("service %s: %w", next.Name, err)
		}
	}
	p.left = left
	return p.sweep(wanted)
}

// prepare gives the service's instances their indexes and computes its table.
func (p *Plane) prepare(next *installed) ([]Left, error) {
	var left []Left
	reachable := next.Service
	reachable.Instances = nil
	var at []uint32 // of each reachable instance: its place in Instances
	for i := range next.Instances {
		in := &next.Instances[i]
		id, err := p.id(nameOf(&next.Service, in))
		if err != nil {
			return nil, err
		}
		m, ok := p.macs[in.Addr.Addr()]
		if !ok {
			left = append(left, Left{next.Name, in.ID, "it does not answer on " + p.config.Interface})
			m = mac{}
		}
		if err := p.setReal(id, m, ok); err != nil {
			return nil, err
		}
		if ok {
			reachable.Instances = append(reachable.Instances, *in)
			at = append(at, uint32(i))
		}
	}
	next.reached = reachable.Instances
	if old := p.services[next.Name]; old != nil && frontOf(&old.Service) == frontOf(&next.Service) &&
		slices.Equal(old.Instances, next.Instances) && slices.Equal(old.reached, next.reached) {
		next.choices, next.ofSlot = old.choices, old.ofSlot
		return left, nil
	}
	next.ofSlot = reachable.Table()
	if next.ofSlot == nil {
		return left, nil
	}
	next.choices = make([]uint32, len(next.ofSlot))
	for slot, i := range next.ofSlot {
		next.ofSlot[slot] = at[i]
		next.choices[slot] = p.ids[nameOf(&next.Service, &next.Instances[at[i]])]
	}
	return left, nil
}

// setReal writes where an index leads.
func (p *Plane) setReal(id uint32, m mac, living bool) error {
	r := route{MAC: m}
	if !living {
		r.State = stateDead
	}
	if err := p.maps.Reals.Put(id, r); err != nil {
		return fmt.Errorf("writing an instance: %w", err)
	}
	return nil
}

// install writes a service: its table first, then who uses it.
func (p *Plane) install(next *installed) error {
	old := p.services[next.Name]
	adopted, known := p.adopted[frontOf(&next.Service)]
	moved := old != nil && frontOf(&old.Service) != frontOf(&next.Service)
	switch {
	case old != nil && !moved:
		next.value = old.value
	case known: // an earlier process served it
		next.value = adopted
		delete(p.adopted, frontOf(&next.Service))
	default:
		at, err := p.freeTable()
		if err != nil {
			return err
		}
		next.value.Table = at
	}
	if old == nil || moved || !same(old.choices, next.choices) {
		if err := p.writeTable(next.value.Table, next.choices); err != nil {
			return err
		}
	}
	next.value.BySource = 0
	if next.Affinity == kernel.BySource {
		next.value.BySource = 1
	}
	held, told := p.held[next.VIP.Addr()]
	switch {
	case !next.Fenced:
		next.value.Deadline = 0
	case told:
		next.value.Deadline = held
	case next.value.Deadline == 0:
		next.value.Deadline = 1 // long ago
	}
	if err := p.maps.Services.Put(frontOf(&next.Service), next.value); err != nil {
		return fmt.Errorf("writing the service: %w", err)
	}
	if moved {
		if err := p.forget(old); err != nil {
			return err
		}
	}
	p.services[next.Name] = next
	return nil
}

// same reports whether two tables are equal; most often they are one.
func same(a, b []uint32) bool {
	if len(a) > 0 && len(b) > 0 && &a[0] == &b[0] {
		return true
	}
	return slices.Equal(a, b)
}

// writeTable makes a table and puts it in its place, between two packets.
func (p *Plane) writeTable(at uint32, choices []uint32) error {
	table, err := ebpf.NewMap(&ebpf.MapSpec{Name: "table", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: lb.MaglevSlots})
	if err != nil {
		return fmt.Errorf("making a table: %w", explainError(err))
	}
	defer table.Close()
	if choices != nil {
		slots := make([]uint32, lb.MaglevSlots)
		for slot := range slots {
			slots[slot] = uint32(slot)
		}
		if _, err := table.BatchUpdate(slots, choices, nil); err != nil {
			return fmt.Errorf("writing a table: %w", err)
		}
	}
	if err := p.maps.Tables.Put(at, table); err != nil {
		return fmt.Errorf("installing a table: %w", err)
	}
	return nil
}

// freeTable finds an index of tables that no service has.
func (p *Plane) freeTable() (uint32, error) {
	used := map[uint32]bool{}
	for _, s := range p.services {
		used[s.value.Table] = true
	}
	for _, v := range p.adopted {
		used[v.Table] = true
	}
	for at := range uint32(tablesMax) {
		if !used[at] {
			return at, nil
		}
	}
	return 0, errors.New("no table is free")
}

// sweep removes the services that are not wanted.
func (p *Plane) sweep(wanted map[string]*installed) error {
	for name, old := range p.services {
		if wanted[name] != nil {
			continue
		}
		if err := p.forget(old); err != nil {
			return err
		}
		delete(p.services, name)
	}
	// And those that an earlier process left.
	for f, v := range p.adopted {
		if err := p.erase(f, v); err != nil {
			return err
		}
		delete(p.adopted, f)
	}
	return nil
}

// forget removes a service from the kernel, unless another has its VIP now.
func (p *Plane) forget(old *installed) error {
	for _, s := range p.services {
		if s != old && frontOf(&s.Service) == frontOf(&old.Service) {
			return nil
		}
	}
	return p.erase(frontOf(&old.Service), old.value)
}

// erase removes a service and its table.
func (p *Plane) erase(f front, v service) error {
	for _, err := range []error{p.maps.Services.Delete(f), p.maps.Tables.Delete(v.Table)} {
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("removing a service: %w", err)
		}
	}
	return nil
}
