package zones

import (
	"bytes"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// findSignatures links sets with their signatures, and orders the NSEC records.
func (z *Zone) findSignatures() {
	for i := range z.names.nodes {
		n := &z.names.nodes[i]
		sets := z.sets[n.first : n.first+uint32(n.count)]
		for k := range sets {
			if sets[k].covers == 0 {
				continue
			}
			if of := z.setIndex(n, sets[k].covers); of >= 0 {
				z.sets[of].sig = n.first + uint32(k) + 1
			}
		}
		if z.set(n, wire.TypeNSEC) != nil {
			z.nsecs = append(z.nsecs, uint32(i))
		}
	}
	if apex := z.set(&z.names.nodes[0], wire.TypeSOA); apex == nil || apex.sig == 0 {
		z.nsecs = nil // NSEC without signatures prove nothing
	}
	if len(z.nsecs) == 0 {
		z.findChain()
	}
	slices.SortFunc(z.nsecs, func(a, b uint32) int { return CompareNames(z.names.name(a), z.names.name(b)) })
}

// CompareNames orders two names in wire form and lower case canonically: label by
// label from the last (RFC 4034 section 6.1).
func CompareNames(a, b []byte) int {
	var aAt, bAt [128]uint8
	i, k := labelsOf(a, &aAt), labelsOf(b, &bAt)
	for i > 0 && k > 0 {
		i, k = i-1, k-1
		x, y := a[aAt[i]:], b[bAt[k]:]
		if c := bytes.Compare(x[1:1+x[0]], y[1:1+y[0]]); c != 0 {
			return c
		}
	}
	return i - k
}

// labelsOf notes where the labels of a name begin, and returns how many it has.
func labelsOf(name []byte, at *[128]uint8) int {
	n := 0
	for i := 0; i < len(name) && name[i] != 0; i += 1 + int(name[i]) {
		at[n] = uint8(i)
		n++
	}
	return n
}

// denials is room for the nodes whose NSEC or NSEC3 records one answer needs: each once.
type denials struct {
	nodes [3]uint32
	n     int
}

func (d *denials) add(node uint32) {
	if slices.Contains(d.nodes[:d.n], node) || d.n == len(d.nodes) {
		return
	}
	d.nodes[d.n] = node
	d.n++
}

// Deny writes the NSEC or NSEC3 records, with their signatures, that an answer of a signed
// static zone needs into the authority section (RFC 4035 section 3.1.3): that name
// does not exist, that it has not the type, or that no nearer name than the wildcard
// does that the answer was made from. name is what was looked up, and a what was
// found. False: they do not fit.
func (z *Zone) Deny(b *wire.Builder, name *wire.Name, a *Answer) bool {
	if !z.Signed() {
		return true
	}
	var d denials
	switch {
	case len(z.nsecs) == 0:
		z.denyHashed(name, a, &d)
	case a.Kind == NXDomain: // section 3.1.3.2
		d.add(z.covering(name.Wire()))
		var buf [2 + 255]byte
		d.add(z.covering(wildcardOf(&buf, name, z.encloser(name))))
	case a.Made > 0: // sections 3.1.3.3 and 3.1.3.4
		if a.Kind == NoData {
			var buf [2 + 255]byte
			d.add(z.covering(wildcardOf(&buf, name, a.Made)))
		}
		d.add(z.covering(name.Wire()))
	case a.Kind == NoData: // section 3.1.3.1, and for an empty non-terminal
		d.add(z.covering(name.Wire()))
	}
	return z.proveAll(b, &d)
}

// proveAll writes what denials has.
func (z *Zone) proveAll(b *wire.Builder, d *denials) bool {
	for _, node := range d.nodes[:d.n] {
		if !z.prove(b, node) {
			return false
		}
	}
	return true
}

// covering is the node whose NSEC record is of name or covers it: the last that is not
// behind it in canonical order.
func (z *Zone) covering(name []byte) uint32 {
	at, found := slices.BinarySearchFunc(z.nsecs, name, func(node uint32, name []byte) int {
		return CompareNames(z.names.name(node), name)
	})
	switch {
	case found:
		return z.nsecs[at]
	case at == 0:
		return z.nsecs[len(z.nsecs)-1] // unreachable: the apex is before all
	}
	return z.nsecs[at-1]
}

// encloser is how many labels are to be stripped off name to get to its closest
// encloser (RFC 4592 section 3.3.1).
func (z *Zone) encloser(name *wire.Name) int {
	below, _ := name.Below(&z.apex)
	for strip := 1; strip < below; strip++ {
		if _, ok := z.names.find(name.Suffix(strip)); ok {
			return strip
		}
	}
	return below
}

// Types is the bit map of types of the NSEC record of a name, or of the wildcard that
// stands for it; nil: there is none.
func (z *Zone) Types(name *wire.Name) []byte {
	n := z.standing(name)
	if n == nil {
		return nil
	}
	set := z.set(n, wire.TypeNSEC)
	if set == nil {
		return nil
	}
	rdata, _ := next(z.data[set.data:])
	return rdata[nameLen(rdata):]
}

// standing is the node of a name, or of the wildcard that stands for it; nil: there is
// none.
func (z *Zone) standing(name *wire.Name) *node {
	at, ok := z.names.find(name.Wire())
	if !ok {
		var buf [2 + 255]byte
		if at, ok = z.names.find(wildcardOf(&buf, name, z.encloser(name))); !ok {
			return nil
		}
	}
	return &z.names.nodes[at]
}

// prove writes a node's NSEC or NSEC3 record and its signatures.
func (z *Zone) prove(b *wire.Builder, node uint32) bool {
	set := z.set(&z.names.nodes[node], wire.TypeNSEC)
	if len(z.nsecs) == 0 {
		set = z.set(&z.names.nodes[node], wire.TypeNSEC3)
	}
	rdata, _ := next(z.data[set.data:])
	ref, ok := b.RROwner(wire.Authority, z.names.name(node), set.typ, wire.ClassIN, set.ttl, rdata)
	return ok && (set.sig == 0 || z.sets[set.sig-1].appendTo(b, wire.Authority, ref, set.ttl))
}

// Refer writes the referral that a is, with what a signed zone says of the delegation:
// its DS records, or that there are none (RFC 4035 section 3.1.4). name is what was
// looked up. What it cannot do without must fit.
func (z *Zone) Refer(b *wire.Builder, name *wire.Name, owner wire.Ref, r *Request, a *Answer) Result {
	ns, ok := a.RRset.(*Set)
	if !ok || a.node == nil || !r.DO || !z.Signed() {
		return a.RRset.Append(b, owner, r)
	}
	res := Result{EDE: EDENone, TTL: ns.ttl}
	var refs, none [hostsMax]wire.Ref
	start := b.Mark()
	if !ns.write(b, owner, r, ns.ttl, &refs) || !z.secure(b, name, owner, r, a, &none) {
		b.Rewind(start)
		return Result{EDE: EDENone, Truncated: true}
	}
	res.Answers = int(ns.count)
	ns.appendExtras(b, &refs, true, &res)
	return res
}

// secure writes a cut's DS set or the proof that there is none.
func (z *Zone) secure(b *wire.Builder, name *wire.Name, owner wire.Ref, r *Request, a *Answer, refs *[hostsMax]wire.Ref) bool {
	if ds := z.set(a.node, wire.TypeDS); ds != nil {
		return ds.write(b, owner, r, ds.ttl, refs)
	}
	if len(z.nsecs) == 0 { // RFC 5155 section 7.2.7
		var d denials
		z.proveEncloser(name, a.Owner, a.Owner, &d)
		return z.proveAll(b, &d)
	}
	nsec := z.set(a.node, wire.TypeNSEC)
	if nsec == nil {
		return true // the file lacks it
	}
	return nsec.write(b, owner, r, nsec.ttl, refs)
}
