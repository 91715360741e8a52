package push

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// ttlDefault is the TTL of what is pushed where the set does not say, in seconds. A
// subscriber holds a record until it is taken away (RFC 8765 section 6.3.1).
const ttlDefault = 5

// changes appends the records that have come and gone since the client was told, and
// notes that it is; not ok: the Hub has no memory for that.
func (s *subscription) changes(dst []byte, tree *zones.Tree, hub *Hub) (_ []byte, ok bool) {
	now, known := s.records(tree)
	if !known {
		return dst, true // what was told stays
	}
	kept := subscriptionCost + cost(now)
	if !hub.reserve(kept - s.kept) {
		return dst, false
	}
	s.kept = kept
	for rdata := range s.told {
		if _, still := now[rdata]; !still {
			dst = s.record(dst, ttlRemove, rdata)
		}
	}
	for rdata := range now {
		if _, known := s.told[rdata]; !known {
			dst = s.record(dst, ttlDefault, rdata)
		}
	}
	s.told = now
	return dst, true
}

// aliasesMax is how many ALIAS and CNAME records are followed for borrowed addresses.
const aliasesMax = 10

// records are what there is of the name and type, by their RDATA; not known: what is there
// cannot be told. A CNAME at the name is no record of another type, and what it leads to is
// none of the name's: aliasing is not supported, and who wants the CNAME subscribes to that
// (RFC 8765 section 6.2.1). An ALIAS record gives its owner addresses of its own.
func (s *subscription) records(tree *zones.Tree) (_ map[string]struct{}, known bool) {
	var a zones.Answer
	tree.Lookup(&s.name, s.typ, &a)
	if a.Kind == zones.Borrowed {
		var target wire.Name
		for n := 0; n < aliasesMax && (a.Kind == zones.Borrowed || a.Kind == zones.Alias && a.Type == wire.TypeCNAME) && target.Set(a.Target); n++ {
			tree.Lookup(&target, s.typ, &a)
		}
	}
	now := map[string]struct{}{}
	switch a.Kind {
	case zones.ServFail, zones.Refused:
		return nil, false
	case zones.Found:
		if a.RRset != nil {
			for rdata := range a.RRset.All {
				now[string(rdata)] = struct{}{}
			}
		}
	case zones.Alias, zones.Borrowed, zones.Referral, zones.NoData, zones.NXDomain:
	}
	return now, true
}

// cost is what records take that a client was told, in octets.
func cost(records map[string]struct{}) int64 {
	sum := int64(0)
	for rdata := range records {
		sum += recordCost + int64(len(rdata))
	}
	return sum
}

// record appends a record, uncompressed.
func (s *subscription) record(dst []byte, ttl uint32, rdata string) []byte {
	dst = append(dst, s.name.Wire()...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(s.typ))
	dst = binary.BigEndian.AppendUint16(dst, uint16(wire.ClassIN))
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(rdata)))
	return append(dst, rdata...)
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
