package dsr

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// remember reads who had which index and which services were there before.
func (p *Plane) remember() error {
	var n name
	for id := uint32(1); id < realsMax; id++ {
		if err := p.maps.Names.Lookup(id, &n); err != nil {
			return fmt.Errorf("reading the instances: %w", err)
		}
		if n == (name{}) {
			p.next = id
			break
		}
		p.ids[n] = id
		p.retired = append(p.retired, id)
		p.next = id + 1
	}
	var f front
	var v service
	it := p.maps.Services.Iterate()
	for it.Next(&f, &v) {
		p.adopted[f] = v
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading the services: %w", err)
	}
	return nil
}

// retire notes which indexes have no instance any more. Their flows go on.
func (p *Plane) retire(wanted map[name]bool) {
	gone := map[uint32]bool{}
	for n, id := range p.ids {
		if !wanted[n] {
			gone[id] = true
		}
	}
	p.retired = slices.DeleteFunc(p.retired, func(id uint32) bool { return !gone[id] })
	for _, id := range p.retired {
		delete(gone, id)
	}
	p.retired = append(p.retired, slices.Sorted(maps.Keys(gone))...)
}

// id is the index of an instance of a service, which it keeps as long as it is
// listed and after that until all others have been used: flows refer to it.
func (p *Plane) id(n name) (uint32, error) {
	if id, ok := p.ids[n]; ok {
		return id, nil
	}
	id := p.next
	if id < realsMax {
		p.next++
	} else {
		if len(p.retired) == 0 {
			return 0, ErrTooManyInstances
		}
		id = p.retired[0]
		p.retired = p.retired[1:]
		for old, other := range p.ids {
			if other == id {
				delete(p.ids, old)
			}
		}
		if _, err := p.purge(id); err != nil {
			return 0, err
		}
	}
	zero := make([]traffic, ebpf.MustPossibleCPU())
	if err := errors.Join(p.maps.Counters.Put(id, zero), p.maps.Names.Put(id, n)); err != nil {
		return 0, fmt.Errorf("writing an instance: %w", err)
	}
	p.ids[n] = id
	return id, nil
}

// purgeBatch is how many flows are read in one system call: more than one of the
// kernel's buckets holds.
const purgeBatch = 4096

// purge forgets the flows of an index and returns their clients.
func (p *Plane) purge(id uint32) ([]netip.AddrPort, error) {
	var clients []netip.AddrPort
	var gone []flow
	keys, values := make([]flow, purgeBatch), make([]uint32, purgeBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := p.maps.Flows.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which says that it was the last
			return nil, fmt.Errorf("reading flows: %w", err)
		}
		for i := range n {
			if values[i] == id {
				gone = append(gone, keys[i])
				clients = append(clients, keys[i].client())
			}
		}
		if err != nil {
			break
		}
	}
	for i := range gone {
		if err := p.maps.Flows.Delete(&gone[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("forgetting a flow: %w", err)
		}
	}
	return clients, nil
}

// client is where a flow comes from.
func (f *flow) client() netip.AddrPort {
	port := uint16(f.ClientPort[0])<<8 | uint16(f.ClientPort[1])
	return netip.AddrPortFrom(netip.AddrFrom16(f.Client).Unmap(), port)
}
