package authority

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// subsets is how many different choices of one set a question that wants signatures
// gets: evenly spaced ones, so that every instance's share is right to within one part
// in subsets of a turn, and drawn anew each turn, so that it is right over time.
const (
	subsetBits = 4
	turn       = 60e9 // nanoseconds
)

// signerOf is what signs a set; nil: nobody does, or it has signatures of its own. The
// choice of the set is then one of few, for its signature to be there already.
func (s *scratch) signerOf(set zones.RRset) zones.Signer {
	if !s.q.DO || s.a.Zone == nil || s.a.Zone.Signer() == nil {
		return nil
	}
	if _, static := set.(*zones.Set); static {
		return nil
	}
	s.req.Bare = true
	base := uint64(s.from.Now/turn) * 0x9e3779b97f4a7c15
	s.req.Rand = (base ^ base>>29) + s.from.Rand>>(64-subsetBits)<<(64-subsetBits)
	return s.a.Zone.Signer()
}

// compact reports whether what is not there is denied by compact denial (RFC 9824): in
// dynamic zones, and of addresses that a name would have from another.
func (s *scratch) compact() bool {
	return s.q.DO && s.a.Zone != nil && s.a.Zone.Signer() != nil && (s.a.Zone.Dynamic() || s.lent)
}

// sign writes the signatures of what was written since start: one set of the owner
// name. Where they are not there yet and may not be waited for, the answer is deferred.
func (s *scratch) sign(signer zones.Signer, name []byte, owner wire.Ref, to wire.Section, ttl uint32, start wire.Mark) {
	s.putSignatures(s.signatures(signer, name, start), owner, to, ttl)
}

// signatures are those that sign writes; nil: the answer is deferred, or does not fit.
func (s *scratch) signatures(signer zones.Signer, name []byte, start wire.Mark) []byte {
	if s.unsigned {
		return nil
	}
	found, key := signer.Find(name, s.b.Since(start), s.from.Now)
	if found != nil {
		s.shard.signed.Add(1)
		return found
	}
	if !s.inline {
		s.unsigned = true
		s.shard.unsigned.Add(1)
		return nil
	}
	found, err := signer.Sign(key, name, s.b.Message(), start.Offset(), s.from.Now)
	if err != nil {
		s.b.SetTC() // unreachable: what we write can be read
	}
	return found
}

// putSignatures writes signatures, each behind its length in two octets.
func (s *scratch) putSignatures(found []byte, owner wire.Ref, to wire.Section, ttl uint32) {
	for len(found) > 0 {
		size := int(binary.BigEndian.Uint16(found))
		if !s.b.RR(to, owner, wire.TypeRRSIG, wire.ClassIN, ttl, found[2:2+size]) {
			s.b.SetTC()
			return
		}
		found = found[2+size:]
	}
}

// proves reports whether the question is for what every name of a zone has that denies
// compactly. Its NSEC records say so, and validators would take them for no denial.
func (s *scratch) proves() bool {
	return (s.q.Type == wire.TypeNSEC || s.q.Type == wire.TypeRRSIG) && s.compact()
}

// proof answers that, with the NSEC record that denies other types of the name, and of
// signatures with those of that record alone (as RFC 8482 section 4.1 has it of ANY): the
// others are made when their records are asked for.
func (s *scratch) proof(name *wire.Name, owner wire.Ref) Outcome {
	start := s.b.Mark()
	s.req.Section = wire.Authority
	ttl := s.a.Zone.SOA().Append(s.b, wire.RefNone, &s.req).TTL // that of negative answers
	s.b.Rewind(start)
	found, _, ok := s.writeNSEC(name, ttl, wire.Answer)
	if !ok {
		return Answered
	}
	if s.q.Type == wire.TypeRRSIG {
		s.b.Rewind(start)
	}
	s.putSignatures(found, owner, wire.Answer, ttl)
	return Answered
}

// denyCompactly writes the NSEC record that says what types name has (RFC 9824 sections
// 3.1 and 3.2): none of those that it was asked for, and no name is next but the one
// right behind it.
func (s *scratch) denyCompactly(name *wire.Name, ttl uint32) {
	if found, ref, ok := s.writeNSEC(name, ttl, wire.Authority); ok {
		s.putSignatures(found, ref, wire.Authority, ttl)
	}
}

// writeNSEC writes that record, and returns its signatures and where its owner stands.
// False: it does not fit.
func (s *scratch) writeNSEC(name *wire.Name, ttl uint32, to wire.Section) (found []byte, ref wire.Ref, ok bool) {
	var rdata [2 + 255 + 256]byte
	size := copy(rdata[:], "\x01\x00")
	size += copy(rdata[size:], name.Wire())
	if size > 255 {
		s.b.SetTC() // no name comes behind it; RFC 9824 has no word on that
		return nil, wire.RefNone, false
	}
	if s.a.Zone.Dynamic() {
		size += s.types(name, rdata[size:])
	} else {
		size += lack(s.q.Type, rdata[size:], s.a.Zone.Types(name))
	}
	start := s.b.Mark()
	ref, ok = s.b.RROwner(to, name.Wire(), wire.TypeNSEC, wire.ClassIN, ttl, rdata[:size])
	if !ok {
		s.b.SetTC()
		return nil, ref, false
	}
	return s.signatures(s.a.Zone.Signer(), name.Wire(), start), ref, true
}

// types writes the bit map (RFC 4034 section 4.1.2) of what a name of a dynamic zone has
// beside the type asked for, and returns its size.
func (s *scratch) types(name *wire.Name, to []byte) int {
	bits := to[2 : 2+32]
	set := func(t wire.Type) { bits[t/8] |= 0x80 >> (t % 8) }
	set(wire.TypeRRSIG)
	set(wire.TypeNSEC)
	if s.a.Kind == zones.NXDomain {
		set(wire.TypeNXNAME)
	} else {
		for _, t := range zones.SourceTypes() {
			s.tree.Lookup(name, t, &s.probe)
			if k := s.probe.Kind; t != s.q.Type && (k == zones.Found || k == zones.Alias) { // of SkyDNS: a CNAME record for some types
				set(t)
			}
		}
		s.probe = zones.Answer{}
	}
	used := len(bits)
	for bits[used-1] == 0 {
		used--
	}
	to[0], to[1] = 0, byte(used)
	return 2 + used
}

// lack copies a bit map without a type, which is below 256, and returns its size.
func lack(t wire.Type, to, from []byte) int {
	size := copy(to, from)
	if size > 2 && to[0] == 0 && int(t/8) < int(to[1]) {
		to[2+t/8] &^= 0x80 >> (t % 8)
	}
	return size
}

// serveSigning answers a question of which something had to be signed.
func (h *Handler) serveSigning(ctx context.Context, q *wire.Query, from dnsserver.Client, w dnsserver.Writer) error {
	select {
	case h.signers <- struct{}{}:
		defer func() {
			// Those who wait for the slot would go on one after the other, before whoever
			// has questions to receive.
			runtime.Gosched()
			<-h.signers
		}()
	case <-ctx.Done():
		return ctx.Err()
	}
	var b wire.Builder
	limit := min(w.Limit(), wire.MaxMessage)
	from.Start(&b, make([]byte, max(limit, wire.MinPayload)), q, limit)
	if h.respond(&b, q, &from, true) != dnsserver.Send {
		return nil // over the rate limit
	}
	if err := w.WriteMsg(b.Finish()); err != nil {
		return fmt.Errorf("sending a signed answer: %w", err)
	}
	return nil
}

// Signed is how many sets were answered with signatures that were kept, and how many
// answers had to wait for one.
func (h *Handler) Signed() (kept, waited uint64) {
	for i := range h.shards {
		kept += h.shards[i].signed.Load()
		waited += h.shards[i].unsigned.Load()
	}
	return kept, waited
}
