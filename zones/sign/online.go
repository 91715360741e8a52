package sign

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// How many signatures are kept for one zone, at most: of what there is, and of denials,
// which a flood of random names asks for and nobody again. Powers of two.
const (
	keptSets    = 1 << 15
	keptDenials = 1 << 12
	ways        = 4 // places for each; a new one takes the oldest's
)

// Online signs what a zone answers when it is asked, and keeps the signatures. Finding
// one takes no lock and allocates nothing. It is safe for concurrent use.
type Online struct {
	apex          wire.Name
	now           time.Time // when it was made
	keys          []*Key
	signs         []*Key // of those
	seed          maphash.Seed
	sets, denials []atomic.Pointer[signatures]

	evicted *atomic.Uint64
}

var _ zones.Signer = (*Online)(nil)

// signatures are those of one set.
type signatures struct {
	key  uint64
	made int64  // nanoseconds since 1970
	blob []byte // each behind its length in two octets
}

// fresh reports whether signatures are served at now: not when they are older than Refresh,
// nor when a clock that was set back made them in what is the future now, which validators
// take for forged from slack on. What is left of that is for their own clocks.
func (s *signatures) fresh(now int64) bool {
	age := now - s.made
	return age <= Refresh*1e9 && age >= -slack/2*1e9
}

// NewOnline returns a signer of a zone by those of its keys that sign now. When that is
// to change (see Next) another must be made. Signatures that give way to others are counted
// in evicted.
func NewOnline(apex wire.Name, keys []*Key, now time.Time, evicted *atomic.Uint64) (*Online, error) {
	signs := which(keys, (*Key).Signs, now)
	if len(signs) == 0 {
		return nil, fmt.Errorf("zone %s: %w", apex.String(), errNoneSigns)
	}
	return &Online{
		apex: apex, now: now, keys: keys, signs: signs, seed: maphash.MakeSeed(), evicted: evicted,
		sets: make([]atomic.Pointer[signatures], keptSets), denials: make([]atomic.Pointer[signatures], keptDenials),
	}, nil
}

// Find implements zones.Signer.
func (o *Online) Find(owner, written []byte, now int64) (blob []byte, key uint64) {
	key = o.key(owner, written)
	places := o.places(key)
	for i := range places {
		if s := places[i].Load(); s != nil && s.key == key && s.fresh(now) {
			return s.blob, key
		}
	}
	return nil, key
}

// denial is the bit of a key that tells a denial's.
const denial = 1

// key is what the signatures of a set are kept by.
func (o *Online) key(owner, written []byte) uint64 {
	key := maphash.Bytes(o.seed, owner) * 0x9e3779b97f4a7c15
	if len(written) == 0 {
		return key // of nothing, which Sign says
	}
	switch typeOf(written) {
	case wire.TypeA, wire.TypeAAAA, wire.TypeSRV:
		// A set is the same in any order. These have no pointers in them, which might
		// lead elsewhere in another.
		for len(written) > 0 {
			end := recordEnd(written)
			key += maphash.Bytes(o.seed, written[:end])
			written = written[end:]
		}
		return key &^ denial
	case wire.TypeNSEC:
		return (key ^ maphash.Bytes(o.seed, written)) | denial
	default:
		return (key ^ maphash.Bytes(o.seed, written)) &^ denial
	}
}

// places are where the signatures of a key may be.
func (o *Online) places(key uint64) []atomic.Pointer[signatures] {
	all := o.sets
	if key&denial != 0 {
		all = o.denials
	}
	first := key >> 1 & uint64(len(all)/ways-1) * ways
	return all[first : first+ways]
}

// keep keeps signatures in the place of the oldest, or of some that are not served any more.
func (o *Online) keep(s *signatures) {
	places := o.places(s.key)
	oldest, at := int64(math.MaxInt64), 0
	for i := range places {
		made := int64(math.MinInt64)
		if there := places[i].Load(); there != nil && there.key != s.key && there.fresh(s.made) {
			made = there.made
		}
		if made < oldest {
			oldest, at = made, i
		}
	}
	if old := places[at].Swap(s); old != nil && old.key != s.key && old.fresh(s.made) {
		o.evicted.Add(1)
	}
}

// Sign implements zones.Signer.
func (o *Online) Sign(key uint64, owner, msg []byte, from int, now int64) ([]byte, error) {
	set, err := readSet(msg, from)
	if err != nil {
		return nil, err
	}
	set.owner = bytes.ToLower(owner)
	set.canonicalize()
	s := &signatures{key: key, made: now}
	for _, k := range o.signs {
		rdata, err := set.sign(k, uint32(now/1e9))
		if err != nil {
			return nil, fmt.Errorf("signing %s: %w", set.typ, err)
		}
		s.blob = append(binary.BigEndian.AppendUint16(s.blob, uint16(len(rdata))), rdata...)
	}
	o.keep(s)
	return s.blob, nil
}

var errSet = errors.New("what was written is no set of records")

// readSet reads the records that stand in a message from an octet on: those of one set.
func readSet(msg []byte, from int) (*rrset, error) {
	set := &rrset{}
	for at := from; at < len(msg); {
		_, end, ok := expand(nil, msg, at)
		if !ok || end+10 > len(msg) {
			return nil, errSet
		}
		typ := wire.Type(binary.BigEndian.Uint16(msg[end:]))
		set.ttl = binary.BigEndian.Uint32(msg[end+4:])
		size := int(binary.BigEndian.Uint16(msg[end+8:]))
		start := end + 10
		if at = start + size; at > len(msg) || set.typ != 0 && set.typ != typ {
			return nil, errSet
		}
		set.typ = typ
		rdata, ok := whole(typ, msg, start, at)
		if !ok {
			return nil, errSet
		}
		set.rdatas = append(set.rdatas, rdata)
	}
	if set.typ == 0 {
		return nil, errSet
	}
	return set, nil
}

// nameEnd is where the name ends that a record begins with: behind the root or a
// pointer. The record must be whole.
func nameEnd(record []byte) int {
	at := 0
	for record[at] != 0 {
		if record[at] >= 0xc0 {
			return at + 2
		}
		at += 1 + int(record[at])
	}
	return at + 1
}

// typeOf is the type of the first record.
func typeOf(records []byte) wire.Type {
	return wire.Type(binary.BigEndian.Uint16(records[nameEnd(records):]))
}

// recordEnd is where the first record ends.
func recordEnd(records []byte) int {
	at := nameEnd(records) + 8 // type, class and TTL
	return at + 2 + int(binary.BigEndian.Uint16(records[at:]))
}

// whole is RDATA with the names expanded that may be compressed (RFC 3597 section 4).
func whole(t wire.Type, msg []byte, start, end int) ([]byte, bool) {
	var n, prefix int
	switch t {
	case wire.TypeNS, wire.TypeCNAME, wire.TypePTR:
		n = 1
	case wire.TypeSOA:
		n = 2
	case wire.TypeMX:
		n, prefix = 1, 2
	default:
		return bytes.Clone(msg[start:end]), true
	}
	out := bytes.Clone(msg[start : start+prefix])
	at := start + prefix
	for range n {
		var ok bool
		if out, at, ok = expand(out, msg, at); !ok {
			return nil, false
		}
	}
	return append(out, msg[at:end]...), true
}

// expand appends the name at msg[at:] without compression, and returns where it ends
// there.
func expand(dst, msg []byte, at int) (_ []byte, end int, ok bool) {
	for hops := 0; at < len(msg); {
		l := int(msg[at])
		switch {
		case l == 0:
			if end == 0 {
				end = at + 1
			}
			return append(dst, 0), end, true
		case l >= 0xc0:
			if at+2 > len(msg) || hops == 64 {
				return nil, 0, false
			}
			if end == 0 {
				end = at + 2
			}
			hops++
			at = int(binary.BigEndian.Uint16(msg[at:])) & 0x3fff
		default:
			if at+1+l > len(msg) {
				return nil, 0, false
			}
			dst = append(dst, msg[at:at+1+l]...)
			at += 1 + l
		}
	}
	return nil, 0, false
}

// Wrap returns s with the records of the keys at its apex. With copied it can be
// transferred, signed as Zone does it, and its serial number is not below the time at
// which the signatures last changed: those of a day are the same, and secondaries must
// take the next day's though nothing else has changed.
func (o *Online) Wrap(s zones.Source, copied bool) zones.Source {
	w := &source{Source: s, online: o, copied: copied, soa: soaSet{RRset: s.SOA()}}
	if copied {
		w.soa.floor = uint32(changed(o.keys, o.now).Unix())
	}
	for _, k := range which(o.keys, (*Key).Published, o.now) {
		w.keys.rdatas = append(w.keys.rdatas, k.DNSKEY())
	}
	for _, k := range which(o.keys, (*Key).Synced, o.now) {
		w.cdnskeys.rdatas = append(w.cdnskeys.rdatas, k.DNSKEY())
		w.cds.rdatas = append(w.cds.rdatas, k.DS())
	}
	w.keys.typ, w.cdnskeys.typ, w.cds.typ = wire.TypeDNSKEY, wire.TypeCDNSKEY, wire.TypeCDS
	return w
}

// source is a Source with keys at its apex.
type source struct {
	zones.Source

	online              *Online
	copied              bool
	soa                 soaSet
	keys, cdnskeys, cds keySet
	memory              memory // of the last Export
}

// SOA implements zones.Source.
func (s *source) SOA() zones.RRset { return &s.soa }

// Lookup implements zones.Source.
func (s *source) Lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	s.Source.Lookup(name, below, typ, a)
	if below > 0 {
		return
	}
	if typ == wire.TypeSOA && a.Kind == zones.Found {
		a.RRset = &s.soa
	}
	for _, set := range [...]*keySet{&s.keys, &s.cdnskeys, &s.cds} {
		if set.typ == typ && len(set.rdatas) > 0 {
			a.Kind, a.RRset = zones.Found, set
		}
	}
}

// Export implements zones.Exporter. A secondary cannot sign what it is asked: it gets the
// zone signed, with NSEC where this server denies compactly (RFC 9824).
func (s *source) Export(ctx context.Context) ([]zones.Record, error) {
	e, ok := s.Source.(zones.Exporter)
	if !ok || !s.copied {
		return nil, zones.ErrNoExport
	}
	records, err := e.Export(ctx)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	records[0].RData = s.soa.raise(bytes.Clone(records[0].RData))
	return s.memory.zone(ctx, &s.online.apex, records, s.online.keys, s.online.now)
}

// keySet is records that keys make.
type keySet struct {
	typ    wire.Type
	rdatas [][]byte
}

// Append implements zones.RRset.
func (s *keySet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: KeyTTL, EDE: zones.EDENone}
	for _, rdata := range s.rdatas {
		if !b.RR(r.Section, owner, s.typ, wire.ClassIN, KeyTTL, rdata) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// All implements zones.RRset.
func (s *keySet) All(yield func([]byte) bool) {
	for _, rdata := range s.rdatas {
		if !yield(rdata) {
			return
		}
	}
}
