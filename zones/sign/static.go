package sign

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// KeyTTL is the TTL of DNSKEY, CDS and CDNSKEY records in seconds: how long a key that
// is rolled in is waited for.
const KeyTTL = 3600

// Day is when the day of a time began, in UTC: static zones are signed as at that.
func Day(now time.Time) time.Time { return now.UTC().Truncate(Refresh * time.Second) }

// Zone signs the records of a zone: it returns them with the DNSKEY, CDS
// and CDNSKEY records of its keys, NSEC for every name that the zone has a word on, and
// signatures. Delegations and what lies below them are not signed (RFC 4035 section
// 2.2). Records that the file already has of these types are an error.
//
// The same records, keys and day give the same signatures. With raise the serial number
// is greater by the seconds from 1970 to when the day began or a key changed, so that
// secondaries take what is new.
func Zone(apex *wire.Name, records []zones.Record, keys []*Key, now time.Time, raise bool) ([]zones.Record, error) {
	if raise {
		records = slices.Clone(records)
		raiseSerial(records, changed(keys, now))
	}
	return zone(apex, records, keys, now, func(set *rrset, signers []*Key) ([][]byte, error) {
		return set.signAll(signers, Day(now))
	})
}

// zone is Zone with signatures from sign.
func zone(apex *wire.Name, records []zones.Record, keys []*Key, now time.Time, sign func(*rrset, []*Key) ([][]byte, error)) ([]zones.Record, error) {
	signers := which(keys, (*Key).Signs, now)
	if len(signers) == 0 {
		return nil, errNoneSigns
	}
	out := slices.Clone(records)
	s := signing{apex: apex}
	if err := s.gather(out); err != nil {
		return nil, err
	}
	add := func(owner []byte, t wire.Type, ttl uint32, rdata []byte) {
		out = append(out, zones.Record{Owner: owner, Type: t, TTL: ttl, RData: rdata})
		s.set(owner, t, ttl).rdatas = append(s.set(owner, t, ttl).rdatas, rdata)
	}
	for _, k := range which(keys, (*Key).Published, now) {
		add(apex.Wire(), wire.TypeDNSKEY, KeyTTL, k.DNSKEY())
	}
	for _, k := range which(keys, (*Key).Synced, now) {
		add(apex.Wire(), wire.TypeCDNSKEY, KeyTTL, k.DNSKEY())
		add(apex.Wire(), wire.TypeCDS, KeyTTL, k.DS())
	}
	owners := s.authoritative()
	for i, o := range owners {
		next := owners[(i+1)%len(owners)]
		add(o.name, wire.TypeNSEC, s.negative, append(bytes.Clone(next.name), o.types()...))
	}
	for _, o := range owners {
		for t, set := range o.sets {
			if t == wire.TypeALIAS || o.cut && t != wire.TypeDS && t != wire.TypeNSEC {
				continue
			}
			set.canonicalize()
			signatures, err := sign(set, signers)
			if err != nil {
				return nil, fmt.Errorf("signing %s: %w", t, err)
			}
			for _, rdata := range signatures {
				out = append(out, zones.Record{Owner: o.name, Type: wire.TypeRRSIG, TTL: set.ttl, RData: rdata})
			}
		}
	}
	return out, nil
}

// raiseSerial puts a serial number that is greater by the seconds to a time into a copy
// of the SOA record.
func raiseSerial(records []zones.Record, at time.Time) {
	for i := range records {
		numbers := len(records[i].RData) - 20 // five, this the first: RFC 1035 section 3.3.13
		if records[i].Type != wire.TypeSOA || numbers < 0 {
			continue
		}
		rdata := bytes.Clone(records[i].RData)
		binary.BigEndian.PutUint32(rdata[numbers:], binary.BigEndian.Uint32(rdata[numbers:])+uint32(at.Unix()))
		records[i].RData = rdata
	}
}

// signing is one run of Zone.
type signing struct {
	apex     *wire.Name
	owners   map[string]*owner
	negative uint32 // TTL of NSEC records
}

// owner is one name of the zone.
type owner struct {
	name []byte
	sets map[wire.Type]*rrset
	cut  bool // a delegation
}

// gather sorts the records by owner and type.
func (s *signing) gather(records []zones.Record) error {
	s.owners = map[string]*owner{}
	for i := range records {
		r := &records[i]
		switch r.Type {
		case wire.TypeRRSIG, wire.TypeNSEC, wire.TypeNSEC3, wire.TypeNSEC3PARAM, wire.TypeDNSKEY, wire.TypeCDS, wire.TypeCDNSKEY:
			return fmt.Errorf("the zone file has %s records already: take them out, or leave out dnssec for the zone", r.Type)
		case wire.TypeSOA:
			if at := len(r.RData) - 4; at >= 0 {
				s.negative = min(r.TTL, binary.BigEndian.Uint32(r.RData[at:])) // RFC 9077 section 3
			}
		}
		name := bytes.ToLower(r.Owner)
		set := s.set(name, r.Type, r.TTL)
		set.ttl = min(set.ttl, r.TTL) // as zones makes it: RFC 2181 section 5.2
		set.rdatas = append(set.rdatas, r.RData)
	}
	return nil
}

// set is the set of an owner and type, made if there is none.
func (s *signing) set(name []byte, t wire.Type, ttl uint32) *rrset {
	o := s.owners[string(name)]
	if o == nil {
		o = &owner{name: name, sets: map[wire.Type]*rrset{}}
		s.owners[string(name)] = o
	}
	if o.sets[t] == nil {
		o.sets[t] = &rrset{owner: o.name, typ: t, ttl: ttl}
	}
	return o.sets[t]
}

// authoritative are the owners that the zone has a word on, in canonical order: not
// what lies below a delegation or a DNAME.
func (s *signing) authoritative() []*owner {
	var out []*owner
	for _, o := range s.owners {
		o.cut = o.sets[wire.TypeNS] != nil && !bytes.Equal(o.name, s.apex.Wire())
		if !s.hidden(o) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *owner) int { return zones.CompareNames(a.name, b.name) })
	return out
}

// hidden reports whether an owner lies below a delegation or a DNAME.
func (s *signing) hidden(o *owner) bool {
	for name := o.name; len(name) > len(s.apex.Wire()); {
		name = name[1+int(name[0]):]
		above := s.owners[string(name)]
		if above == nil {
			continue
		}
		if above.sets[wire.TypeDNAME] != nil || above.sets[wire.TypeNS] != nil && !bytes.Equal(name, s.apex.Wire()) {
			return true
		}
	}
	return false
}

// types is the bit map of the owner's NSEC record: what the zone answers for it (RFC
// 4034 section 4.1.2, RFC 4035 section 2.3).
func (o *owner) types() []byte {
	types := []wire.Type{wire.TypeRRSIG, wire.TypeNSEC}
	for t := range o.sets {
		switch {
		case t == wire.TypeNSEC:
		case o.cut && t != wire.TypeNS && t != wire.TypeDS: // glue
		case t == wire.TypeALIAS:
			types = append(types, wire.TypeA, wire.TypeAAAA)
		default:
			types = append(types, t)
		}
	}
	slices.Sort(types)
	return bitmap(slices.CompactFunc(types, func(a, b wire.Type) bool { return cmp.Compare(a, b) == 0 }))
}
