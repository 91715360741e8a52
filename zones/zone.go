package zones

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Zone is one zone of a Tree: static records or a Source. It is immutable and
// safe for concurrent use.
//
// The records of a static zone lie in a few blocks that hold no pointers but
// each set's to its zone: nodes in an index, sets in the order
// of nodes, RDATA one after the other.
type Zone struct {
	apex   wire.Name
	source Source // nil for a static zone
	warmer Warmer // nil: what answers cannot be brought near ahead of a question
	signer Signer // nil: what is not signed already stays so

	names  index // nodes by name, the apex first; empty non-terminals too (RFC 4592 section 2.2.2)
	sets   []Set
	extras []extra
	data   []byte // each RDATA behind its length in two octets

	// nsecs are the nodes with an NSEC record, in the canonical order of their names
	// (RFC 4034 section 6.1); none: the zone is not signed, or not by NSEC.
	nsecs []uint32

	// chain is the NSEC3 records, of a zone that is signed by those. Their nodes are not
	// found by name.
	chain chain

	expiring *Signature // the first to expire; nil: there is none

	soa    *Set
	negTTL uint32 // seconds; RFC 2308 section 3: the lesser of the SOA's TTL and its minimum
}

// node is one name of a zone.
type node struct {
	name   uint32 // where it begins in index.names
	first  uint32 // its sets are sets[first:first+count]
	count  uint16
	flags  uint8
	octets uint8 // of the name
}

// The flags of a node.
const (
	hasNS uint8 = 1 << iota
	hasCNAME
	hasDNAME
	hasStar // a child named `*`
	hasALIAS
)

// soaNumbers is what a SOA's RDATA has behind its names: serial, refresh, retry,
// expire and minimum, in octets (RFC 1035 section 3.3.13).
const soaNumbers = 20

// extra is an address set that belongs into the additional section.
type extra struct {
	rdata uint32 // the number of the record that names the host
	set   uint32
	glue  bool // the host lies under the cut that the set delegates
}

// Record is one record of a static zone.
type Record struct {
	Owner []byte // a name in wire form, in any case
	Type  wire.Type
	TTL   uint32 // seconds
	RData []byte // uncompressed, names as written
}

// NewSourceZone returns a zone that s answers.
func NewSourceZone(apex wire.Name, s Source) *Zone {
	z := &Zone{apex: apex, source: s}
	z.warmer, _ = s.(Warmer)
	return z
}

// WithSigner has s sign what z answers without signatures of its own: all of a Source,
// and what a static zone borrows. It is called before z is in a Tree, and returns z.
func (z *Zone) WithSigner(s Signer) *Zone {
	z.signer = s
	return z
}

// Signer is what signs the zone's answers; nil: nothing does.
func (z *Zone) Signer() Signer { return z.signer }

// NewZone returns a static zone of the records, in any order. They must have
// exactly one SOA, at the apex, and lie at or below it; duplicates are dropped
// and the TTLs of a set are made the least of them (RFC 2181 sections 5 and
// 5.2). It keeps nothing of records. What else a zone should obey, zonefile
// checks, which can name the line.
func NewZone(apex wire.Name, records []Record) (*Zone, error) {
	z := &Zone{apex: apex, names: newIndex()}
	z.warmer = (*warmZone)(z)
	if err := z.build(records); err != nil {
		return nil, fmt.Errorf("zone %q: %w", apex.String(), err)
	}
	return z, nil
}

// Apex returns the zone's name.
func (z *Zone) Apex() *wire.Name { return &z.apex }

// Dynamic reports whether a Source answers the zone.
func (z *Zone) Dynamic() bool { return z.source != nil }

// Serial is the SOA record's serial number; 0: it is not known yet.
func (z *Zone) Serial() uint32 {
	for rdata := range z.SOA().All {
		if at := len(rdata) - soaNumbers; at >= 0 {
			return binary.BigEndian.Uint32(rdata[at:])
		}
	}
	return 0
}

// Len is how many records a static zone has; 0 for a Source.
func (z *Zone) Len() int {
	n := 0
	for i := range z.sets {
		n += int(z.sets[i].count)
	}
	return n
}

// SOA is the zone's SOA set, whose owner is the apex. With Request.Section
// Authority its TTL is that of negative answers (RFC 2308 section 3).
func (z *Zone) SOA() RRset {
	if z.source != nil {
		return z.source.SOA()
	}
	return z.soa
}

// Signed reports whether a static zone's file has signatures and the records that
// prove what is not there (RFC 4035).
func (z *Zone) Signed() bool { return len(z.nsecs) > 0 || len(z.chain.nodes) > 0 }

// set returns the node's set of a type, nil if there is none.
func (z *Zone) set(n *node, typ wire.Type) *Set {
	if i := z.setIndex(n, typ); i >= 0 {
		return &z.sets[i]
	}
	return nil
}

// setIndex is set's place in z.sets, -1 if there is none.
func (z *Zone) setIndex(n *node, typ wire.Type) int {
	for i := int(n.first); i < int(n.first)+int(n.count); i++ {
		if z.sets[i].typ == typ {
			return i
		}
	}
	return -1
}

// Stray tells of each ALIAS record whose target lies in none of the zones with
// the apexes, so that it has no addresses.
func (z *Zone) Stray(apexes []wire.Name) []string {
	var told []string
	for i := range z.names.nodes {
		if z.names.nodes[i].flags&hasALIAS == 0 {
			continue
		}
		rdata, _ := next(z.data[z.set(&z.names.nodes[i], wire.TypeALIAS).data:])
		var owner, target wire.Name
		owner.Set(z.names.name(uint32(i)))
		target.Set(rdata) // checkRData has seen that it is a name
		if !slices.ContainsFunc(apexes, func(apex wire.Name) bool { _, ok := target.Below(&apex); return ok }) {
			told = append(told, fmt.Sprintf("%s ALIAS: its target %s lies in no zone that is served here", owner.String(), target.String()))
		}
	}
	return told
}

// Undelegated tells of each of the apexes that the zone is the next above, and has no NS
// records of: of a signed zone that is a proof that there is no such zone, by which
// validators find nothing in it.
func (z *Zone) Undelegated(apexes []wire.Name) []string {
	var told []string
	for i := range apexes {
		child := &apexes[i]
		depth, inside := child.Below(&z.apex)
		if !inside || depth == 0 || slices.ContainsFunc(apexes, func(other wire.Name) bool {
			_, above := child.Below(&other)
			below, in := other.Below(&z.apex)
			return above && in && below > 0 && below < depth
		}) {
			continue
		}
		if at, there := z.names.find(child.Wire()); !there || z.set(&z.names.nodes[at], wire.TypeNS) == nil {
			told = append(told, fmt.Sprintf("%s is signed and has no NS records for %s, which is served below it: validators take it that there is no such zone", z.apex.String(), child.String()))
		}
	}
	return told
}

// readSOA takes from the apex what the zone needs of its SOA.
func (z *Zone) readSOA() error {
	z.soa = z.set(&z.names.nodes[0], wire.TypeSOA)
	if z.soa == nil {
		return errors.New("no SOA at the apex")
	}
	if z.soa.count != 1 {
		return fmt.Errorf("%d SOA records, want 1", z.soa.count)
	}
	rdata, _ := next(z.data[z.soa.data:])
	numbers := rdata[len(rdata)-soaNumbers:] // checkRData has seen that they are there
	z.negTTL = min(z.soa.ttl, binary.BigEndian.Uint32(numbers[soaNumbers-4:]))
	return nil
}

// next splits the first RDATA off data.
func next(data []byte) (rdata, rest []byte) {
	size := int(binary.BigEndian.Uint16(data))
	return data[2 : 2+size : 2+size], data[2+size:]
}
