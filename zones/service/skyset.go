package service

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// The RRsets of a zone of SkyDNS records: of a set, and of one record.
type (
	sky4     skySet
	sky6     skySet
	skySRV   skySet
	skyMX    skySet
	skyTXT   skySet
	skyCNAME skyRecord
	skyPTR   skyRecord
)

// in reports whether the record may be answered: it is no instance, or one that is in.
func (r *skyRecord) in(z *Sky) bool {
	s, i := r.instance(z)
	if s == nil {
		return r.lostAt == 0 // it is as new as that
	}
	return s.In(i)
}

// instance is the instance that the record is, as the view has it; nil: the view has
// none, or the record is none.
func (r *skyRecord) instance(z *Sky) (*pool.Service, uint32) {
	if len(r.service) == 0 {
		return nil, 0
	}
	s := z.view.Find(z.source, r.service)
	if s == nil || s.Ancestor() {
		return nil, 0
	}
	i := s.Instance(r.id)
	if i < 0 {
		return nil, 0
	}
	return s, uint32(i)
}

// ttl is the TTL of the record: of one that is an instance that of the instance, lowered
// to the first moment at which what is said of it may change; of another what it asks for.
func (r *skyRecord) ttl(z *Sky, now int64) uint32 {
	if s, i := r.instance(z); s != nil {
		return pool.LeftTTL(s.InstanceTTL(i), s.Deadline(i), now)
	}
	if r.TTL == 0 {
		return z.apex.ttl
	}
	return min(r.TTL, uint32(registry.TTLMax/time.Second))
}

// begin is the result of the records of a kind that may be answered, with their least TTL.
func (s *skySet) begin(z *Sky, r *zones.Request, kind *skyKind) zones.Result {
	res := zones.Result{TTL: ^uint32(0), EDE: zones.EDENone}
	for _, rec := range s.records {
		if kind.of(rec) && rec.in(z) {
			res.TTL = min(res.TTL, rec.ttl(z, r.Now)) // RFC 2181 section 5.2
		}
	}
	if state := z.view.Source(z.source); state != nil {
		stateOf(state, &res, r.Now)
	}
	return res
}

// each calls write with the records of a kind that may be answered, beginning with any,
// until it returns false: then not all fit. Those written are r.Picks.
func (s *skySet) each(z *Sky, r *zones.Request, res *zones.Result, kind *skyKind, write func(*skyRecord) bool) {
	r.Picks = r.Picks[:0]
	n := len(s.records)
	for i := range n {
		at := (i + int(r.Rand%uint64(n))) % n
		rec := s.records[at]
		if !kind.of(rec) || !rec.in(z) || !s.first(z, kind, rec) {
			continue
		}
		if !write(rec) {
			res.Truncated = true
			return
		}
		r.Picks = append(r.Picks, uint32(at))
		res.Answers++
	}
}

// all yields the RDATA of the records of a kind that may be answered.
func (s *skySet) all(kind *skyKind, yield func([]byte) bool) {
	z := s.tree.zone.Load()
	for _, rec := range s.records {
		if kind.of(rec) && rec.in(z) && s.first(z, kind, rec) && !yield(kind.rdata(rec)) {
			return
		}
	}
}

// first reports whether no record before this one in the set, that may be answered, says
// the same: a set has no record twice (RFC 2181 section 5).
func (s *skySet) first(z *Sky, kind *skyKind, rec *skyRecord) bool {
	for _, other := range s.records {
		if other == rec {
			return true
		}
		if kind.same(other, rec) && other.in(z) {
			return false
		}
	}
	return true
}

// skyKind is what the records of one type have in common.
type skyKind struct {
	typ   wire.Type
	of    func(r *skyRecord) bool    // r has one
	same  func(a, b *skyRecord) bool // those of a and b say the same
	rdata func(r *skyRecord) []byte
}

// The kinds. Never written to.
var (
	skyA    = skyKind{wire.TypeA, isFour, sameAddress, addressOf}
	skyAAAA = skyKind{wire.TypeAAAA, isSix, sameAddress, addressOf}
	skySRVs = skyKind{wire.TypeSRV, isTarget, sameSRV, srvOf}
	skyMXs  = skyKind{wire.TypeMX, isMail, sameMX, mxOf}
	skyTXTs = skyKind{wire.TypeTXT, isText, sameText, textOf}
)

func isFour(r *skyRecord) bool   { return r.Addr.Is4() }
func isSix(r *skyRecord) bool    { return r.Addr.Is6() }
func isTarget(r *skyRecord) bool { return r.target != nil && r.Port >= 0 }
func isMail(r *skyRecord) bool   { return r.target != nil && r.Mail }
func isText(r *skyRecord) bool   { return len(r.text) > 0 }

func sameAddress(a, b *skyRecord) bool { return a.Addr == b.Addr }

func sameSRV(a, b *skyRecord) bool {
	return isTarget(a) && a.Port == b.Port && a.Priority == b.Priority && a.Weight == b.Weight && bytes.Equal(a.target, b.target)
}

func sameMX(a, b *skyRecord) bool {
	return isMail(a) && a.Priority == b.Priority && bytes.Equal(a.target, b.target)
}

func sameText(a, b *skyRecord) bool { return bytes.Equal(a.text, b.text) }

func addressOf(r *skyRecord) []byte { return r.Addr.AsSlice() }

func srvOf(r *skyRecord) []byte {
	fixed := r.fixed()
	return append(fixed[:], r.target...)
}

func mxOf(r *skyRecord) []byte {
	return append(binary.BigEndian.AppendUint16(nil, r.Priority), r.target...)
}

func textOf(r *skyRecord) []byte { return r.text }

// Append implements zones.RRset.
func (s *sky4) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*skySet)(s).addresses(b, owner, r, &skyA)
}

// All implements zones.RRset.
func (s *sky4) All(yield func([]byte) bool) { (*skySet)(s).all(&skyA, yield) }

// Append implements zones.RRset.
func (s *sky6) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*skySet)(s).addresses(b, owner, r, &skyAAAA)
}

// All implements zones.RRset.
func (s *sky6) All(yield func([]byte) bool) { (*skySet)(s).all(&skyAAAA, yield) }

// addresses writes each address of a family once.
func (s *skySet) addresses(b *wire.Builder, owner wire.Ref, r *zones.Request, kind *skyKind) zones.Result {
	z := s.tree.zone.Load()
	res := s.begin(z, r, kind)
	s.each(z, r, &res, kind, func(rec *skyRecord) bool {
		return skyAddress(b, r.Section, owner, res.TTL, rec.Addr)
	})
	return res
}

func skyAddress(b *wire.Builder, to wire.Section, owner wire.Ref, ttl uint32, a netip.Addr) bool {
	if a.Is4() {
		return b.A(to, owner, ttl, a.As4())
	}
	return b.AAAA(to, owner, ttl, a.As16())
}

// fixed is what an SRV record has before its target.
func (r *skyRecord) fixed() [6]byte {
	var out [6]byte
	binary.BigEndian.PutUint16(out[0:], r.Priority)
	binary.BigEndian.PutUint16(out[2:], r.Weight)
	binary.BigEndian.PutUint16(out[4:], uint16(r.Port))
	return out
}

// Append implements zones.RRset.
func (s *skySRV) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*skySet)(s).targets(b, owner, r, &skySRVs)
}

// All implements zones.RRset.
func (s *skySRV) All(yield func([]byte) bool) { (*skySet)(s).all(&skySRVs, yield) }

// Append implements zones.RRset.
func (s *skyMX) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	return (*skySet)(s).targets(b, owner, r, &skyMXs)
}

// All implements zones.RRset.
func (s *skyMX) All(yield func([]byte) bool) { (*skySet)(s).all(&skyMXs, yield) }

// targets writes records that name hosts, and the addresses that their own records
// have.
func (s *skySet) targets(b *wire.Builder, owner wire.Ref, r *zones.Request, kind *skyKind) zones.Result {
	z := s.tree.zone.Load()
	res := s.begin(z, r, kind)
	refs := r.Refs[:0]
	s.each(z, r, &res, kind, func(rec *skyRecord) bool {
		fixed := rec.fixed()
		prefix, compress := fixed[:], false // RFC 2782: the target is not compressed
		if kind.typ == wire.TypeMX {
			prefix, compress = fixed[:2], true
		}
		ref, ok := b.RRName(r.Section, owner, kind.typ, wire.ClassIN, res.TTL, prefix, rec.target, compress)
		refs = append(refs, ref)
		res.Elsewhere = res.Elsewhere || rec.host != nil && kind.typ == wire.TypeSRV
		return ok
	})
	r.Refs = refs
	if r.Bare {
		return res
	}
	for n, at := range r.Picks {
		rec := s.records[at]
		if !rec.Addr.IsValid() {
			continue
		}
		if !skyAddress(b, wire.Additional, refs[n], res.TTL, rec.Addr) {
			break // it is no part of the answer: RFC 2181 section 9
		}
		res.Additional++
	}
	return res
}

// Append implements zones.RRset.
func (s *skyTXT) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	z := s.tree.zone.Load()
	res := (*skySet)(s).begin(z, r, &skyTXTs)
	(*skySet)(s).each(z, r, &res, &skyTXTs, func(rec *skyRecord) bool {
		return b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, res.TTL, rec.text)
	})
	return res
}

// All implements zones.RRset.
func (s *skyTXT) All(yield func([]byte) bool) { (*skySet)(s).all(&skyTXTs, yield) }

// Append implements zones.RRset.
func (r *skyCNAME) Append(b *wire.Builder, owner wire.Ref, q *zones.Request) zones.Result {
	return (*skyRecord)(r).pointer(b, owner, q, wire.TypeCNAME)
}

// All implements zones.RRset.
func (r *skyCNAME) All(yield func([]byte) bool) { yield(r.host) }

// Append implements zones.RRset.
func (r *skyPTR) Append(b *wire.Builder, owner wire.Ref, q *zones.Request) zones.Result {
	return (*skyRecord)(r).pointer(b, owner, q, wire.TypePTR)
}

// All implements zones.RRset.
func (r *skyPTR) All(yield func([]byte) bool) { yield(r.host) }

// pointer writes the one name that a record leads to.
func (r *skyRecord) pointer(b *wire.Builder, owner wire.Ref, q *zones.Request, typ wire.Type) zones.Result {
	z := r.tree.zone.Load()
	res := zones.Result{TTL: r.ttl(z, q.Now), EDE: zones.EDENone}
	if state := z.view.Source(z.source); state != nil {
		stateOf(state, &res, q.Now)
	}
	_, ok := b.RRName(q.Section, owner, typ, wire.ClassIN, res.TTL, nil, r.host, true)
	return one(res, ok)
}
