package zones

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Export is everything that a zone has at one moment, for those who take it over:
// secondaries (RFC 5936).
type Export struct {
	Serial  uint32
	SOA     Record
	Records []Record // all others, in the order of CompareRecords, each once
}

// Exporter is a Source that can tell everything that its zone has. Export may take
// long and allocate.
type Exporter interface {
	// Export returns the records as of one moment, the SOA first.
	Export(ctx context.Context) ([]Record, error)
}

// ErrNoExport is returned for a zone whose Source is no Exporter.
var ErrNoExport = errors.New("the zone cannot tell everything that it has")

// Export returns everything that z has. In place of an ALIAS record stand the
// addresses that t has for its target. It keeps nothing of t.
func (t *Tree) Export(ctx context.Context, z *Zone) (*Export, error) {
	var records []Record
	if z.source != nil {
		e, ok := z.source.(Exporter)
		if !ok {
			return nil, ErrNoExport
		}
		var err error
		if records, err = e.Export(ctx); err != nil {
			return nil, err
		}
	} else {
		records = t.records(z)
	}
	if len(records) == 0 || records[0].Type != wire.TypeSOA {
		return nil, ErrNoExport
	}
	out := &Export{SOA: records[0], Serial: soaSerial(records[0].RData), Records: records[1:]}
	slices.SortFunc(out.Records, CompareRecords)
	out.Records = slices.CompactFunc(out.Records, func(a, b Record) bool { return CompareRecords(a, b) == 0 })
	return out, nil
}

// CompareRecords orders records by owner, type, RDATA and TTL.
func CompareRecords(a, b Record) int {
	return cmp.Or(bytes.Compare(a.Owner, b.Owner), cmp.Compare(a.Type, b.Type), bytes.Compare(a.RData, b.RData), cmp.Compare(a.TTL, b.TTL))
}

// soaSerial is the serial number in a SOA's RDATA.
func soaSerial(rdata []byte) uint32 {
	n := rdata[max(len(rdata)-soaNumbers, 0):]
	if len(n) < soaNumbers {
		return 0
	}
	return uint32(n[0])<<24 | uint32(n[1])<<16 | uint32(n[2])<<8 | uint32(n[3])
}

// records are those of a static zone, the SOA first.
func (t *Tree) records(z *Zone) []Record {
	out := make([]Record, 1, z.Len()+1)
	for i := range z.names.nodes {
		n := &z.names.nodes[i]
		owner := z.names.name(uint32(i))
		for k := int(n.first); k < int(n.first)+int(n.count); k++ {
			s := &z.sets[k]
			switch s.typ {
			case wire.TypeSOA:
				for _, rdata := range s.each() {
					out[0] = Record{Owner: owner, Type: s.typ, TTL: s.ttl, RData: rdata}
				}
			case wire.TypeALIAS:
				rdata, _ := next(z.data[s.data:])
				out = t.borrowed(out, owner, s.ttl, rdata)
			default:
				for _, rdata := range s.each() {
					out = append(out, Record{Owner: owner, Type: s.typ, TTL: s.ttl, RData: rdata})
				}
			}
		}
	}
	return out
}

// aliasesMax is how many names are followed from one to the next.
const aliasesMax = 10

// borrowed appends the addresses that target has.
func (t *Tree) borrowed(out []Record, owner []byte, ttl uint32, target []byte) []Record {
	for _, typ := range [...]wire.Type{wire.TypeA, wire.TypeAAAA} {
		var a Answer
		a.Target, a.Kind = target, Borrowed
		for hop := 0; hop < aliasesMax && (a.Kind == Borrowed || a.Kind == Alias && a.Type == wire.TypeCNAME); hop++ {
			var name wire.Name
			if !name.Set(a.Target) {
				break
			}
			t.Lookup(&name, typ, &a)
		}
		if a.Kind == Found && a.RRset != nil {
			for rdata := range a.RRset.All {
				out = append(out, Record{Owner: owner, Type: typ, TTL: ttl, RData: bytes.Clone(rdata)})
			}
		}
	}
	return out
}
