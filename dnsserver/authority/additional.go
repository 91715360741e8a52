package authority

import (
	"encoding/binary"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// targetsMax is of how many SRV records at most the addresses are looked for in other
// zones: each takes two lookups, and more than a few hosts' do not fit a datagram.
const targetsMax = 8

// addTargets writes the addresses of the hosts that the SRV records written since start
// name, if they are in other zones of this server and the client may ask for them: RFC
// 2782's additional data. What does not fit is left out, and is no reason to truncate (RFC
// 2181 section 9). So is what would have to be signed first.
func (s *scratch) addTargets(start wire.Mark, answers int) {
	from, at := s.b.Mark().Offset(), start.Offset()
	if s.req.Bare || s.unsigned {
		return
	}
	for range min(answers, targetsMax) {
		rr := recordAt(s.b.Message(), at)
		const numbers = 6 // priority, weight and port
		target := rr.data + numbers
		if rr.typ != wire.TypeSRV || !s.target.Set(s.b.Message()[target:rr.end]) {
			return
		}
		at = rr.end
		if s.hasAddresses(start.Offset(), from) || s.hasAddresses(from, s.b.Mark().Offset()) || !s.p.allows(&s.target, s.client) {
			continue
		}
		for _, t := range [...]wire.Type{wire.TypeA, wire.TypeAAAA} {
			s.addAddresses(wire.Ref(target), t)
		}
	}
}

// addAddresses writes the addresses of s.target, which stands at ref.
func (s *scratch) addAddresses(ref wire.Ref, t wire.Type) {
	s.tree.Lookup(&s.target, t, &s.probe)
	if s.addable() {
		s.req.Section, s.req.Type, s.req.Bare = wire.Additional, t, true
		s.req.Hash, s.req.Hashed = s.probe.Hash, s.probe.Hashed
		start := s.b.Mark()
		res := s.probe.RRset.Append(s.b, ref, &s.req)
		if res.Truncated {
			s.b.Rewind(start)
		} else {
			s.scope = max(s.scope, res.Scope)
		}
		s.req.Type, s.req.Bare = s.q.Type, false
	}
	s.probe = zones.Answer{}
}

// addable reports whether what s.probe found may be written beside the answer.
func (s *scratch) addable() bool {
	a := &s.probe
	if a.Kind != zones.Found || a.RRset == nil {
		return false // nothing, or an alias, which is no target: RFC 2782
	}
	return !s.q.DO || !(a.Made > 0 && a.Zone.Signed()) && !(a.Zone.Dynamic() && a.Zone.Signer() != nil)
}

// hasAddresses reports whether the records from one place of the message to another have
// addresses of s.target.
func (s *scratch) hasAddresses(from, to int) bool {
	msg := s.b.Message()
	var owner wire.Name
	for from < to {
		rr := recordAt(msg, from)
		if (rr.typ == wire.TypeA || rr.typ == wire.TypeAAAA) && owner.Set(nameAt(msg, rr.owner)) && owner.Equal(&s.target) {
			return true
		}
		from = rr.end
	}
	return false
}

// placed is where the parts of a record stand in a message that was written here.
type placed struct {
	owner, data, end int
	typ              wire.Type
}

// recordAt is the record at a place of a message.
func recordAt(msg []byte, at int) placed {
	rr := placed{owner: at}
	const pointer = 0xc0 // RFC 1035 section 4.1.4
	for msg[at] != 0 && msg[at] < pointer {
		at += 1 + int(msg[at])
	}
	if msg[at] >= pointer {
		if at == rr.owner {
			rr.owner = int(binary.BigEndian.Uint16(msg[at:]) & 0x3fff)
		}
		at++
	}
	at++
	const fixed = 10 // type, class, TTL and length
	rr.typ = wire.Type(binary.BigEndian.Uint16(msg[at:]))
	rr.data = at + fixed
	rr.end = rr.data + int(binary.BigEndian.Uint16(msg[rr.data-2:]))
	return rr
}

// nameAt is the name that begins at a place of a message and is not compressed, as those
// of SRV records; another is cut where it is.
func nameAt(msg []byte, at int) []byte {
	end := at
	for msg[end] != 0 && msg[end] < 64 {
		end += 1 + int(msg[end])
	}
	return msg[at : end+1]
}
