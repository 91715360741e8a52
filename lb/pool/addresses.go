package pool

import (
	"cmp"
	"net/netip"
	"slices"
)

// NamesPerAddressMax is the number of instances of one address that the index
// shows: as many PTR records as fit no UDP message anyhow.
const NamesPerAddressMax = 32

// addressSpace is the table's key space of addresses.
const addressSpace = 0

// AddressNames is the instances that have one address. Immutable.
type AddressNames struct {
	hash    uint64
	address string // 16 octets
	names   []AddressName
}

// AddressName is one instance that has an address.
type AddressName struct {
	// Source is where the instance is registered.
	Source *SourceView
	// Name is the instance's absolute name in wire form:
	// "\x05web-1\x03web\x03svc\x08internal\x00".
	Name string
}

func (a *AddressNames) key() (uint64, uint16, string) { return a.hash, addressSpace, a.address }

// Len is the number of names, and At the n-th of them. They are sorted by
// source and name.
func (a *AddressNames) Len() int { return len(a.names) }

// At returns the n-th name.
func (a *AddressNames) At(n int) AddressName { return a.names[n] }

// addressIndex is the writer's side of the index from addresses to instances.
type addressIndex struct {
	view    *View
	byAddr  map[netip.Addr][]AddressName // sorted
	changed map[netip.Addr]struct{}
}

func (x *addressIndex) init(v *View) {
	x.view = v
	x.byAddr = map[netip.Addr][]AddressName{}
	x.changed = map[netip.Addr]struct{}{}
}

// index adds or removes the addresses of an instance.
func (w *writer) index(s *svc, rec record, add bool) {
	if !w.reverse {
		return
	}
	n := AddressName{s.src.view, string(append(appendWire(slices.Clone(rec.label()), s.name), s.src.view.apex...))}
	for _, a := range rec.addresses() {
		w.addrs.changed[a] = struct{}{}
		list := w.addrs.byAddr[a]
		at, there := slices.BinarySearchFunc(list, n, func(a, b AddressName) int {
			return cmp.Or(cmp.Compare(a.Source.id, b.Source.id), cmp.Compare(a.Name, b.Name))
		})
		switch {
		case add && !there:
			w.addrs.byAddr[a] = slices.Insert(list, at, n)
		case !add && there:
			if list = slices.Delete(list, at, at+1); len(list) == 0 {
				delete(w.addrs.byAddr, a)
				continue
			}
			w.addrs.byAddr[a] = list
		}
	}
}

// publish shows what has changed.
func (x *addressIndex) publish(c *counters) {
	for a := range x.changed {
		b := a.As16()
		next := &AddressNames{hash: hashKey(x.view.seed, addressSpace, b[:]), address: string(b[:])}
		list := x.byAddr[a]
		if len(list) == 0 {
			x.view.addresses.remove(next)
			continue
		}
		if len(list) > NamesPerAddressMax {
			c.addressesOmitted.Add(uint64(len(list) - NamesPerAddressMax))
			list = list[:NamesPerAddressMax]
		}
		next.names = slices.Clone(list)
		x.view.addresses.put(next)
	}
	clear(x.changed)
}

// reindex builds the index, or drops it.
func (w *writer) reindex() {
	for a := range w.addrs.byAddr {
		w.addrs.changed[a] = struct{}{}
	}
	clear(w.addrs.byAddr)
	if !w.reverse {
		return
	}
	for _, src := range w.sources {
		for _, s := range src.services {
			for i := range s.insts {
				w.index(s, s.insts[i].rec, true)
			}
		}
	}
}
