package zones

import (
	"fmt"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Tree is an immutable set of zones, found by the longest apex that a name lies
// under, label by label. It is safe for concurrent use.
type Tree struct {
	names  index
	zones  []*Zone // as the index numbers them
	depths []uint8 // how many labels apexes have, the most first, each once
}

// NewTree returns a tree of the zones; no two may have the same apex.
func NewTree(zones []*Zone) (*Tree, error) {
	t := &Tree{names: newIndex()}
	for _, z := range zones {
		if t.names.add(z.apex.Wire()) != uint32(len(t.zones)) {
			return nil, fmt.Errorf("zone %q: given twice", z.apex.String())
		}
		t.zones = append(t.zones, z)
		t.depths = append(t.depths, uint8(z.apex.Labels()))
	}
	slices.Sort(t.depths)
	t.depths = slices.Compact(t.depths)
	slices.Reverse(t.depths)
	return t, nil
}

// Zone returns the zone whose apex is name, nil if there is none.
func (t *Tree) Zone(name *wire.Name) *Zone {
	if i, ok := t.names.find(name.Wire()); ok {
		return t.zones[i]
	}
	return nil
}

// Lookup finds what answers a question, in the zone with the longest apex at or
// above name, by RFC 1034 section 4.3.2. What it writes to a stays valid as
// long as the zone and a do. It allocates nothing.
func (t *Tree) Lookup(name *wire.Name, typ wire.Type, a *Answer) {
	z, below := t.match(name, 0)
	if z != nil && below == 0 && typ == wire.TypeDS {
		// RFC 4035 section 3.1.4.1: DS lies on the parent's side of a cut.
		if parent, strip := t.match(name, 1); parent != nil {
			z, below = parent, strip
		}
	}
	*a = Answer{Kind: Refused, Type: typ, EDE: EDENone, Zone: z}
	switch {
	case z == nil:
	case z.source != nil:
		z.source.Lookup(name, below, typ, a)
	default:
		z.lookup(name, below, typ, a)
	}
}

// Above returns the zone that a name lies in, nil if it lies in none.
func (t *Tree) Above(name *wire.Name) *Zone {
	z, _ := t.match(name, 0)
	return z
}

// match returns the zone with the longest apex at or above name that leaves at
// least skip labels below it, and how many it leaves.
func (t *Tree) match(name *wire.Name, skip int) (z *Zone, below int) {
	labels := name.Labels()
	for _, d := range t.depths {
		below := labels - int(d)
		if below < skip {
			continue
		}
		if i, ok := t.names.find(name.Suffix(below)); ok {
			return t.zones[i], below
		}
	}
	return nil, 0
}
