package authority

import (
	"bytes"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// chainMax is how many aliases are followed in one answer. Chains of people's
// making have two or three; a resolver goes on where this ends.
const chainMax = 10

// follow writes the alias that the lookup of name found, and returns the name it
// leads to and where that stands in the message. An outcome other than unknown
// means that the answer ends here.
func (s *scratch) follow(name *wire.Name, owner wire.Ref, hop int) (*wire.Name, wire.Ref, Outcome) {
	if hop == chainMax {
		s.shard.chains.Add(1)
		return nil, 0, AliasOnly
	}
	next := &s.names[hop]
	var o Outcome
	if s.a.Type == wire.TypeDNAME {
		owner, o = s.redirect(next, name, owner, hop)
	} else {
		owner, o = s.rename(next, name, owner)
	}
	switch {
	case o != OutcomeUnknown:
		return nil, 0, o
	case s.q.Type == wire.TypeANY || s.q.Type == wire.TypeCNAME:
		return nil, 0, Answered // the CNAME just written is what was asked for
	case s.circles(next, hop):
		s.shard.chains.Add(1)
		return nil, 0, AliasOnly
	}
	return next, owner, OutcomeUnknown
}

// rename writes the CNAME of name, which stands at owner, and sets next to its target.
func (s *scratch) rename(next, name *wire.Name, owner wire.Ref) (wire.Ref, Outcome) {
	if !next.Set(s.a.Target) {
		return 0, AliasOnly // unreachable for static zones, which check their names
	}
	s.wildcard(name)
	if res := s.append(s.a.RRset, name.Wire(), owner, wire.Answer); res.Truncated {
		return 0, AliasOnly
	}
	ref, ok := s.b.NameRef(next.Wire())
	if !ok {
		return 0, AliasOnly
	}
	return ref, OutcomeUnknown
}

// redirect writes the DNAME above name and the CNAME that it makes for owner,
// and sets next to that CNAME's target: RFC 6672 sections 3.1 and 3.2.
func (s *scratch) redirect(next, name *wire.Name, owner wire.Ref, hop int) (wire.Ref, Outcome) {
	ttl, ok := s.writeDNAME(name, hop)
	if !ok {
		return 0, AliasOnly
	}
	var made [255]byte
	kept := name.Prefix(s.a.Owner)
	if hop == 0 {
		kept = s.q.RawName[:len(kept)] // in the asker's case
	}
	if len(kept)+len(s.a.Target) > len(made) {
		return 0, TooLong // YXDOMAIN, RFC 6672 section 2.2
	}
	size := copy(made[:], kept)
	size += copy(made[size:], s.a.Target)
	if !next.Set(made[:size]) {
		return 0, AliasOnly // unreachable: both parts are names, and together short enough
	}
	ref, ok := s.b.RRName(wire.Answer, owner, wire.TypeCNAME, wire.ClassIN, ttl, nil, made[:size], true)
	if !ok {
		s.b.SetTC()
		return 0, AliasOnly
	}
	if s.grows(name) {
		s.shard.chains.Add(1)
		return 0, AliasOnly
	}
	return ref, OutcomeUnknown
}

// borrow looks up the addresses that an ALIAS record leads to, through CNAMEs and
// further ALIAS records, of which nothing is written: they are answered as the
// name's own, from its own zone. Who may ask for the name may have them. Where
// there are none, the name exists without them.
func (s *scratch) borrow(tree *zones.Tree, hop int) {
	zone, made := s.a.Zone, s.a.Made
	for ; s.a.Kind == zones.Borrowed || s.a.Kind == zones.Alias && s.a.Type == wire.TypeCNAME; hop++ {
		if hop == chainMax || !s.names[hop].Set(s.a.Target) {
			s.shard.chains.Add(1)
			break
		}
		tree.Lookup(&s.names[hop], s.q.Type, &s.a)
	}
	if s.a.Kind != zones.Found && s.a.Kind != zones.ServFail {
		s.a.Kind = zones.NoData
	}
	s.lent = true
	s.a.Zone, s.a.Made = zone, made
}

// dname is a DNAME that a step of the chain used.
type dname struct {
	set zones.RRset
	ttl uint32
}

// writeDNAME writes the DNAME above name, once in an answer, and returns its TTL.
// It is not ok when it does not fit.
func (s *scratch) writeDNAME(name *wire.Name, hop int) (ttl uint32, ok bool) {
	for _, d := range s.dnames[:hop] {
		if d.set == s.a.RRset {
			s.dnames[hop] = d
			return d.ttl, true
		}
	}
	at, ok := s.b.NameRef(name.Suffix(s.a.Owner))
	if !ok {
		return 0, false
	}
	res := s.append(s.a.RRset, name.Suffix(s.a.Owner), at, wire.Answer)
	s.dnames[hop] = dname{s.a.RRset, res.TTL}
	return res.TTL, !res.Truncated
}

// grows reports whether the DNAME above name leads to below itself, so that each
// step makes a longer name: one step is enough to show that.
func (s *scratch) grows(name *wire.Name) bool {
	var target wire.Name
	if !target.Set(s.a.Target) {
		return false
	}
	dname := name.Suffix(s.a.Owner)
	strip := target.Labels() - (name.Labels() - s.a.Owner)
	return strip >= 0 && bytes.Equal(target.Suffix(strip), dname)
}

// circles reports whether next is a name that the chain has been at.
func (s *scratch) circles(next *wire.Name, hop int) bool {
	if next.Equal(&s.q.Name) {
		return true
	}
	for i := range hop {
		if next.Equal(&s.names[i]) {
			return true
		}
	}
	return false
}
