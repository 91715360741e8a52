package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// The numbers of the SOA record that secondaries go by. A zone that changes by
// the second is refreshed often and kept for a day.
const (
	soaRefresh = 60
	soaRetry   = 10
	soaExpire  = 86_400
)

// apex is the records that a zone of ours has whatever is registered: SOA and
// NS, and the name server's addresses.
type apex struct {
	name     wire.Name
	server   []byte // ns1.Z in wire form
	mailbox  []byte // hostmaster.Z
	own      bool   // server lies right below the apex and is answered here
	ttl      uint32
	negative uint32
	four     [][4]byte
	six      [][16]byte
	serial   func() uint32
}

type (
	soaSet  apex
	nsSet   apex
	aSet    apex // of ns1.Z
	aaaaSet apex
)

func (x *apex) init(name *wire.Name, ttl, negative time.Duration, addresses []netip.Addr) error {
	if ttl < 0 || negative < 0 {
		return fmt.Errorf("zone %q: ttl %s, negative ttl %s: must not be negative", name.String(), ttl, negative)
	}
	if name.Len()+len("hostmaster")+1 > 255 {
		return errors.New("zone: the name is too long to have names below it")
	}
	x.name = *name
	x.server = prepend(nsLabel, name.Wire())
	x.mailbox = prepend("hostmaster", name.Wire())
	x.own = true
	x.ttl, x.negative = seconds(ttl, ttlDefault), seconds(negative, negativeDefault)
	for _, a := range addresses {
		switch a = a.Unmap(); {
		case a.Is4():
			x.four = append(x.four, a.As4())
		case a.Is6():
			x.six = append(x.six, a.As16())
		}
	}
	return nil
}

func prepend(label string, name []byte) []byte {
	return slices.Concat([]byte{uint8(len(label))}, []byte(label), name)
}

// seconds is d within the bounds of a TTL, def when it is 0.
func seconds(d, def time.Duration) uint32 {
	if d == 0 {
		d = def
	}
	return uint32(min(max(d, registry.TTLMin), registry.TTLMax) / time.Second)
}

// lookup answers the apex and ns1; false: the name is neither.
func (x *apex) lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) bool {
	switch {
	case below == 0:
		a.Kind = zones.NoData
		switch typ {
		case wire.TypeSOA:
			found(a, (*soaSet)(x))
		case wire.TypeNS:
			found(a, (*nsSet)(x))
		case wire.TypeANY:
			a.Kind = zones.Found
		}
		return true
	case below == 1 && x.own && string(name.Label(0)) == nsLabel:
		a.Kind = zones.NoData
		switch {
		case typ == wire.TypeA && len(x.four) > 0:
			found(a, (*aSet)(x))
		case typ == wire.TypeAAAA && len(x.six) > 0:
			found(a, (*aaaaSet)(x))
		case typ == wire.TypeANY && len(x.four)+len(x.six) > 0:
			a.Kind = zones.Found
		}
		return true
	}
	return false
}

// rdata writes the SOA's RDATA (RFC 1035 section 3.3.13) into buf.
func (s *soaSet) rdata(buf []byte) []byte {
	buf = append(append(buf, s.server...), s.mailbox...)
	for _, n := range [...]uint32{s.serial(), soaRefresh, soaRetry, soaExpire, s.negative} {
		buf = binary.BigEndian.AppendUint32(buf, n)
	}
	return buf
}

// Append implements zones.RRset.
func (s *soaSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	if r.Section == wire.Authority {
		res.TTL = s.negative // RFC 2308 section 3
	}
	var buf [2*255 + 20]byte
	_, ok := b.RRCompress(r.Section, owner, wire.TypeSOA, wire.ClassIN, res.TTL, s.rdata(buf[:0]))
	return one(res, ok)
}

// one completes the result of a set of one record.
func one(res zones.Result, ok bool) zones.Result {
	if ok {
		res.Answers = 1
	} else {
		res.Truncated = true
	}
	return res
}

// All implements zones.RRset.
func (s *soaSet) All(yield func([]byte) bool) { yield(s.rdata(nil)) }

// Append implements zones.RRset.
func (s *nsSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	ref, ok := b.RRName(r.Section, owner, wire.TypeNS, wire.ClassIN, s.ttl, nil, s.server, true)
	if res = one(res, ok); !ok || r.Bare {
		return res
	}
	for _, a := range s.four {
		if b.A(wire.Additional, ref, s.ttl, a) {
			res.Additional++
		}
	}
	for _, a := range s.six {
		if b.AAAA(wire.Additional, ref, s.ttl, a) {
			res.Additional++
		}
	}
	return res
}

// All implements zones.RRset.
func (s *nsSet) All(yield func([]byte) bool) { yield(s.server) }

// Append implements zones.RRset.
func (s *aSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	for _, a := range s.four {
		if !b.A(r.Section, owner, s.ttl, a) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// All implements zones.RRset.
func (s *aSet) All(yield func([]byte) bool) {
	for i := range s.four {
		if !yield(s.four[i][:]) {
			return
		}
	}
}

// Append implements zones.RRset.
func (s *aaaaSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.ttl, EDE: zones.EDENone}
	for _, a := range s.six {
		if !b.AAAA(r.Section, owner, s.ttl, a) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// All implements zones.RRset.
func (s *aaaaSet) All(yield func([]byte) bool) {
	for i := range s.six {
		if !yield(s.six[i][:]) {
			return
		}
	}
}
