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
// notes that it is.
func (s *subscription) changes(dst []byte, tree *zones.Tree) []byte {
	var a zones.Answer
	tree.Lookup(&s.name, s.typ, &a)
	now := map[string]struct{}{}
	switch a.Kind {
	case zones.ServFail, zones.Refused:
		return dst // what is there is not known: what was told stays
	case zones.Found:
		if a.RRset != nil {
			for rdata := range a.RRset.All {
				now[string(rdata)] = struct{}{}
			}
		}
	case zones.Alias, zones.Borrowed, zones.Referral, zones.NoData, zones.NXDomain:
	}
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
	return dst
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
