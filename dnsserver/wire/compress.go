package wire

import "encoding/binary"

// maxPointer is the farthest octet that a compression pointer can name: it has
// 14 bits (RFC 1035 section 4.1.4).
const maxPointer = 0x3fff

// pointable reports whether owner can be written as a pointer. The root, one
// octet, is not.
func (b *Builder) pointable(owner Ref) bool { return owner != RefNone && owner <= maxPointer }

// NameRef finds a reference for an owner that is a name in wire form, in any
// case: the question, a name written before, or a suffix of one. Records with
// an owner that cannot be referred to are written with RROwner.
func (b *Builder) NameRef(name []byte) (Ref, bool) {
	if len(name) == 1 {
		return RefNone, true
	}
	at := b.find(name)
	return Ref(at), at != 0
}

// putName writes name at buf[at:], its longest known suffix as a pointer if
// compress is set, and returns where it ends and what refers to it; 0 when it
// does not fit. What it wrote out is remembered for others to point at.
func (b *Builder) putName(at int, name []byte, compress bool) (end int, ref Ref) {
	known, skip := 0, 0 // the suffix's place, and what stands before it in name
	if compress {
		for skip < len(name) && name[skip] != 0 {
			if known = b.find(name[skip:]); known != 0 {
				break
			}
			skip += 1 + int(name[skip])
		}
	} else {
		skip = len(name) - 1
	}
	size := skip + 1 // the root's octet
	if known != 0 {
		size++ // a pointer
	}
	if len(name) == 0 || skip >= len(name) || b.limit()-at < size {
		return 0, RefNone
	}
	copy(b.buf[at:], name[:skip])
	if known != 0 {
		binary.BigEndian.PutUint16(b.buf[at+skip:], 0xc000|uint16(known))
		if skip == 0 {
			return at + size, Ref(known)
		}
	} else {
		b.buf[at+skip] = 0
		if skip == 0 {
			return at + size, RefNone
		}
	}
	if b.nnames < maxNames && at <= maxPointer {
		b.names[b.nnames] = written{uint16(at), uint8(len(name))}
		b.nnames++
	}
	return at + size, Ref(at)
}

// find returns where in the message name stands by itself or as the end of a
// longer name, in any case; 0 when it is not known or too far to point at.
func (b *Builder) find(name []byte) int {
	for _, w := range b.names[:b.nnames] {
		at, rest := int(w.at), int(w.len)
		for rest > len(name) {
			l := b.buf[at]
			if l >= 0xc0 {
				at = int(binary.BigEndian.Uint16(b.buf[at:]) & maxPointer)
				continue
			}
			at += 1 + int(l)
			rest -= 1 + int(l)
		}
		if rest != len(name) {
			continue
		}
		if b.buf[at] >= 0xc0 { // point at the name itself, not at a pointer to it
			at = int(binary.BigEndian.Uint16(b.buf[at:]) & maxPointer)
		}
		if at <= maxPointer && b.equalAt(at, name) {
			return at
		}
	}
	return 0
}

// equalAt reports whether the name at buf[at:] is name, in any case. Pointers
// in the message are our own, so they go backwards and end.
func (b *Builder) equalAt(at int, name []byte) bool {
	for i := 0; i < len(name); {
		l := b.buf[at]
		if l >= 0xc0 {
			at = int(binary.BigEndian.Uint16(b.buf[at:]) & maxPointer)
			continue
		}
		end := i + 1 + int(l)
		if l != name[i] || end > len(name) {
			return false
		}
		for _, c := range name[i+1 : end] {
			at++
			if lower(c) != lower(b.buf[at]) {
				return false
			}
		}
		at++
		i = end
	}
	return true
}

// expand copies the name at buf[from:] to buf[at:] without pointers, and returns
// where it ends; 0 when it does not fit.
func (b *Builder) expand(at, from int) int {
	for {
		l := int(b.buf[from])
		if l >= 0xc0 {
			from = int(binary.BigEndian.Uint16(b.buf[from:]) & maxPointer)
			continue
		}
		if b.limit()-at < 1+l {
			return 0
		}
		copy(b.buf[at:], b.buf[from:from+1+l])
		at, from = at+1+l, from+1+l
		if l == 0 {
			return at
		}
	}
}

// lower folds an ASCII letter (RFC 4343).
func lower(c byte) byte {
	if c-'A' < 26 {
		c |= 0x20
	}
	return c
}

// nameLen is the length of the uncompressed name at the start of w; len(w) when
// it has no end.
func nameLen(w []byte) int {
	i := 0
	for i < len(w) {
		l := int(w[i])
		i += 1 + l
		if l == 0 {
			return i
		}
	}
	return len(w)
}
