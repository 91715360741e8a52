package zones

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// setRecordsMax is how many records a set may have: more than any message can
// carry, and what a count in a message can say.
const setRecordsMax = math.MaxUint16

// entry is a record on its way into the zone.
type entry struct {
	node  uint32
	order int // in the records given
	typ   wire.Type
	of    wire.Type // of a signature: the type that it covers
	ttl   uint32
	rdata []byte
}

// build fills z from the records.
func (z *Zone) build(records []Record) error {
	z.names.add(z.apex.Wire()) // node 0
	entries := make([]entry, 0, len(records))
	octets := 0
	var owner wire.Name
	var hashes []int // records of names that are hashes
	for i, r := range records {
		if !owner.Set(r.Owner) {
			return fmt.Errorf("record %d: owner: %w", i, errName)
		}
		if err := checkRData(r.Type, r.RData); err != nil {
			return fmt.Errorf("%s %s: %w", owner.String(), r.Type, err)
		}
		below, ok := owner.Below(&z.apex)
		if !ok {
			return fmt.Errorf("%s %s: lies outside the zone", owner.String(), r.Type)
		}
		octets += 2 + len(r.RData)
		if hashed(&r, &owner, below) {
			hashes = append(hashes, i)
			continue
		}
		for i := 1; i < below; i++ { // empty non-terminals, RFC 4592 section 2.2.2
			z.names.add(owner.Suffix(i))
		}
		entries = append(entries, entry{z.names.add(owner.Wire()), i, r.Type, covered(&r), r.TTL, r.RData})
	}
	hidden := map[string]uint32{}
	for _, i := range hashes {
		r := &records[i]
		owner.Set(r.Owner)
		node, ok := hidden[string(owner.Wire())]
		if !ok {
			node = z.names.hide(owner.Wire())
			hidden[string(owner.Wire())] = node
		}
		entries = append(entries, entry{node, i, r.Type, covered(r), r.TTL, r.RData})
	}
	if octets > math.MaxInt32 || len(z.names.names) > math.MaxInt32 {
		return fmt.Errorf("%d octets of data in %d of names: more than %d", octets, len(z.names.names), math.MaxInt32)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.typ, b.typ), cmp.Compare(a.of, b.of),
			compareRData(a.typ, a.rdata, b.rdata), cmp.Compare(a.order, b.order))
	})
	z.data = make([]byte, 0, octets)
	if err := z.buildSets(entries); err != nil {
		return err
	}
	if err := z.readSOA(); err != nil {
		return err
	}
	z.markWildcards()
	z.findExtras()
	z.findSignatures()
	z.findExpiring()
	return nil
}

// covered is the type that a signature is of (RFC 4034 section 3.1.1); 0 for other
// records.
func covered(r *Record) wire.Type {
	if r.Type == wire.TypeRRSIG && len(r.RData) >= 2 {
		return wire.Type(binary.BigEndian.Uint16(r.RData))
	}
	return 0
}

// buildSets makes the sets of the sorted entries.
func (z *Zone) buildSets(entries []entry) error {
	for len(entries) > 0 {
		e := entries[0]
		size := 1
		for size < len(entries) && entries[size].node == e.node && entries[size].typ == e.typ && entries[size].of == e.of {
			size++
		}
		s := Set{zone: z, typ: e.typ, covers: e.of, ttl: e.ttl, data: uint32(len(z.data))}
		for i, r := range entries[:size] {
			s.ttl = min(s.ttl, r.ttl) // RFC 2181 section 5.2
			if i > 0 && compareRData(r.typ, entries[i-1].rdata, r.rdata) == 0 {
				continue // RFC 2181 section 5: no duplicates in a set
			}
			if s.count == setRecordsMax {
				return fmt.Errorf("node %d type %s: more than %d records in a set", e.node, e.typ, setRecordsMax)
			}
			s.count++
			z.data = binary.BigEndian.AppendUint16(z.data, uint16(len(r.rdata)))
			z.data = append(z.data, r.rdata...)
		}
		n := &z.names.nodes[e.node]
		if n.count == 0 {
			n.first = uint32(len(z.sets))
		}
		n.count++
		switch e.typ {
		case wire.TypeNS:
			n.flags |= hasNS
		case wire.TypeCNAME:
			n.flags |= hasCNAME
		case wire.TypeDNAME:
			n.flags |= hasDNAME
		case wire.TypeALIAS:
			n.flags |= hasALIAS
		}
		z.sets = append(z.sets, s)
		entries = entries[size:]
	}
	z.sets = slices.Clip(z.sets)
	return nil
}

// markWildcards marks the nodes that have a child named `*`.
func (z *Zone) markWildcards() {
	for i := range z.names.nodes {
		name := z.names.name(uint32(i))
		if i == 0 || !bytes.HasPrefix(name, star) {
			continue
		}
		if parent, ok := z.names.find(name[len(star):]); ok {
			z.names.nodes[parent].flags |= hasStar
		}
	}
}

// findExtras finds, for each set that names hosts, their addresses in the zone.
func (z *Zone) findExtras() {
	for i := range z.names.nodes {
		n := &z.names.nodes[i]
		for j := range n.count {
			s := &z.sets[n.first+uint32(j)]
			switch s.typ {
			case wire.TypeNS, wire.TypeMX, wire.TypeSRV:
				s.extra = uint32(len(z.extras))
				z.addExtras(s, uint32(i))
				s.extras = uint16(len(z.extras) - int(s.extra))
			}
		}
	}
	z.extras = slices.Clip(z.extras)
}

// addExtras appends the address sets of the first hostsMax hosts that s, the
// set of node, names. Those that a referral cannot do without come first.
func (z *Zone) addExtras(s *Set, node uint32) {
	seen := map[uint32]bool{}
	var owner, host wire.Name
	owner.Set(z.names.name(node))
	delegates := node != 0 && s.typ == wire.TypeNS
	for i, rdata := range s.each() {
		if i == hostsMax {
			break
		}
		target, _ := rdataName(s.typ, rdata)
		host.Set(target) // checkRData has seen that it is a name
		at, ok := z.names.find(host.Wire())
		if !ok || seen[at] {
			continue
		}
		seen[at] = true
		for _, t := range [...]wire.Type{wire.TypeA, wire.TypeAAAA} {
			if set := z.setIndex(&z.names.nodes[at], t); set >= 0 {
				_, under := host.Below(&owner)
				z.extras = append(z.extras, extra{rdata: uint32(i), set: uint32(set), glue: delegates && under})
			}
		}
	}
	slices.SortStableFunc(z.extras[s.extra:], func(a, b extra) int {
		switch {
		case a.glue == b.glue:
			return 0
		case a.glue:
			return -1
		}
		return 1
	})
}

var (
	errAddress = errors.New("address of the wrong size")
	errName    = errors.New("malformed name")
	errSize    = errors.New("more than 65535 octets of RDATA")
)

// checkRData checks the types that the zone looks into or that are written
// with compressed names.
func checkRData(t wire.Type, rdata []byte) error {
	if len(rdata) > math.MaxUint16 {
		return errSize
	}
	switch t {
	case wire.TypeA:
		if len(rdata) != 4 {
			return errAddress
		}
	case wire.TypeAAAA:
		if len(rdata) != 16 {
			return errAddress
		}
	case wire.TypeSOA, wire.TypeMINFO:
		var n wire.Name
		first := nameLen(rdata)
		second := first + nameLen(rdata[first:])
		if !n.Set(rdata[:first]) || !n.Set(rdata[first:second]) {
			return errName
		}
		if want := second + soaNumbers; t == wire.TypeSOA && len(rdata) != want {
			return fmt.Errorf("%d octets of RDATA, want %d", len(rdata), want)
		}
	default:
		var n wire.Name
		if name, ok := rdataName(t, rdata); ok && !n.Set(name) {
			return errName
		}
	}
	return nil
}

// rdataName returns the name that ends the RDATA of the types that end in one;
// not ok for other types.
func rdataName(t wire.Type, rdata []byte) (name []byte, ok bool) {
	prefix := 0
	switch t {
	case wire.TypeNS, wire.TypeCNAME, wire.TypePTR, wire.TypeDNAME, wire.TypeALIAS,
		wire.TypeMB, wire.TypeMD, wire.TypeMF, wire.TypeMG, wire.TypeMR:
	case wire.TypeMX:
		prefix = 2
	case wire.TypeSRV:
		prefix = 6
	default:
		return nil, false
	}
	return rdata[min(prefix, len(rdata)):], true
}

// nameLen is the length of the uncompressed name that w begins with; len(w)
// when it has no end.
func nameLen(w []byte) int {
	for i := 0; i < len(w); i += 1 + int(w[i]) {
		if w[i] == 0 {
			return i + 1
		}
	}
	return len(w)
}

// compareRData orders the RDATA of one set; names in it are equal in any case
// (RFC 4343).
func compareRData(t wire.Type, a, b []byte) int {
	an, ok := rdataName(t, a)
	if !ok {
		return bytes.Compare(a, b)
	}
	bn, _ := rdataName(t, b)
	return cmp.Or(bytes.Compare(a[:len(a)-len(an)], b[:len(b)-len(bn)]),
		bytes.Compare(bytes.ToLower(an), bytes.ToLower(bn)))
}
