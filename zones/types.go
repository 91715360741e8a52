package zones

import "github.com/musterdns/muster/dnsserver/wire"

// sourceTypes are the types that a name of a Source may have, but for CNAME.
var sourceTypes = [...]wire.Type{
	wire.TypeA, wire.TypeNS, wire.TypeSOA, wire.TypePTR, wire.TypeMX, wire.TypeTXT, wire.TypeAAAA, wire.TypeSRV,
	wire.TypeDNSKEY, wire.TypeCDS, wire.TypeCDNSKEY, wire.TypeSVCB, wire.TypeHTTPS,
}

// SourceTypes are the types that a name of a Source may have, but for CNAME: what is to be
// asked for to learn what there is of a name. An NSEC record never says CNAME: no record
// that does proves anything (RFC 6840 section 4.3). All are below 256. They are not to be
// written to.
func SourceTypes() []wire.Type { return sourceTypes[:] }

// Types are the types of which a name may have records, each once, signatures (RRSIG) not
// among them: whether it has them, Lookup says. None: the name lies in no zone.
func (t *Tree) Types(name *wire.Name) []wire.Type {
	z := t.Above(name)
	switch {
	case z == nil:
		return nil
	case z.source != nil:
		return append([]wire.Type{wire.TypeCNAME, wire.TypeDS}, sourceTypes[:]...)
	}
	types := []wire.Type{wire.TypeDS} // of an apex its parent has it (RFC 4035 section 3.1.4.1)
	n := z.standing(name)
	if n == nil {
		return types
	}
	for _, s := range z.sets[n.first : n.first+uint32(n.count)] {
		switch s.typ {
		case wire.TypeRRSIG, wire.TypeDS:
		case wire.TypeALIAS: // stands for addresses, which the name has not beside it
			types = append(types, wire.TypeA, wire.TypeAAAA)
		default:
			types = append(types, s.typ)
		}
	}
	return types
}
