// Package wire parses queries and builds responses (RFC 1035, RFC 6891) for
// the query path: no allocation, standard library only.
package wire

// Type is an RR type, Class a class, RCode a response code, Opcode an opcode.
type (
	Type   uint16
	Class  uint16
	RCode  uint16
	Opcode uint8
)

// Section is a section of a message that records go to, in message order.
type Section uint8

// The sections of records.
const (
	Answer Section = iota
	Authority
	Additional
)

// Ref is a place in the message being built where a name stands: an owner that
// is written as a compression pointer (RFC 1035 section 4.1.4). RefQName is the
// question's name; RefNone the root.
type Ref uint16

// Well-known references.
const (
	RefNone  Ref = 0
	RefQName Ref = 12
)

// Name is an uncompressed, lower-cased domain name in wire form with its label
// offsets: a value that fits the stack.
type Name struct {
	buf    [255]byte
	off    [128]uint8 // offsets of the labels, the root's last
	n      uint8      // octets, root included
	labels uint8      // without the root
}

// ParseName reads presentation form (RFC 1035 section 5.1 escapes); the name is
// taken as fully qualified with or without its last dot.
func ParseName(s string) (Name, error) { panic("contract") }

// Wire returns the name's octets, root included; valid while n lives unchanged.
func (n *Name) Wire() []byte { return n.buf[:n.n] }

// Labels returns the number of labels, the root not counted.
func (n *Name) Labels() int { return int(n.labels) }

// Label returns the i-th label's octets without its length; 0 is the leftmost.
func (n *Name) Label(i int) []byte {
	o := n.off[i]
	return n.buf[o+1 : o+1+n.buf[o]]
}

// Suffix returns the wire form of the name without its first i labels.
func (n *Name) Suffix(i int) []byte { return n.buf[n.off[i]:n.n] }

// Prefix returns the first i labels in wire form, without a root.
func (n *Name) Prefix(i int) []byte { return n.buf[:n.off[i]] }

// String is the presentation form, with the last dot.
func (n *Name) String() string { panic("contract") }

// Query is a parsed query. It refers to the received message and is valid as
// long as that is.
type Query struct {
	ID      uint16
	Opcode  Opcode
	RD, CD  bool
	AD      bool
	Msg     []byte // the whole message
	RawName []byte // the question's name as received, case kept
	Name    Name   // the same, lower-cased
	Type    Type
	Class   Class

	EDNS    bool
	Version uint8
	UDPSize uint16 // as offered; below 512 is read as 512 (RFC 6891 section 6.2.3)
	DO      bool
	Options []byte // the OPT record's RDATA
}

// Disposition says what is to be done with a received message.
type Disposition uint8

// The dispositions of ParseQuery. For all but Ignore the Query's ID, Opcode and
// flags are set, so that an error response can be built.
const (
	Ignore  Disposition = iota // no response: too short for a header, or a response itself
	Proceed                    // a well-formed query
	FormErr
	NotImp
	BadVers // EDNS version above 0 (RFC 6891 section 6.1.3)
	Refuse  // UPDATE and the like
)

// ParseQuery reads a message into q.
func ParseQuery(msg []byte, q *Query) Disposition { panic("contract") }

// Builder builds one response into a buffer that it is given. It never grows
// it: a record that does not fit is not written, whole or in part.
type Builder struct {
	buf []byte
	n   int
	// The owner of this package adds what it needs.
}

// Start begins a response to q in buf, of at most limit octets (the transport's
// and client's limit; room for the OPT record is kept back when q has EDNS). It
// copies id, opcode, RD, CD and the question.
func (b *Builder) Start(buf []byte, q *Query, limit int) { panic("contract") }

// SetRCode sets the response code; codes above 15 need EDNS. SetAA and SetRA
// set flags, SetTC marks truncation.
func (b *Builder) SetRCode(c RCode) { panic("contract") }

// SetAA sets or clears the authoritative answer flag.
func (b *Builder) SetAA(on bool) { panic("contract") }

// SetRA sets or clears the recursion available flag.
func (b *Builder) SetRA(on bool) { panic("contract") }

// SetTC marks the response as truncated.
func (b *Builder) SetTC() { panic("contract") }

// Mark is a place to go back to.
type Mark struct{ n, counts int }

// Mark returns the present end of the message; Rewind forgets what was written
// after it.
func (b *Builder) Mark() Mark { panic("contract") }

// Rewind goes back to m.
func (b *Builder) Rewind(m Mark) { panic("contract") }

// Room is how many octets can still be written.
func (b *Builder) Room() int { panic("contract") }

// RR writes one record whose RDATA holds no compressible name or needs none
// compressed. It reports false, and writes nothing, when the record does not
// fit or its section lies before one already begun.
func (b *Builder) RR(s Section, owner Ref, t Type, c Class, ttl uint32, rdata []byte) bool {
	panic("contract")
}

// A and AAAA write address records.
func (b *Builder) A(s Section, owner Ref, ttl uint32, ip [4]byte) bool { panic("contract") }

// AAAA writes an IPv6 address record.
func (b *Builder) AAAA(s Section, owner Ref, ttl uint32, ip [16]byte) bool { panic("contract") }

// RRName writes a record whose RDATA is prefix followed by a domain name in
// wire form (SRV: never compressed, RFC 2782; NS, CNAME, PTR, MX: may be), and
// returns where the name stands, so that an additional record can point at it.
func (b *Builder) RRName(s Section, owner Ref, t Type, c Class, ttl uint32, prefix, name []byte, compress bool) (Ref, bool) {
	panic("contract")
}

// NameRef finds or makes a reference for an owner that is a name in wire form:
// a suffix of the question or of a name written before when there is one.
// Records with an owner that cannot be referred to are written with RROwner.
func (b *Builder) NameRef(name []byte) (Ref, bool) { panic("contract") }

// RROwner is RR with the owner given as a name in wire form, compressed where
// it can be; it returns the owner's place.
func (b *Builder) RROwner(s Section, owner []byte, t Type, c Class, ttl uint32, rdata []byte) (Ref, bool) {
	panic("contract")
}

// EDE adds an extended DNS error (RFC 8914) to the OPT record, when the query
// had EDNS and there is room; text may be empty and is truncated at 64 octets.
func (b *Builder) EDE(code uint16, text []byte) { panic("contract") }

// Option adds an EDNS option likewise.
func (b *Builder) Option(code uint16, data []byte) bool { panic("contract") }

// Finish writes the OPT record if the query had one, and the counts, and
// returns the message.
func (b *Builder) Finish() []byte { panic("contract") }
