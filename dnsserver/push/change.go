package push

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// ttlDefault is the TTL of what is pushed where the set does not say, in seconds. A
// subscriber holds a record until it is taken away (RFC 8765 section 6.3.1).
const ttlDefault = 5

// round is what is told a session at once. A change that several subscriptions match, one
// to all types of a name and one to a type of it, is told once (RFC 8765 section 6.3.1).
type round struct {
	octets []byte
	told   map[string]struct{} // the records; nil: no two subscriptions match one
}

// record adds a record, uncompressed, which is its type in two octets and its RDATA.
func (r *round) record(owner *wire.Name, ttl uint32, record string) {
	start := len(r.octets)
	dst := append(r.octets, owner.Wire()...)
	dst = append(dst, record[:typeSize]...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(wire.ClassIN))
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(record)-typeSize))
	dst = append(dst, record[typeSize:]...)
	if r.told != nil {
		if _, again := r.told[string(dst[start:])]; again {
			return
		}
		r.told[string(dst[start:])] = struct{}{}
	}
	r.octets = dst
}

// changes adds the records that have come and gone since the client was told, and
// notes that it is; not ok: the Hub has no memory for that.
func (s *subscription) changes(r *round, tree *zones.Tree, hub *Hub) (ok bool) {
	now, known := s.records(tree)
	if !known {
		return true // what was told stays
	}
	kept := subscriptionCost + cost(now)
	if !hub.reserve(kept - s.kept) {
		return false
	}
	s.kept = kept
	for record := range s.told {
		if _, still := now[record]; !still {
			r.record(&s.name, ttlRemove, record)
		}
	}
	for record := range now {
		if _, known := s.told[record]; !known {
			r.record(&s.name, ttlDefault, record)
		}
	}
	s.told = now
	return true
}

// aliasesMax is how many ALIAS and CNAME records are followed for borrowed addresses.
const aliasesMax = 10

// typeSize is what a record's type takes before its RDATA, in octets.
const typeSize = 2

// records are what there is of the name and type, or of all its types (RFC 8765 section
// 6.2.1: ANY means that here), each its type and RDATA; not known: what is there cannot be
// told.
func (s *subscription) records(tree *zones.Tree) (_ map[string]struct{}, known bool) {
	now := map[string]struct{}{}
	if s.typ != wire.TypeANY {
		return now, s.find(now, tree, s.typ)
	}
	types := tree.Types(&s.name)
	for _, typ := range types {
		if !s.find(now, tree, typ) {
			return nil, false
		}
	}
	return now, len(types) > 0
}

// find adds the records of a type. A CNAME at the name is no record of another type, and
// what it leads to is none of the name's: aliasing is not supported, and who wants the CNAME
// subscribes to that (RFC 8765 section 6.2.1). An ALIAS record gives its owner addresses of
// its own.
func (s *subscription) find(to map[string]struct{}, tree *zones.Tree, typ wire.Type) (known bool) {
	var a zones.Answer
	tree.Lookup(&s.name, typ, &a)
	if a.Kind == zones.Borrowed {
		var target wire.Name
		for n := 0; n < aliasesMax && (a.Kind == zones.Borrowed || a.Kind == zones.Alias && a.Type == wire.TypeCNAME) && target.Set(a.Target); n++ {
			tree.Lookup(&target, typ, &a)
		}
	}
	switch a.Kind {
	case zones.ServFail, zones.Refused:
		return false
	case zones.Found:
		if a.RRset != nil {
			var record []byte
			for rdata := range a.RRset.All {
				record = append(binary.BigEndian.AppendUint16(record[:0], uint16(typ)), rdata...)
				to[string(record)] = struct{}{}
			}
		}
	case zones.Alias, zones.Borrowed, zones.Referral, zones.NoData, zones.NXDomain:
	}
	return true
}

// cost is what records take that a client was told, in octets.
func cost(records map[string]struct{}) int64 {
	sum := int64(0)
	for record := range records {
		sum += recordCost + int64(len(record)) - typeSize
	}
	return sum
}

// cut is how many octets of records, whole ones, fit into a size; one at least.
func cut(records []byte, size int) int {
	at := 0
	for at < len(records) {
		end := at + nameEnd(records[at:])
		end += 10 + int(binary.BigEndian.Uint16(records[end+8:]))
		if end > size && at > 0 {
			break
		}
		at = end
	}
	return at
}
