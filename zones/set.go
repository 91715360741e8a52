package zones

import (
	"iter"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Set is the records of one type at one name of a static zone. Its records have
// one TTL and the order of their RDATA. It is immutable and safe for concurrent
// use.
type Set struct {
	zone   *Zone
	ttl    uint32 // seconds
	data   uint32 // where its records begin in zone.data
	extra  uint32 // where what belongs to it begins in zone.extras
	sig    uint32 // its signatures are zone.sets[sig-1]; 0: it has none
	typ    wire.Type
	covers wire.Type // of signatures: the type that they are of
	count  uint16    // records
	extras uint16
}

var _ RRset = (*Set)(nil)

// hostsMax is how many of a set's hosts can have their addresses beside it: more
// than fit a datagram, so that the rest would be of no use.
const hostsMax = 64

// Append writes all records of the set, or none when not all fit: a part of a
// set is no set (RFC 2181 section 9). The addresses of the hosts that NS, MX
// and SRV records name follow as far as they fit, if this zone has them; what a
// referral cannot do without must fit (RFC 9471 section 3.1).
func (s *Set) Append(b *wire.Builder, owner wire.Ref, r *Request) Result {
	res := Result{EDE: EDENone, TTL: s.ttl}
	if s.typ == wire.TypeSOA && r.Section == wire.Authority {
		res.TTL = s.zone.negTTL // RFC 2308 section 3
	}
	var refs [hostsMax]wire.Ref
	if !s.write(b, owner, r, res.TTL, &refs) {
		return Result{EDE: EDENone, Truncated: true}
	}
	res.Answers = int(s.count)
	if !r.Bare {
		s.appendExtras(b, &refs, r.DO, &res)
	}
	return res
}

// write writes the records, and their signatures where they are wanted; all or none.
// refs is where the first hosts that they name are written.
func (s *Set) write(b *wire.Builder, owner wire.Ref, r *Request, ttl uint32, refs *[hostsMax]wire.Ref) bool {
	start := b.Mark()
	rest := s.zone.data[s.data:]
	for i := range int(s.count) {
		var rdata []byte
		rdata, rest = next(rest)
		ref, ok := b.RRCompress(r.Section, owner, s.typ, wire.ClassIN, ttl, rdata)
		if !ok {
			b.Rewind(start)
			return false
		}
		if i < hostsMax {
			refs[i] = ref
		}
	}
	if r.DO && s.sig > 0 && !s.zone.sets[s.sig-1].appendTo(b, r.Section, owner, ttl) { // RFC 4035 section 3.1.1
		b.Rewind(start)
		return false
	}
	return true
}

// appendExtras writes the addresses of the set's hosts into the additional
// section, each host's set whole.
func (s *Set) appendExtras(b *wire.Builder, refs *[hostsMax]wire.Ref, signed bool, res *Result) {
	const smallest = 16 // an A record
	hosts, last := 0, -1
	for _, x := range s.zone.extras[s.extra : s.extra+uint32(s.extras)] {
		start := b.Mark()
		host := &s.zone.sets[x.set]
		if int(x.rdata) != last {
			hosts, last = hosts+1, int(x.rdata)
		}
		if host.appendTo(b, wire.Additional, refs[x.rdata], host.ttl) {
			res.Additional += int(host.count)
			if sig := b.Mark(); signed && host.sig > 0 && !s.zone.sets[host.sig-1].appendTo(b, wire.Additional, refs[x.rdata], host.ttl) {
				b.Rewind(sig) // RFC 4035 section 3.1.1: no reason to truncate
			}
			continue
		}
		b.Rewind(start)
		res.Truncated = res.Truncated || x.glue
		if b.Room() < smallest {
			return
		}
	}
	res.Elsewhere = s.typ == wire.TypeSRV && hosts < int(s.count)
}

// appendTo writes the records into a section and nothing more; it reports false
// when not all fit.
func (s *Set) appendTo(b *wire.Builder, to wire.Section, owner wire.Ref, ttl uint32) bool {
	rest := s.zone.data[s.data:]
	for range int(s.count) {
		var rdata []byte
		rdata, rest = next(rest)
		if !b.RR(to, owner, s.typ, wire.ClassIN, ttl, rdata) {
			return false
		}
	}
	return true
}

// All yields the RDATA of each record, uncompressed.
func (s *Set) All(yield func(rdata []byte) bool) {
	for _, rdata := range s.each() {
		if !yield(rdata) {
			return
		}
	}
}

// each yields the records and their numbers.
func (s *Set) each() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		rest := s.zone.data[s.data:]
		for i := range int(s.count) {
			var rdata []byte
			if rdata, rest = next(rest); !yield(i, rdata) {
				return
			}
		}
	}
}

// Type is the records' type.
func (s *Set) Type() wire.Type { return s.typ }

// TTL is the records' TTL in seconds.
func (s *Set) TTL() uint32 { return s.ttl }
