package wire

import "encoding/binary"

// Ref is a place in the message being built where a name stands: an owner that
// is written as a compression pointer (RFC 1035 section 4.1.4). RefQName is the
// question's name; RefNone the root.
type Ref uint16

// Well-known references.
const (
	RefNone  Ref = 0
	RefQName Ref = HeaderSize
)

// maxNames is how many names a message remembers for others to point at. It
// bounds the work of compression; names beyond it are written out in full.
const maxNames = 24

// written is a name in the message: where its first label stands, and how long
// it is when uncompressed.
type written struct {
	at  uint16
	len uint8
}

// Builder builds one response into a buffer that it is given. It never grows
// it: a record that does not fit is not written, whole or in part. The zero
// Builder is ready for Start; one Builder serves for any number of responses,
// one after the other. It allocates nothing.
type Builder struct {
	buf     []byte // as long as the response may become
	n       int    // what is written, without the OPT record
	kept    int    // octets at the end kept for the OPT record
	q       *Query
	counts  [3]uint16
	sec     Section // the last one begun
	flags   uint16
	rcode   RCode
	names   [maxNames]written
	nnames  uint8
	nopt    int // octets of opt in use
	scopeAt int // where in opt the scope of a client subnet stands; 0: there is none
	pad     int // the block that Finish pads to; 0: it does not
	compact bool
	opt     [256]byte
}

// Start begins a response to q in buf, of at most limit octets (the transport's
// and client's limit; room for the OPT record is kept back when q has EDNS). It
// copies id, opcode, RD, CD and the question. buf and limit are at least 512;
// buf and q belong to the builder until Finish.
func (b *Builder) Start(buf []byte, q *Query, limit int) {
	b.buf = buf[:min(len(buf), limit, MaxMessage)]
	b.q = q
	b.counts, b.sec, b.rcode = [3]uint16{}, Answer, RCodeNoError
	b.kept, b.nopt, b.nnames = 0, 0, 0
	b.scopeAt, b.pad, b.compact = 0, 0, false
	if q.EDNS {
		b.kept = optFixed
	}
	b.flags = flagQR | uint16(q.Opcode)<<opcodeShift
	if q.RD {
		b.flags |= flagRD // RFC 1035 section 4.1.1
	}
	if q.CD {
		b.flags |= flagCD // RFC 4035 section 3.1.6
	}
	b.n = HeaderSize
	if len(q.RawName) == 0 {
		return
	}
	b.n += copy(b.buf[HeaderSize:], q.RawName) // case kept, so that 0x20 senders know it again
	binary.BigEndian.PutUint32(b.buf[b.n:], uint32(q.Type)<<16|uint32(q.Class))
	b.n += questionFixed
	b.names[0] = written{HeaderSize, uint8(len(q.RawName))}
	b.nnames = 1
}

// SetRCode sets the response code. Codes above 15 need EDNS; a client without
// it gets SERVFAIL for them.
func (b *Builder) SetRCode(c RCode) { b.rcode = c }

// RCode is the response code as it was set.
func (b *Builder) RCode() RCode { return b.rcode }

// SetAA sets or clears the authoritative answer flag.
func (b *Builder) SetAA(on bool) { b.setFlag(flagAA, on) }

// SetRA sets or clears the recursion available flag.
func (b *Builder) SetRA(on bool) { b.setFlag(flagRA, on) }

// SetCO sets the compact answers flag of the OPT record, if there is to be one.
func (b *Builder) SetCO() { b.compact = true }

// SetTC marks the response as truncated.
func (b *Builder) SetTC() { b.setFlag(flagTC, true) }

func (b *Builder) setFlag(f uint16, on bool) {
	b.flags &^= f
	if on {
		b.flags |= f
	}
}

// Mark is a place to go back to.
type Mark struct {
	n      int
	counts [3]uint16
	sec    Section
	nnames uint8
}

// Mark returns the present end of the message.
func (b *Builder) Mark() Mark { return Mark{b.n, b.counts, b.sec, b.nnames} }

// Since is what has been written since m; good until more is. Message is all, with a
// header that is not yet filled in.
func (b *Builder) Since(m Mark) []byte { return b.buf[m.n:b.n] }

// Message is the message up to what was written last.
func (b *Builder) Message() []byte { return b.buf[:b.n] }

// Offset is where m stands in the message.
func (m Mark) Offset() int { return m.n }

// Rewind forgets the records written after m; flags, code and options stay.
func (b *Builder) Rewind(m Mark) { b.n, b.counts, b.sec, b.nnames = m.n, m.counts, m.sec, m.nnames }

// Clear forgets all records; flags, code and options stay.
func (b *Builder) Clear() {
	start := Mark{n: HeaderSize}
	if len(b.q.RawName) > 0 {
		start.n += len(b.q.RawName) + questionFixed
		start.nnames = 1
	}
	b.Rewind(start)
}

// Room is how many octets can still be written.
func (b *Builder) Room() int { return len(b.buf) - b.kept - b.n }

// A writes an IPv4 address record of class IN.
func (b *Builder) A(s Section, owner Ref, ttl uint32, ip [4]byte) bool {
	const size = 16 // owner 2, fixed part 10, address 4
	if !b.pointable(owner) {
		return b.RR(s, owner, TypeA, ClassIN, ttl, ip[:])
	}
	if s < b.sec || b.Room() < size {
		return false
	}
	w := b.buf[b.n : b.n+size]
	binary.BigEndian.PutUint64(w, uint64(0xc000|owner)<<48|uint64(TypeA)<<32|uint64(ClassIN)<<16|uint64(ttl>>16))
	binary.BigEndian.PutUint64(w[8:], uint64(ttl&0xffff)<<48|4<<32|uint64(binary.BigEndian.Uint32(ip[:])))
	b.n += size
	b.count(s)
	return true
}

// AAAA writes an IPv6 address record of class IN.
func (b *Builder) AAAA(s Section, owner Ref, ttl uint32, ip [16]byte) bool {
	const size = 28
	if !b.pointable(owner) {
		return b.RR(s, owner, TypeAAAA, ClassIN, ttl, ip[:])
	}
	if s < b.sec || b.Room() < size {
		return false
	}
	w := b.buf[b.n : b.n+size]
	binary.BigEndian.PutUint64(w, uint64(0xc000|owner)<<48|uint64(TypeAAAA)<<32|uint64(ClassIN)<<16|uint64(ttl>>16))
	binary.BigEndian.PutUint32(w[8:], ttl<<16|16)
	copy(w[12:], ip[:])
	b.n += size
	b.count(s)
	return true
}

// RR writes one record whose RDATA holds no compressible name or needs none
// compressed. It reports false, and writes nothing, when the record does not
// fit or its section lies before one already begun.
func (b *Builder) RR(s Section, owner Ref, t Type, c Class, ttl uint32, rdata []byte) bool {
	at, ok := b.begin(s, owner, t, c, ttl)
	if !ok || b.limit()-at < len(rdata) {
		return false
	}
	at += copy(b.buf[at:], rdata)
	b.commit(s, at, len(rdata))
	return true
}

// RRName writes a record whose RDATA is prefix followed by a domain name in
// wire form (SRV: never compressed, RFC 2782; NS, CNAME, PTR, MX: may be), and
// returns where the name stands, so that an additional record can point at it.
func (b *Builder) RRName(s Section, owner Ref, t Type, c Class, ttl uint32, prefix, name []byte, compress bool) (Ref, bool) {
	start, ok := b.begin(s, owner, t, c, ttl)
	if !ok || b.limit()-start < len(prefix) {
		return RefNone, false
	}
	names := b.nnames
	at := start + copy(b.buf[start:], prefix)
	end, ref := b.putName(at, name, compress)
	if end == 0 {
		b.nnames = names
		return RefNone, false
	}
	b.commit(s, end, end-start)
	return ref, true
}

// SRV is the numbers of an SRV record (RFC 2782).
type SRV struct{ Priority, Weight, Port uint16 }

// SRV writes an SRV record of class IN and returns where its target stands, so
// that an additional record can point at it. The target is label, with its
// length, followed by parent, a name in wire form; it is not compressed (RFC
// 2782), and no later name can be compressed by it.
func (b *Builder) SRV(s Section, owner Ref, ttl uint32, srv SRV, label []byte, parent string) (Ref, bool) {
	const numbers = 6
	at, ok := b.begin(s, owner, TypeSRV, ClassIN, ttl)
	size := numbers + len(label) + len(parent)
	if !ok || b.limit()-at < size {
		return RefNone, false
	}
	w := b.buf[at : at+size]
	binary.BigEndian.PutUint16(w, srv.Priority)
	binary.BigEndian.PutUint16(w[2:], srv.Weight)
	binary.BigEndian.PutUint16(w[4:], srv.Port)
	copy(w[numbers+copy(w[numbers:], label):], parent)
	b.commit(s, at+size, size)
	return Ref(at + numbers), true
}

// RRCompress writes a record of any type from uncompressed RDATA, with its names
// compressed in NS, CNAME, PTR, MX and SOA. RFC 3597 section 4 allows that for the other
// types of RFC 1035 too, but there are clients that do not know them, and take their
// RDATA for octets. For types that name a host (NS, MX, SRV, CNAME, PTR) it returns where that name stands, so that an additional record can
// point at it; RefNone otherwise. rdata must be well formed for its type.
func (b *Builder) RRCompress(s Section, owner Ref, t Type, c Class, ttl uint32, rdata []byte) (Ref, bool) {
	switch t {
	case TypeNS, TypeCNAME, TypePTR:
		return b.RRName(s, owner, t, c, ttl, nil, rdata, true)
	case TypeMX:
		return b.RRName(s, owner, t, c, ttl, rdata[:min(2, len(rdata))], rdata[min(2, len(rdata)):], true)
	case TypeSRV:
		return b.RRName(s, owner, t, c, ttl, rdata[:min(6, len(rdata))], rdata[min(6, len(rdata)):], false)
	case TypeSOA:
		return RefNone, b.soa(s, owner, t, c, ttl, rdata)
	}
	return RefNone, b.RR(s, owner, t, c, ttl, rdata)
}

// soa writes a record whose RDATA is two names and then octets.
func (b *Builder) soa(s Section, owner Ref, t Type, c Class, ttl uint32, rdata []byte) bool {
	first := nameLen(rdata)
	second := first + nameLen(rdata[first:])
	start, ok := b.begin(s, owner, t, c, ttl)
	if !ok {
		return false
	}
	names := b.nnames
	at, _ := b.putName(start, rdata[:first], true)
	if at != 0 {
		at, _ = b.putName(at, rdata[first:second], true)
	}
	if at == 0 || b.limit()-at < len(rdata)-second {
		b.nnames = names
		return false
	}
	at += copy(b.buf[at:], rdata[second:])
	b.commit(s, at, at-start)
	return true
}

// RROwner is RR with the owner given as a name in wire form, compressed where
// it can be; it returns the owner's place.
func (b *Builder) RROwner(s Section, owner []byte, t Type, c Class, ttl uint32, rdata []byte) (Ref, bool) {
	names := b.nnames
	start, ref := b.putName(b.n, owner, true)
	if start == 0 || s < b.sec || b.limit()-start < rrFixed+len(rdata) {
		b.nnames = names
		return RefNone, false
	}
	b.fixed(start, t, c, ttl)
	at := start + rrFixed
	at += copy(b.buf[at:], rdata)
	b.commit(s, at, len(rdata))
	return ref, true
}

// Finish writes the OPT record if the query had one, and the counts, and
// returns the message. The builder may go on being written to afterwards, and
// be finished again.
func (b *Builder) Finish() []byte {
	h := b.buf[:HeaderSize]
	rcode := b.rcode
	if rcode > 15 && !b.q.EDNS {
		rcode = RCodeServFail
	}
	binary.BigEndian.PutUint16(h, b.q.ID)
	binary.BigEndian.PutUint16(h[2:], b.flags|uint16(rcode&15))
	qd, ar := uint64(0), uint64(b.counts[Additional])
	if len(b.q.RawName) > 0 {
		qd = 1
	}
	end := b.n
	if b.q.EDNS {
		end = b.putOPT(rcode)
		ar++
	}
	binary.BigEndian.PutUint64(h[4:], qd<<48|uint64(b.counts[Answer])<<32|uint64(b.counts[Authority])<<16|ar)
	return b.buf[:end:end]
}

// limit is where records must end.
func (b *Builder) limit() int { return len(b.buf) - b.kept }

func (b *Builder) count(s Section) {
	b.sec = s
	b.counts[s]++
}

// commit ends a record at end, of which the last size octets are RDATA.
func (b *Builder) commit(s Section, end, size int) {
	binary.BigEndian.PutUint16(b.buf[end-size-2:], uint16(size))
	b.n = end
	b.count(s)
}

// begin writes owner and fixed part behind the message's end, without moving
// that, and returns where the RDATA goes.
func (b *Builder) begin(s Section, owner Ref, t Type, c Class, ttl uint32) (rdata int, ok bool) {
	if s < b.sec {
		return 0, false
	}
	at := b.n
	switch {
	case owner == RefNone:
		if b.Room() < 1+rrFixed {
			return 0, false
		}
		b.buf[at] = 0
		at++
	case b.pointable(owner):
		if b.Room() < 2+rrFixed {
			return 0, false
		}
		binary.BigEndian.PutUint16(b.buf[at:], 0xc000|uint16(owner))
		at += 2
	default:
		if at = b.expand(at, int(owner)); at == 0 || b.limit()-at < rrFixed {
			return 0, false
		}
	}
	b.fixed(at, t, c, ttl)
	return at + rrFixed, true
}

// fixed writes a record's fixed part; the RDATA's length is written by commit.
func (b *Builder) fixed(at int, t Type, c Class, ttl uint32) {
	w := b.buf[at : at+rrFixed]
	binary.BigEndian.PutUint64(w, uint64(t)<<48|uint64(c)<<32|uint64(ttl))
}
