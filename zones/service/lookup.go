package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The labels that lead below a service. Registered names have no underscores,
// so none can be one of them.
const (
	labelTCP  = "_tcp"
	labelUDP  = "_udp"
	labelTag  = "_tag"
	labelZone = "_zone"
	labelHash = "_hash"
	labelWhy  = "_why"
)

// find answers a name below the apex from a state that is ready.
func (z *Zone) find(state *pool.SourceView, name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	a.Kind = zones.NXDomain
	first := name.Label(0)
	if below > 1 && isProtocol(name.Label(below-1)) {
		z.browse(name, below, typ, a)
		return
	}
	ours := below > 1 && unregistered(name.Label(1)) // then so is all that the label is in
	if !ours && !unregistered(first) {
		s := z.view.Find(z.source, relative(name, 0, below))
		if s != nil && !s.Ancestor() {
			whole(s, z.view.Standin(s), typ, a)
			return
		}
		if s != nil {
			a.Kind = zones.NoData // an empty non-terminal: RFC 8020 section 2, RFC 4592 section 2.2.2
		}
	}
	if below == 1 {
		nonTerminal(a, string(first) == labelUDP || string(first) == labelTCP && state.Services() > 0)
		return
	}
	if !ours {
		if parent := z.view.Find(z.source, relative(name, 1, below)); parent != nil {
			z.child(parent, first, typ, a)
			return
		}
	}
	z.grandchild(name, below, first, typ, a)
}

// unregistered reports whether no registered name can have the label: those have
// no underscores, and a lookup of what is not there costs as much as another.
func unregistered(label []byte) bool { return label[0] == '_' }

// isProtocol reports whether the label is one of RFC 2782's.
func isProtocol(label []byte) bool { return string(label) == labelTCP || string(label) == labelUDP }

// relative is the name without its first skip labels and without the zone.
func relative(name *wire.Name, skip, below int) []byte {
	p := name.Prefix(below)
	return p[len(name.Prefix(skip)):]
}

// child answers a name right below a service or an ancestor of one.
func (z *Zone) child(parent *pool.Service, first []byte, typ wire.Type, a *zones.Answer) {
	if isProtocol(first) {
		a.Kind = zones.NoData // below are ports, or services asked for by RFC 2782
		return
	}
	if parent.Ancestor() {
		return
	}
	switch string(first) {
	case labelTag:
		nonTerminal(a, parent.HasFilters(pool.FilterTag, false) || parent.FiltersOmitted() > 0)
	case labelZone:
		nonTerminal(a, parent.HasFilters(pool.FilterZone, false) || parent.FiltersOmitted() > 0)
	case labelHash:
		nonTerminal(a, true)
	case labelWhy:
		a.Kind = zones.NoData
		if typ == wire.TypeTXT && parent.Len() > 0 {
			found(a, (*whySet)(parent))
		}
	default:
		if i := parent.Instance(first); i >= 0 {
			answerInstance(parent, uint32(i), typ, a)
		}
	}
}

// nonTerminal says that a name exists and has no records, if it does.
func nonTerminal(a *zones.Answer, exists bool) {
	if exists {
		a.Kind = zones.NoData
	}
}

// grandchild answers a name two labels below a service: a filter's, a hashed
// key's or a port's; and `_api._tcp.prod.Z`, which is the service api.prod asked
// for in the manner of RFC 2782.
func (z *Zone) grandchild(name *wire.Name, below int, first []byte, typ wire.Type, a *zones.Answer) {
	second := name.Label(1)
	var s *pool.Service
	if below > 2 {
		s = z.view.Find(z.source, relative(name, 2, below))
	}
	registered := s != nil && !s.Ancestor()
	switch string(second) {
	case labelTag, labelZone:
		if registered {
			kind := pool.FilterTag
			if string(second) == labelZone {
				kind = pool.FilterZone
			}
			filtered(s, s.Filter(kind, first, false), typ, a)
		}
	case labelHash:
		if registered {
			a.Hash, a.Hashed = hashBytes(first), true
			a.Kind = zones.NoData
			answer(z.view.Standin(s).Set(), typ, a)
		}
	case labelTCP, labelUDP:
		if len(first) < 2 || first[0] != '_' {
			return
		}
		if registered {
			if set := z.view.Standin(s).Filter(pool.FilterPort, first[1:], string(second) == labelUDP); set != nil {
				filtered(s, set, typ, a)
				return
			}
		}
		if s != nil {
			z.byProtocol(name, below, typ, a)
		}
	}
}

// byProtocol answers `_web._tcp.Z` and `_web._tcp.prod.Z`: the SRV records of
// web.Z and web.prod.Z (RFC 2782). Which protocol a default port speaks is not
// known, so either is answered.
func (z *Zone) byProtocol(name *wire.Name, below int, typ wire.Type, a *zones.Answer) {
	var buf [255]byte
	label := name.Label(0)[1:]
	key := append(buf[:0], uint8(len(label)))
	key = append(key, label...)
	if below > 2 {
		key = append(key, relative(name, 2, below)...)
	}
	s := z.view.Find(z.source, key)
	if s == nil || s.Ancestor() {
		return
	}
	a.Kind = zones.NoData
	switch typ {
	case wire.TypeSRV:
		found(a, (*partSet)(own(a, z.view.Standin(s).Set(), 0, typ)))
	case wire.TypeANY:
		a.Kind = zones.Found
	}
}
