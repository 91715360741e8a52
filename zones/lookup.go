package zones

import "github.com/musterdns/muster/dnsserver/wire"

// star is the label of a wildcard (RFC 4592 section 2.1.1) in wire form.
var star = []byte{1, '*'}

// lookup walks from the apex down towards name, of which the first below labels
// stand below the apex: RFC 1034 section 4.3.2 step 3.
func (z *Zone) lookup(name *wire.Name, below int, typ wire.Type, a *Answer) {
	at := uint32(0)
	for strip := below; strip > 0; strip-- {
		n := &z.names.nodes[at]
		switch {
		case n.flags&hasNS != 0 && strip != below: // step 3.b: a zone cut
			z.refer(n, strip, a)
			return
		case n.flags&hasDNAME != 0: // RFC 6672 section 3.2: below the owner, never at it
			z.alias(n, wire.TypeDNAME, strip, a)
			return
		}
		child, ok := z.names.find(name.Suffix(strip - 1))
		if !ok { // step 3.c
			z.synthesize(n, name, strip, typ, a)
			return
		}
		at = child
	}
	n := &z.names.nodes[at]
	if n.flags&hasNS != 0 && at != 0 && typ != wire.TypeDS { // DS: RFC 4035 section 3.1.4.1
		z.refer(n, 0, a)
		return
	}
	z.answer(n, typ, a) // step 3.a
}

// synthesize answers a name that does not exist, below its closest encloser n,
// the name without its first strip labels: from the wildcard there if there is
// one (RFC 4592 section 3.3.1).
func (z *Zone) synthesize(n *node, name *wire.Name, strip int, typ wire.Type, a *Answer) {
	a.Kind = NXDomain
	if n.flags&hasStar == 0 {
		return
	}
	var buf [2 + 255]byte
	size := copy(buf[copy(buf[:], star):], name.Suffix(strip))
	if at, ok := z.names.find(buf[:len(star)+size]); ok {
		a.Made = strip
		z.answer(&z.names.nodes[at], typ, a)
	}
}

// answer answers from a node whose name is the question's or stands for it.
func (z *Zone) answer(n *node, typ wire.Type, a *Answer) {
	switch {
	case n.flags&hasCNAME != 0 && typ != wire.TypeCNAME && !besideCNAME(typ):
		z.alias(n, wire.TypeCNAME, 0, a)
	case typ == wire.TypeANY && n.count > 0:
		a.Kind = Found  // RFC 8482: that there is something; no set is chosen
		if z.Signed() { // what is made up could not be signed: section 4.1 has one set
			a.RRset = &z.sets[n.first]
		}
	case n.flags&hasALIAS != 0 && z.borrow(n, typ, a):
	default:
		a.Kind = NoData
		if s := z.set(n, typ); s != nil {
			a.Kind, a.RRset = Found, s
		}
	}
}

// besideCNAME reports whether a type is one that a name with a CNAME may have itself
// (RFC 4034 sections 3 and 4).
func besideCNAME(typ wire.Type) bool { return typ == wire.TypeRRSIG || typ == wire.TypeNSEC }

// borrow answers the types of a node with an ALIAS that are not its own; false:
// the type is.
func (z *Zone) borrow(n *node, typ wire.Type, a *Answer) bool {
	switch typ {
	case wire.TypeA, wire.TypeAAAA:
		a.Kind = Borrowed
		a.Target, _ = next(z.data[z.set(n, wire.TypeALIAS).data:])
	case wire.TypeALIAS: // how the zone is made, not what it has
		a.Kind = NoData
	default:
		return false
	}
	return true
}

// refer answers with the delegation at n.
func (z *Zone) refer(n *node, strip int, a *Answer) {
	a.Kind, a.Type, a.Owner = Referral, wire.TypeNS, strip
	a.RRset = z.set(n, wire.TypeNS)
	a.node = n
}

// alias answers with the CNAME or DNAME at n.
func (z *Zone) alias(n *node, typ wire.Type, strip int, a *Answer) {
	s := z.set(n, typ)
	a.Kind, a.Type, a.Owner, a.RRset = Alias, typ, strip, s
	a.Target, _ = next(z.data[s.data:])
}
