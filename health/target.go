package health

import (
	"encoding/binary"
	"net/netip"
	"unique"
)

// ID names a target of a Monitor, from the Add that was its first to the Remove
// that is its last; then it may name another. IDs are small numbers, 1 the
// first: what is kept of targets by them has its place in a slice. Zero is none.
type ID uint32

// key is a Target in three parts: what is its own, and what the targets of a
// service have in common, which is stored once.
type key struct {
	addr netip.AddrPort // zero: what there is of it is in spec
	name string         // of TypeTTL
	spec unique.Handle[Target]
}

func keyOf(t *Target) key {
	var k key
	common := *t
	switch a := t.Addr.Addr(); {
	case t.Type == TypeTTL:
		k.name, common.Name = t.Name, ""
	case a.IsValid() && a.Zone() == "":
		k.addr, common.Addr = t.Addr, netip.AddrPort{}
	}
	k.spec = unique.Make(common)
	return k
}

// target is what the key is of.
func (k *key) target() Target {
	t := k.spec.Value()
	switch {
	case t.Type == TypeTTL:
		t.Name = k.name
	case k.addr.IsValid():
		t.Addr = k.addr
	}
	return t
}

// place is what of a key is its own, packed.
type place struct {
	octets [16]byte // an address, or a name's number
	port   uint16
	kind   placeKind
}

type placeKind uint8

const (
	placeless placeKind = iota
	place4              // the first four octets are an IPv4 address
	place6              // an IPv6 address, without a zone
	placeName           // the first four octets are the number of a name
)

func placeOf(addr netip.AddrPort) (p place) {
	switch a := addr.Addr(); {
	case a.Is4():
		four := a.As4()
		p.kind = place4
		copy(p.octets[:], four[:])
	case a.Is6():
		p.kind, p.octets = place6, a.As16()
	}
	p.port = addr.Port()
	return p
}

func placeOfName(number uint32) (p place) {
	p.kind = placeName
	binary.LittleEndian.PutUint32(p.octets[:], number)
	return p
}

// addr is the address; zero: it has none.
func (p *place) addr() netip.AddrPort {
	switch p.kind {
	case place4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p.octets[:4])), p.port)
	case place6:
		return netip.AddrPortFrom(netip.AddrFrom16(p.octets), p.port)
	case placeless, placeName:
	}
	return netip.AddrPort{}
}

// name is the number of a placeName's name.
func (p *place) name() uint32 { return binary.LittleEndian.Uint32(p.octets[:]) }
