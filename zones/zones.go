// Package zones holds what Muster is authoritative for: an immutable Tree of
// zones, static or fed by a Source, and the lookup of RFC 1034 section 4.3.2.
//
// A lookup takes no lock and allocates nothing, and costs a hash and a probe for each
// label of the name that it has to look at. A static zone lies in a few blocks, whatever
// it holds, which the garbage collector has little to follow in; a change of it is
// another zone, and another Tree.
//
// Invariant: the package reads no clock and has no randomness; what an answer depends on
// is in the Request.
package zones

import (
	"net/netip"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Request is all that an answer may depend on beside the name and type. It is
// filled once by the authority from the client.
type Request struct {
	// Section is where the set goes: Answer, or Authority for the SOA of a
	// negative answer and for the NS of a referral.
	Section wire.Section
	// Client is whom the answer is for: who asks, or the network that a resolver
	// says it asks for (RFC 7871). Bits is how many leading bits of it are known.
	Client netip.Addr
	Bits   uint8
	// Locality is where the client is, by the number that the pool knows it by; 0: not
	// known. LocalityBits is how many leading bits of the client decided that.
	Locality     uint16
	LocalityBits uint8

	Now    int64  // nanoseconds since 1970
	Rand   uint64 // one random word
	Hash   uint64 // a hash given by name (`_hash`), when Hashed is set
	Hashed bool
	Type   wire.Type
	Stream bool // the answer may be as large as a message can be
	DO     bool // signatures are wanted (RFC 3225)
	Bare   bool // nothing is to be written into the additional section
	// Picks and Refs are room for a set that chooses and for where it has written
	// names. They may grow, and are the asker's to keep from one answer to the
	// next, so that an answer allocates nothing.
	Picks []uint32
	Refs  []wire.Ref
}

// Result says what Append wrote.
type Result struct {
	Answers    int    // records in the answer section; 0: NODATA
	Additional int    // records in the additional section
	Truncated  bool   // something that belongs to the answer did not fit
	TTL        uint32 // seconds, of the records written
	EDE        uint16 // extended DNS error to add unless the lookup had one; EDENone: none
	Age        uint32 // seconds, when EDE is 3 (stale answer)
	Scope      uint8  // how many leading bits of the client decided what was chosen; 0: none
	Elsewhere  bool   // SRV records were written whose hosts' addresses were not, for all or some
}

// EDENone is Result.EDE and Answer.EDE for none: code 0 is "other".
const EDENone = 0xffff

// RRset is the records of one type at one name, as they are answered.
type RRset interface {
	// Append writes the set into the section r.Section of b with the given
	// owner (the owner is never baked into stored bytes), and what belongs to it
	// into the additional section. A static set writes all it has or, when that
	// does not fit, nothing; a service picks.
	Append(b *wire.Builder, owner wire.Ref, r *Request) Result
	// All yields everything that is served, without picking.
	All(yield func(rdata []byte) bool)
}

// Kind is the outcome of a lookup. Zero is Refused.
type Kind uint8

// The outcomes (RFC 1034 section 4.3.2).
const (
	Refused  Kind = iota // in no zone of ours
	Found                // RRset has the answer; it may still append nothing: NODATA
	Alias                // RRset is a CNAME (or DNAME) to be followed
	Referral             // RRset is the NS set of a delegation
	NoData               // the name exists, the type does not
	NXDomain
	ServFail // nothing is known yet, or what is known is too old
	Borrowed // Target's addresses are to be answered as if they were the name's
)

// Source answers the names of a zone whose contents change by themselves. It
// is safe for concurrent use, never blocks, and allocates nothing.
type Source interface {
	// Lookup fills a for name, of which the first below labels stand below the
	// zone's apex (0: the apex itself). It sets Kind, Type, RRset, Own, Hash,
	// Hashed, EDE and Age, and for an Alias (always a CNAME of name itself)
	// Target; it never sets Refused, Referral or Borrowed. For type ANY it says Found, with
	// no RRset, when the name owns any record.
	Lookup(name *wire.Name, below int, typ wire.Type, a *Answer)
	// SOA is the zone's SOA record, owner the apex; with Request.Section
	// Authority its TTL is that of negative answers (RFC 2308 section 3).
	SOA() RRset
}

// Signer signs what a zone answers and keeps the signatures. It is safe for concurrent
// use. Times are in nanoseconds since 1970.
type Signer interface {
	// Find returns the signatures of a set that was written as those octets, or in another
	// order of its records where its kind lets that be known, each RRSIG
	// RDATA behind its length in two octets; nil: there are none yet, or they are old.
	// It takes no lock and allocates nothing. key is for Sign.
	Find(owner, written []byte, now int64) (signatures []byte, key uint64)
	// Sign makes the signatures of the set that stands in msg from an octet on, and keeps
	// them. It takes some 50 microseconds a key.
	Sign(key uint64, owner, msg []byte, from int, now int64) ([]byte, error)
}

// Own is room in an Answer for an RRset that its Source does not keep: RRset
// then points at it, and is good until the Answer is used again.
type Own struct {
	Of     any
	Number uint32
	Type   wire.Type // of the records
}

// Answer is the outcome of a lookup, as a value: a lookup allocates nothing. It
// is not copied, as RRset may point into it.
type Answer struct {
	Kind  Kind
	Type  wire.Type // of RRset: the type asked for, CNAME or DNAME for Alias, NS for Referral
	RRset RRset
	// Owner is how many of the question's leading labels are to be stripped to
	// get the owner of RRset: 0 for the name itself and for what a wildcard
	// made, more for a DNAME's owner or a zone cut.
	Owner int
	// Made is how many of the question's leading labels stand for the asterisk of
	// the wildcard that the answer was made from (RFC 4592); 0: it was not.
	Made int
	// Target is where an Alias leads or whose addresses are Borrowed, a name in wire
	// form as it was written; it belongs to the zone.
	Target []byte
	// Zone is the zone that the name lies in; nil when Refused.
	Zone *Zone
	node *node // of a Referral: the cut

	Own    Own
	Hash   uint64 // for Request.Hash
	Hashed bool
	EDE    uint16 // extended DNS error to add, whatever the kind; EDENone: none
	Age    uint32 // seconds, when EDE is 3 (stale answer)
}
