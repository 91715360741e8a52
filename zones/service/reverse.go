package service

import (
	"errors"
	"net/netip"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// ReverseConfig configures a reverse zone.
type ReverseConfig struct {
	Head Head // of a zone at or below in-addr.arpa or ip6.arpa
	View *pool.View
}

// Reverse answers the names of a reverse zone from the registered instances of
// every service zone. It is immutable and safe for concurrent use.
type Reverse struct {
	apex apex
	view *pool.View
	arpa *arpa
}

var _ zones.Source = (*Reverse)(nil)

// arpa is a tree of addresses: RFC 1035 section 3.5, RFC 3596 section 2.5.
type arpa struct {
	suffix string // in wire form
	labels int    // of suffix
	digits int    // labels of a whole address
}

// trees are the two trees of addresses.
var trees = [...]arpa{
	{"\x07in-addr\x04arpa\x00", 2, 4},
	{"\x03ip6\x04arpa\x00", 2, 32},
}

// NewReverse returns the zone of cfg.
func NewReverse(cfg ReverseConfig) (*Reverse, error) {
	if cfg.View == nil {
		return nil, errors.New("reverse zone: View: must be set")
	}
	z := &Reverse{view: cfg.View}
	for i := range trees {
		if n := cfg.Head.Apex.Labels() - trees[i].labels; n >= 0 && string(cfg.Head.Apex.Suffix(n)) == trees[i].suffix {
			z.arpa = &trees[i]
		}
	}
	if z.arpa == nil {
		return nil, errors.New("reverse zone " + cfg.Head.Apex.String() + ": the name must end in in-addr.arpa or ip6.arpa")
	}
	if err := z.apex.init(&cfg.Head, nil); err != nil {
		return nil, err
	}
	return z, nil
}

// SOA implements zones.Source.
func (z *Reverse) SOA() zones.RRset { return (*soaSet)(&z.apex) }

// Lookup implements zones.Source.
func (z *Reverse) Lookup(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	a.Type, a.EDE = typ, zones.EDENone
	if z.apex.lookup(name, below, typ, a) {
		return
	}
	addr, whole, ok := z.arpa.parse(name)
	if !ok {
		a.Kind = zones.NXDomain
		return
	}
	if !whole {
		a.Kind = zones.NoData // there may be addresses below
		return
	}
	if names := z.view.Address(addr); names != nil {
		a.Kind = zones.NoData
		switch typ {
		case wire.TypePTR:
			found(a, (*ptrSet)(names))
		case wire.TypeANY:
			a.Kind = zones.Found
		}
		return
	}
	for _, s := range z.view.Sources() {
		if s != nil && !ready(s, a) {
			return
		}
	}
	a.Kind = zones.NXDomain
	for _, s := range z.view.Sources() {
		if s != nil {
			explain(s, a)
		}
	}
}

// parse reads the address that a name stands for; whole is false when it is
// only the beginning of one.
func (t *arpa) parse(name *wire.Name) (addr netip.Addr, whole, ok bool) {
	n := name.Labels() - t.labels
	if n > t.digits {
		return netip.Addr{}, false, false
	}
	var octets [16]byte
	for i := range n {
		label := name.Label(n - 1 - i) // the address's first digits stand last
		if t.digits == 4 {
			v, ok := decimal(label)
			if !ok {
				return netip.Addr{}, false, false
			}
			octets[i] = v
			continue
		}
		v, ok := hexadecimal(label)
		if !ok {
			return netip.Addr{}, false, false
		}
		octets[i/2] |= v << (4 * (1 - i%2))
	}
	if n < t.digits {
		return netip.Addr{}, false, true
	}
	if t.digits == 4 {
		return netip.AddrFrom4([4]byte(octets[:4])), true, true
	}
	return netip.AddrFrom16(octets), true, true
}

// decimal reads an octet of 0 to 255 without leading zeros.
func decimal(label []byte) (uint8, bool) {
	if len(label) == 0 || len(label) > 3 || label[0] == '0' && len(label) > 1 {
		return 0, false
	}
	v := 0
	for _, c := range label {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return uint8(v), v <= 255
}

// hexadecimal reads a nibble.
func hexadecimal(label []byte) (uint8, bool) {
	if len(label) != 1 {
		return 0, false
	}
	switch c := label[0]; {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	default:
		return 0, false
	}
}

// ptrSet is the PTR records of one address.
type ptrSet pool.AddressNames

func (s *ptrSet) names() *pool.AddressNames { return (*pool.AddressNames)(s) }

// Append implements zones.RRset.
func (s *ptrSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: ^uint32(0), EDE: zones.EDENone}
	names := s.names()
	for i := range names.Len() {
		src := names.At(i).Source
		res.TTL = min(res.TTL, src.TTL())
		stateOf(src, &res, r.Now)
	}
	var buf [255]byte
	for i := range names.Len() {
		name := append(buf[:0], names.At(i).Name...)
		if _, ok := b.RRName(r.Section, owner, wire.TypePTR, wire.ClassIN, res.TTL, nil, name, true); !ok {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// All implements zones.RRset.
func (s *ptrSet) All(yield func([]byte) bool) {
	for i := range s.names().Len() {
		if !yield([]byte(s.names().At(i).Name)) {
			return
		}
	}
}
