package service

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// The RRsets of a zone of SkyDNS records.
type (
	skyRecords zones.Own // the records of one type of a *skySet; Number is that of its kind
	skyPointer zones.Own // CNAME or PTR of a *skyRecord
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

// skyKinds are all of them. Never written to.
var skyKinds = [...]skyKind{
	{wire.TypeA, isFour, sameAddress, addressOf},
	{wire.TypeAAAA, isSix, sameAddress, addressOf},
	{wire.TypeSRV, isTarget, sameSRV, srvOf},
	{wire.TypeMX, isMail, sameMX, mxOf},
	{wire.TypeTXT, isText, sameText, textOf},
}

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
func (o *skyRecords) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	s, kind := ownOf[skySet]((*zones.Own)(o)), &skyKinds[o.Number]
	z := s.tree.zone.Load()
	res := s.begin(z, r, kind)
	switch kind.typ {
	case wire.TypeSRV, wire.TypeMX:
		s.targets(z, b, owner, r, kind, &res)
	case wire.TypeTXT:
		s.each(z, r, &res, kind, func(rec *skyRecord) bool {
			return b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, res.TTL, rec.text)
		})
	default:
		to := place{b, r.Section, owner, res.TTL}
		s.each(z, r, &res, kind, func(rec *skyRecord) bool { return to.address(rec.Addr) })
	}
	return res
}

// All implements zones.RRset.
func (o *skyRecords) All(yield func([]byte) bool) {
	s, kind := ownOf[skySet]((*zones.Own)(o)), &skyKinds[o.Number]
	z := s.tree.zone.Load()
	for _, rec := range s.records {
		if kind.of(rec) && rec.in(z) && s.first(z, kind, rec) && !yield(kind.rdata(rec)) {
			return
		}
	}
}

// fixed is what an SRV record has before its target.
func (r *skyRecord) fixed() [6]byte {
	var out [6]byte
	binary.BigEndian.PutUint16(out[0:], r.Priority)
	binary.BigEndian.PutUint16(out[2:], r.Weight)
	binary.BigEndian.PutUint16(out[4:], uint16(r.Port))
	return out
}

// targets writes records that name hosts, and the addresses that their own records
// have.
func (s *skySet) targets(z *Sky, b *wire.Builder, owner wire.Ref, r *zones.Request, kind *skyKind, res *zones.Result) {
	refs := r.Refs[:0]
	s.each(z, r, res, kind, func(rec *skyRecord) bool {
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
		return
	}
	for n, at := range r.Picks {
		rec := s.records[at]
		if !rec.Addr.IsValid() {
			continue
		}
		if !(place{b, wire.Additional, refs[n], res.TTL}).address(rec.Addr) {
			return // it is no part of the answer: RFC 2181 section 9
		}
		res.Additional++
	}
}

// Append implements zones.RRset: the one name that a record leads to.
func (o *skyPointer) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	rec := ownOf[skyRecord]((*zones.Own)(o))
	z := rec.tree.zone.Load()
	res := zones.Result{TTL: rec.ttl(z, r.Now), EDE: zones.EDENone}
	if state := z.view.Source(z.source); state != nil {
		stateOf(state, &res, r.Now)
	}
	_, ok := b.RRName(r.Section, owner, o.Type, wire.ClassIN, res.TTL, nil, rec.host, true)
	return one(res, ok)
}

// All implements zones.RRset.
func (o *skyPointer) All(yield func([]byte) bool) { yield(ownOf[skyRecord]((*zones.Own)(o)).host) }
