package zones

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the one hash of NSEC3, RFC 5155 section 11
	"encoding/base32"
	"encoding/binary"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// NSEC3Iterations is with how many iterations at most NSEC3 records are proofs: each is
// work for each answer, and validators believe no more (RFC 9276 section 3.2).
const NSEC3Iterations = 150

// hashOf is the hash of a name (RFC 5155 section 5).
type hashOf [sha1.Size]byte

// chain is the NSEC3 records of a zone that are made in one way, in the order of the
// hashes of their owners (RFC 5155 section 7.1).
type chain struct {
	iterations int
	salt       []byte
	hashes     []hashOf
	nodes      []uint32 // of hashes
}

// hashedOwner reads the hash that an NSEC3 record's owner is, one label below the apex;
// false: it is none.
func hashedOwner(name []byte) (h hashOf, ok bool) {
	const label = (sha1.Size*8 + 4) / 5
	if name[0] != label {
		return h, false
	}
	n, err := base32.HexEncoding.Decode(h[:], bytes.ToUpper(name[1:1+label]))
	return h, err == nil && n == len(h)
}

// hashed reports whether a record belongs to the names that are hashes: no question is
// ever answered from those (RFC 5155 section 7.2.8).
func hashed(r *Record, owner *wire.Name, below int) bool {
	if r.Type != wire.TypeNSEC3 && covered(r) != wire.TypeNSEC3 || below != 1 {
		return false
	}
	_, ok := hashedOwner(owner.Wire())
	return ok
}

// findChain finds the NSEC3 records that an NSEC3PARAM record of the apex has word of: a
// chain of others may not be whole (RFC 5155 section 4). Of several any may be taken
// (section 7.3); the first has the fewest iterations.
func (z *Zone) findChain() {
	params := z.set(&z.names.nodes[0], wire.TypeNSEC3PARAM)
	if params == nil || params.sig == 0 {
		return
	}
	for _, param := range params.each() {
		c, ok := z.chainOf(param)
		if !ok {
			continue
		}
		if _, whole := c.at(z.apex.Wire()); whole { // of what has no record of the apex, there is none yet
			z.chain = c
			return
		}
	}
}

// chainOf is the chain of an NSEC3PARAM record; false: there is none, or the record is to
// be ignored: for its hash (RFC 5155 section 8.1), or flags other than zero (section 4.1.2).
func (z *Zone) chainOf(param []byte) (c chain, ok bool) {
	if len(param) < 5 || param[0] != 1 || param[1] != 0 || len(param) != 5+int(param[4]) { // section 4.2
		return c, false
	}
	c = chain{iterations: int(binary.BigEndian.Uint16(param[2:])), salt: param[5:]}
	if c.iterations > NSEC3Iterations {
		return c, false
	}
	type link struct {
		hash hashOf
		node uint32
	}
	var links []link
	for i := range z.names.nodes {
		set := z.set(&z.names.nodes[i], wire.TypeNSEC3)
		if set == nil {
			continue
		}
		h, ok := hashedOwner(z.names.name(uint32(i)))
		for _, rdata := range set.each() {
			if ok && len(rdata) >= len(param) && rdata[0] == param[0] && bytes.Equal(rdata[2:len(param)], param[2:]) {
				links = append(links, link{h, uint32(i)})
				break
			}
		}
	}
	slices.SortFunc(links, func(a, b link) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	for _, l := range links {
		c.hashes, c.nodes = append(c.hashes, l.hash), append(c.nodes, l.node)
	}
	return c, len(links) > 0
}

// hash hashes a name in wire form.
func (c *chain) hash(name []byte) hashOf {
	var buf [255 + 255]byte
	h := hashOf(sha1.Sum(buf[:copy(buf[copy(buf[:], name):], c.salt)+len(name)])) //nolint:gosec // as above
	for range c.iterations {
		h = sha1.Sum(buf[:copy(buf[copy(buf[:], h[:]):], c.salt)+len(h)]) //nolint:gosec // as above
	}
	return h
}

// at is the node whose NSEC3 record is of a name, or covers it.
func (c *chain) at(name []byte) (node uint32, matches bool) {
	h := c.hash(name)
	i, found := slices.BinarySearchFunc(c.hashes, h, func(a, b hashOf) int { return bytes.Compare(a[:], b[:]) })
	switch {
	case found:
		return c.nodes[i], true
	case i == 0:
		i = len(c.nodes) // the last covers what is before the first
	}
	return c.nodes[i-1], false
}

// denyHashed finds what denies as Deny says, by NSEC3 (RFC 5155 section 7.2).
func (z *Zone) denyHashed(name *wire.Name, a *Answer, d *denials) {
	switch {
	case a.Kind == NXDomain: // section 7.2.2
		strip := z.proveEncloser(name, 0, z.encloser(name), d)
		node, _ := z.chain.at(wildcardOf(new([2 + 255]byte), name, strip))
		d.add(node)
	case a.Made > 0 && a.Kind == NoData: // section 7.2.5
		strip := z.proveEncloser(name, 0, a.Made, d)
		node, _ := z.chain.at(wildcardOf(new([2 + 255]byte), name, strip))
		d.add(node)
	case a.Made > 0: // section 7.2.6: the next closer name
		node, _ := z.chain.at(name.Suffix(a.Made - 1))
		d.add(node)
	case a.Kind == NoData: // sections 7.2.3 and 7.2.4
		z.proveEncloser(name, 0, 0, d)
	}
}

// proveEncloser adds what there is of name without its first of labels: the record that
// is of its closest encloser, which is name without its first strip labels, and the one
// that covers the next closer name if it is not that itself (RFC 5155 section 7.2.1).
// Names that opt-out has left without record are passed over (section 7.2.7): it returns
// how many labels were stripped for one that has one.
func (z *Zone) proveEncloser(name *wire.Name, of, strip int, d *denials) int {
	for below, _ := name.Below(&z.apex); strip <= below; strip++ {
		node, matches := z.chain.at(name.Suffix(strip))
		if !matches {
			continue
		}
		d.add(node)
		break
	}
	if strip > of {
		node, _ := z.chain.at(name.Suffix(strip - 1))
		d.add(node)
	}
	return strip
}

// wildcardOf writes the wildcard below name without its first strip labels.
func wildcardOf(buf *[2 + 255]byte, name *wire.Name, strip int) []byte {
	size := copy(buf[copy(buf[:], star):], name.Suffix(strip))
	return buf[:len(star)+size]
}
