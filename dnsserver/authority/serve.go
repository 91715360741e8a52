package authority

import (
	"strconv"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// edeInvalidType is "Invalid Query Type" (RFC 9824 section 10.3).
const edeInvalidType = 30

// hinfo is the RDATA that answers ANY: RFC 8482 section 4.2.
var hinfo = []byte("\x07RFC8482\x00")

// hinfoTTL, in seconds, keeps resolvers from asking ANY again; it says nothing
// that could become wrong.
const hinfoTTL = 3600

// ServeDNS answers q, a well-formed query of opcode 0, into b, which has been
// started.
func (h *Handler) ServeDNS(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	return h.respond(b, q, from, false)
}

// Warm implements dnsserver.Warmer.
func (h *Handler) Warm(queries []*wire.Query) { h.tree.Load().Warm(queries) }

// respond is ServeDNS; with inline it waits for signatures that are not there yet, where
// ServeDNS defers.
func (h *Handler) respond(b *wire.Builder, q *wire.Query, from *dnsserver.Client, inline bool) dnsserver.Verdict {
	s := h.scratch.Get().(*scratch)
	s.inline, s.unsigned, s.lent = inline, false, false
	s.b, s.q, s.from, s.p = b, q, from, h.policy.Load()
	s.client = from.Addr.Addr()
	s.req.Client, s.req.Bits = s.client, uint8(s.client.BitLen())
	s.req.Now, s.req.Rand = from.Now, from.Rand
	s.subnet = q.Asked&wire.AskedSubnet != 0 && s.believe()
	s.req.Type, s.req.Stream, s.req.DO = q.Type, from.Transport != dnsserver.UDP, q.DO
	s.req.Locality, s.req.LocalityBits = 0, 0
	if s.p.locality != nil {
		s.req.Locality, s.req.LocalityBits = s.p.locality(s.req.Client, s.req.Bits)
	}
	verdict := dnsserver.Send
	tree := h.tree.Load()
	s.tree = tree
	o := s.screen(tree)
	if o == OutcomeUnknown {
		o = s.answer(tree)
	}
	if o == Transferring || s.unsigned && !inline || o == OutsideZones && s.forwards() {
		verdict = dnsserver.Defer // ServeSlow counts it
	} else {
		if o == OutsideZones {
			s.because(wire.EDENotAuthoritative)
		}
		if o = s.limit(o); o == Limited {
			verdict = dnsserver.Drop
		}
		b.SetRCode(o.RCode())
		b.SetRA(s.mayForward())
		if q.CO && s.compact() {
			b.SetCO() // RFC 9824 section 5.1
		}
		if s.subnet {
			b.SetScope(min(s.scope, q.Subnet.Bits))
		}
		s.shard.count(from.Transport, o)
	}
	s.b, s.q, s.from, s.p, s.tree, s.a = nil, nil, nil, nil, nil, zones.Answer{} // the pool keeps nothing alive
	clear(s.dnames[:s.hops])
	s.hops, s.scope, s.made, s.wilds, s.req.Bare = 0, 0, 0, 0, false
	h.scratch.Put(s)
	return verdict
}

// screen answers what no record answers: classes other than IN, and types that no
// zone has. OutcomeUnknown means that zones are to be asked.
func (s *scratch) screen(tree *zones.Tree) Outcome {
	switch s.q.Class {
	case wire.ClassIN:
	case wire.ClassCH:
		return s.chaos()
	default:
		return Unsupported
	}
	switch s.q.Type {
	case 0, wire.TypeOPT, wire.TypeTSIG, wire.TypeTKEY: // meta types, never asked for: RFC 6895 section 3.1
		return Malformed
	case wire.TypeNXNAME: // RFC 9824 section 3.5
		s.b.EDE(edeInvalidType, nil)
		return Malformed
	case wire.TypeAXFR, wire.TypeIXFR:
		return s.transfer(tree)
	case wire.TypeMAILA, wire.TypeMAILB:
		s.b.EDE(wire.EDENotSupported, nil)
		return Unsupported
	}
	return OutcomeUnknown
}

// chaos answers class CH: who the server is, as far as that is configured.
func (s *scratch) chaos() Outcome {
	var text []byte
	switch string(s.q.Name.Wire()) {
	case "\x07version\x04bind\x00", "\x07version\x06server\x00":
		text = s.p.version
	case "\x08hostname\x04bind\x00", "\x02id\x06server\x00":
		text = s.p.id
	}
	if len(text) == 0 || s.q.Type != wire.TypeTXT || !s.p.allows(&s.q.Name, s.client) {
		return Unsupported
	}
	s.b.SetAA(true)
	if !s.b.RR(wire.Answer, wire.RefQName, wire.TypeTXT, wire.ClassCH, 0, text) {
		s.b.SetTC()
	}
	return Answered
}

// answer answers from the tree, following aliases.
func (s *scratch) answer(tree *zones.Tree) Outcome {
	name, owner := &s.q.Name, wire.RefQName
	if !s.p.allows(name, s.client) {
		return s.deny()
	}
	start := s.b.Mark()
	for hop := 0; ; hop++ {
		tree.Lookup(name, s.q.Type, &s.a)
		if hop == 0 {
			s.made = made(&s.a)
		}
		switch {
		case hop == 0 && s.a.Zone == nil:
			return OutsideZones
		case s.hidden(name):
			if hop == 0 {
				return s.deny()
			}
			return AliasOnly
		case hop > 0 && (s.a.Zone == nil || !s.p.allows(name, s.client)):
			return AliasOnly // the resolver goes on from here
		}
		if s.a.Kind == zones.Borrowed {
			s.borrow(tree, hop)
		}
		if s.a.Kind != zones.Alias {
			return s.finish(name, owner, start, hop)
		}
		s.b.SetAA(true)
		s.hops = min(hop+1, chainMax)
		next, ref, o := s.follow(name, owner, hop)
		if o != OutcomeUnknown {
			s.proveWildcards()
			return o
		}
		name, owner = next, ref
	}
}

// hidden reports whether name, just looked up, explains a dynamic zone to a
// client that may not see that.
func (s *scratch) hidden(name *wire.Name) bool {
	return s.a.Zone != nil && s.a.Zone.Dynamic() && explains(name) && !contains(s.p.why, s.client)
}

// deny refuses what the client may not ask for.
func (s *scratch) deny() Outcome {
	s.because(wire.EDEProhibited)
	return Denied
}

// because adds why a question is refused. To clients whose addresses may be forged it tells
// that a few times a second only, enough for who tries things out: a flood of refusals is no
// larger than its questions, and nobody can have us send more than they send.
func (s *scratch) because(code uint16) {
	if s.q.EDNS && (s.req.Stream || s.from.Known || s.shard.explain(s.from.Now)) {
		s.b.EDE(code, nil)
	}
}

// finish writes what the lookup of name found, which is no alias. owner is where
// name stands in the message, start where the answer begins.
func (s *scratch) finish(name *wire.Name, owner wire.Ref, start wire.Mark, hop int) Outcome {
	s.b.SetAA(s.a.Kind != zones.Referral || hop > 0) // of the first owner, RFC 1035 section 4.1.1
	if s.a.EDE != zones.EDENone && s.a.Kind != zones.ServFail {
		s.extend(s.a.EDE, s.a.Age) // before the records, so that additional ones don't take its room
	}
	switch s.a.Kind {
	case zones.Found:
		return s.found(name, owner)
	case zones.Referral:
		return s.refer(name)
	case zones.NXDomain:
		if s.proves() {
			return s.proof(name, owner)
		}
		s.negative(name)
		if s.compact() && !s.q.CO {
			return NoData // RFC 9824 section 3.1: the name is said to exist, with the type NXNAME
		}
		return NXDomain
	case zones.NoData:
		if s.proves() {
			return s.proof(name, owner)
		}
		s.negative(name)
		return NoData
	case zones.ServFail, zones.Refused, zones.Alias, zones.Borrowed: // only ServFail comes here
	}
	s.b.Rewind(start) // half a chain is no answer
	s.b.SetAA(false)
	code := s.a.EDE
	if code == zones.EDENone {
		code = wire.EDENotReady
	}
	s.extend(code, s.a.Age)
	return NotReady
}

// found writes the set that answers the question.
func (s *scratch) found(name *wire.Name, owner wire.Ref) Outcome {
	if s.q.Type == wire.TypeANY && !s.a.Zone.Signed() { // RFC 8482 section 4.2
		start := s.b.Mark()
		if !s.b.RR(wire.Answer, owner, wire.TypeHINFO, wire.ClassIN, hinfoTTL, hinfo) {
			s.b.SetTC()
		} else if s.compact() {
			s.sign(s.a.Zone.Signer(), name.Wire(), owner, wire.Answer, hinfoTTL, start)
		}
		return Answered
	}
	if s.q.Asked&wire.AskedExpire != 0 {
		s.expire()
	}
	s.wildcard(name)
	start := s.b.Mark()
	res := s.append(s.a.RRset, name.Wire(), owner, wire.Answer)
	if s.wilds > 0 {
		s.proveWildcards()
	} else if res.Elsewhere && !res.Truncated {
		s.addTargets(start, res.Answers)
	}
	if res.EDE != zones.EDENone && s.a.EDE == zones.EDENone {
		s.extend(res.EDE, res.Age)
	}
	if res.Answers == 0 && !res.Truncated {
		s.a.Kind = zones.NoData
		s.negative(name)
		return NoData
	}
	return Answered
}

// append writes a set of the owner name, which stands at owner, and marks the response
// when it did not fit.
func (s *scratch) append(set zones.RRset, name []byte, owner wire.Ref, to wire.Section) zones.Result {
	s.req.Section = to
	s.req.Hash, s.req.Hashed = s.a.Hash, s.a.Hashed
	signer := s.signerOf(set)
	start := s.b.Mark()
	res := set.Append(s.b, owner, &s.req)
	if res.Truncated {
		s.b.SetTC()
	} else if signer != nil && res.Answers > 0 {
		s.sign(signer, name, owner, to, res.TTL, start)
	}
	s.scope = max(s.scope, res.Scope)
	return res
}

// negative writes the zone's SOA, by which resolvers know how long a negative
// answer holds: RFC 2308 section 3.
func (s *scratch) negative(name *wire.Name) {
	strip, _ := name.Below(s.a.Zone.Apex())
	var res zones.Result
	if owner, ok := s.b.NameRef(name.Suffix(strip)); ok {
		res = s.append(s.a.Zone.SOA(), name.Suffix(strip), owner, wire.Authority)
	}
	switch {
	case !s.q.DO:
	case s.compact():
		s.denyCompactly(name, res.TTL)
	case !s.a.Zone.Deny(s.b, name, &s.a):
		s.b.SetTC()
	}
	s.proveWildcards()
}

// wild is a name that was answered from a wildcard of a signed zone.
type wild struct {
	zone *zones.Zone
	name *wire.Name
	made int
}

// wildcard notes that what was found of name was made from a wildcard: once the
// answers are written, it is to be proven that there was no nearer name (RFC 4035
// section 3.1.3.3). What would come behind that is left out.
func (s *scratch) wildcard(name *wire.Name) {
	if s.a.Made == 0 || !s.q.DO || s.a.Zone == nil || !s.a.Zone.Signed() {
		return
	}
	s.wild[s.wilds] = wild{s.a.Zone, name, s.a.Made}
	s.wilds++
	s.req.Bare = true
}

// proveWildcards writes the proofs that wildcard noted.
func (s *scratch) proveWildcards() {
	for i := range s.wilds {
		w := &s.wild[i]
		a := zones.Answer{Kind: zones.Found, Made: w.made}
		if !w.zone.Deny(s.b, w.name, &a) {
			s.b.SetTC()
		}
		*w = wild{}
	}
	s.wilds = 0
}

// refer writes the delegation that name lies under.
func (s *scratch) refer(name *wire.Name) Outcome {
	if owner, ok := s.b.NameRef(name.Suffix(s.a.Owner)); ok {
		s.req.Section = wire.Authority
		if res := s.a.Zone.Refer(s.b, name, owner, &s.req, &s.a); res.Truncated {
			s.b.SetTC()
		}
	}
	return Referred
}

// extend adds an extended error; one that says that an answer is stale says how
// old it is.
func (s *scratch) extend(code uint16, age uint32) {
	var buf [48]byte
	text := buf[:0]
	if code == wire.EDEStale {
		text = append(text, "stale answer, "...)
		text = strconv.AppendUint(text, uint64(age), 10)
		text = append(text, " s old"...)
		if s.a.Kind == zones.NXDomain {
			code = wire.EDEStaleNXDomain
		}
	}
	s.b.EDE(code, text)
}
