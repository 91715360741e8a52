// Package locality says where clients are: networks become localities, by number, so
// that an answer compares words and no names. A locality's number is its owner's to give.
//
// Invariant: finding takes no lock, allocates nothing and reads no clock; it is for the
// query path.
package locality

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// NetworksMax bounds a table.
const NetworksMax = 65_536

// Network is one network and the number of its locality, which is not 0.
type Network struct {
	Prefix   netip.Prefix
	Locality uint16
}

// Table finds the locality of an address by the longest network that has it. It is
// immutable; a nil Table knows none. Finding takes no lock and allocates nothing; it
// costs a map's lookup for each length of prefix that the family has.
type Table struct {
	networks map[netip.Prefix]uint16
	lengths4 []uint8 // the longest first
	lengths6 []uint8
}

// New returns the table of the networks; no two may be the same.
func New(list []Network) (*Table, error) {
	if len(list) > NetworksMax {
		return nil, fmt.Errorf("%d networks, at most %d", len(list), NetworksMax)
	}
	t := &Table{networks: make(map[netip.Prefix]uint16, len(list))}
	for _, n := range list {
		p := n.Prefix.Masked()
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			return nil, fmt.Errorf("%s: not a network", n.Prefix)
		case n.Locality == 0:
			return nil, errors.New("a locality has the number 0")
		case t.networks[p] != 0:
			return nil, fmt.Errorf("%s: given twice", p)
		}
		t.networks[p] = n.Locality
		lengths := &t.lengths6
		if p.Addr().Is4() {
			lengths = &t.lengths4
		}
		*lengths = append(*lengths, uint8(p.Bits()))
	}
	for _, lengths := range []*[]uint8{&t.lengths4, &t.lengths6} {
		slices.Sort(*lengths)
		*lengths = slices.Compact(*lengths)
		slices.Reverse(*lengths)
	}
	return t, nil
}

// Find returns the locality of an address, of which the first bits are known; 0: none.
// scope is how many bits may have decided that: what holds for the address holds for
// all that have these in common with it.
func (t *Table) Find(a netip.Addr, bits uint8) (locality uint16, scope uint8) {
	if t == nil {
		return 0, 0
	}
	a = a.Unmap()
	lengths := t.lengths6
	if a.Is4() {
		lengths = t.lengths4
	}
	if len(lengths) == 0 {
		return 0, 0
	}
	for _, l := range lengths {
		if l > bits {
			continue
		}
		p, err := a.Prefix(int(l))
		if err != nil {
			return 0, 0
		}
		if id := t.networks[p]; id != 0 {
			return id, min(lengths[0], bits)
		}
	}
	return 0, min(lengths[0], bits)
}
