package zonefile

import (
	"bytes"

	"github.com/musterdns/muster/dnsserver/wire"
)

// check looks at the records of file as a zone: errors for what no server can answer
// rightly, warnings for what is served but hardly meant.
func (l *loader) check(file string) {
	l.checkApex(file)
	l.checkRings()
	for _, r := range l.records {
		l.checkOwner(r)
		l.checkSet(r)
		l.checkAlias(r)
		l.checkHidden(r)
		l.checkRelative(r)
		l.checkRelativeTarget(r)
		l.checkMailbox(r)
		l.checkTarget(r)
		l.checkReverse(r)
		l.checkDNSSEC(r)
		l.checkSVCB(r)
	}
}

// presentation is a name in wire form as people write it.
func presentation(w []byte) string {
	var n wire.Name
	if !n.Set(w) {
		return "?"
	}
	return n.String()
}

// checkApex wants the SOA and NS that every zone begins with.
func (l *loader) checkApex(file string) {
	apex := l.names[string(l.apex.Wire())]
	last := &record{file: file, line: 1}
	if n := len(l.records); n > 0 {
		last = l.records[n-1]
	}
	if apex.first(wire.TypeSOA) == nil {
		l.errorf(last, "no SOA record for %s up to here (RFC 1035 section 5.2)", l.apex.String())
	}
	if apex.first(wire.TypeNS) == nil {
		l.errorf(last, "no NS record for %s up to here (RFC 1034 section 4.2.1)", l.apex.String())
	}
}

// checkOwner holds r against what else its owner has.
func (l *loader) checkOwner(r *record) {
	switch r.typ {
	case wire.TypeSOA, wire.TypeCNAME, wire.TypeDNAME, wire.TypeNS:
	default:
		return
	}
	owner := presentation(r.owner.name)
	atApex := bytes.Equal(r.owner.name, l.apex.Wire())
	first := r.owner.first(r.typ) == r // each pair of types is told once
	switch r.typ {
	case wire.TypeSOA:
		if !atApex {
			l.errorf(r, "SOA of %s: only the zone's apex has one", owner)
		}
	case wire.TypeCNAME:
		for _, other := range r.owner.records {
			if first && other.typ != wire.TypeCNAME && other.typ != wire.TypeRRSIG && other.typ != wire.TypeNSEC && other.typ != wire.TypeKEY {
				l.errorf(r, "%s has a CNAME and %s: an alias has no other data (RFC 1034 section 3.6.2)", owner, other.typ)
				break
			}
		}
	case wire.TypeDNAME:
		if first && !atApex && r.owner.first(wire.TypeNS) != nil {
			l.warnf(r, "%s has a DNAME and NS: the delegation hides the DNAME (RFC 6672 section 2.3)", owner)
		}
		if t, ok := target(r); ok && liesUnder(&t, r.owner) {
			l.warnf(r, "%s has a DNAME to below itself, %s: it leads nowhere", owner, t.String())
		}
		if first && bytes.HasPrefix(r.owner.name, []byte("\x01*")) {
			l.warnf(r, "%s: a DNAME at a wildcard redirects nothing (RFC 6672 section 3.3)", owner)
		}
	case wire.TypeNS:
		if first && bytes.HasPrefix(r.owner.name, []byte("\x01*")) {
			l.warnf(r, "%s: NS at a wildcard delegates nothing (RFC 4592 section 4.2)", owner)
		}
	}
}

// checkSet holds r against the first record of its set.
func (l *loader) checkSet(r *record) {
	f := r.owner.first(r.typ)
	if f == r {
		return
	}
	owner := presentation(r.owner.name)
	if bytes.Equal(f.rdata, r.rdata) {
		l.warnf(r, "%s %s: the same as line %d, dropped", owner, r.typ, f.line)
		return
	}
	switch r.typ {
	case wire.TypeSOA:
		l.errorf(r, "%s: a second SOA, the first is in line %d", owner, f.line)
	case wire.TypeCNAME, wire.TypeDNAME, wire.TypeALIAS: // RFC 2181 section 10.1, RFC 6672 section 2.4
		l.errorf(r, "%s: a second %s, the first is in line %d", owner, r.typ, f.line)
	}
	if f.ttl != r.ttl {
		l.warnf(r, "%s %s: TTL %d, but %d in line %d: the least is served (RFC 2181 section 5.2)", owner, r.typ, r.ttl, f.ttl, f.line)
	}
}

// checkRelative tells of names that were hardly meant to be relative: the zone's
// name is in them twice.
func (l *loader) checkRelative(r *record) {
	if r.owner.first(r.typ) != r {
		return
	}
	if l.isTwice(r.owner.name) {
		l.warnf(r, "%s %s: the zone's name is in it twice: end a name that is whole with a dot", presentation(r.owner.name), r.typ)
	}
}

// checkRelativeTarget tells of targets that were meant to be absolute.
func (l *loader) checkRelativeTarget(r *record) {
	name, ok := target(r)
	if !ok && (r.typ == wire.TypeCNAME || r.typ == wire.TypePTR || r.typ == wire.TypeALIAS) {
		ok = name.Set(r.rdata)
	}
	if ok && l.isTwice(name.Wire()) {
		l.warnf(r, "%s %s: in its target %s the zone's name is twice: end a name that is whole with a dot", presentation(r.owner.name), r.typ, name.String())
	}
}

// checkMailbox tells of a mailbox written as in a letter: in SOA its @ is a dot
// (RFC 1035 section 8).
func (l *loader) checkMailbox(r *record) {
	if r.typ != wire.TypeSOA {
		return
	}
	var mailbox wire.Name
	primary := nameSize(r.rdata)
	if rest := r.rdata[primary:]; mailbox.Set(rest[:nameSize(rest)]) && bytes.IndexByte(rest[1:1+rest[0]], '@') >= 0 {
		l.warnf(r, "SOA: the mailbox %s has an @: write a dot in its place, and one at the end", mailbox.String())
	}
}

// nameSize is the size of the name in wire form that rdata begins with.
func nameSize(rdata []byte) int {
	size := 1
	for rdata[size-1] != 0 {
		size += 1 + int(rdata[size-1])
	}
	return size
}

// isTwice reports whether a name in wire form ends in the zone's name twice.
func (l *loader) isTwice(name []byte) bool {
	apex := l.apex.Wire()
	return len(apex) > 1 && endsIn(name, append(bytes.Clone(apex[:len(apex)-1]), apex...))
}

// endsIn reports whether a name lies at or below another, both in wire form.
func endsIn(name, above []byte) bool {
	for len(name) > len(above) {
		name = name[1+int(name[0]):]
	}
	return bytes.Equal(name, above)
}

// checkHidden tells of records that no question finds.
func (l *loader) checkHidden(r *record) {
	var name wire.Name
	name.Set(r.owner.name)
	below, _ := name.Below(&l.apex)
	atCut := below > 0 && r.owner.first(wire.TypeNS) != nil
	if atCut && r.typ != wire.TypeNS && r.typ != wire.TypeDS && r.typ != wire.TypeNSEC && r.typ != wire.TypeRRSIG && !isAddress(r.typ) && r.typ != wire.TypeDNAME {
		l.warnf(r, "%s %s is hidden by the delegation of that name", name.String(), r.typ)
		return
	}
	for strip := below; strip > 0; strip-- {
		above := l.names[string(name.Suffix(strip))]
		if strip != below && above.first(wire.TypeNS) != nil {
			if !isAddress(r.typ) { // glue
				l.warnf(r, "%s %s is hidden by the delegation of %s", name.String(), r.typ, presentation(above.name))
			}
			return
		}
		if above.first(wire.TypeDNAME) != nil {
			l.warnf(r, "%s %s is hidden by the DNAME of %s (RFC 6672 section 2.4)", name.String(), r.typ, presentation(above.name))
			return
		}
	}
}

// checkTarget tells of hosts in the zone that lead nowhere.
func (l *loader) checkTarget(r *record) {
	host, ok := target(r)
	if !ok || r.typ == wire.TypeDNAME || host.Labels() == 0 { // the root: no service here (RFC 2782, RFC 7505)
		return
	}
	below, ok := host.Below(&l.apex)
	if !ok {
		return
	}
	owner := presentation(r.owner.name)
	o := l.names[string(host.Wire())]
	addressed := o.first(wire.TypeA) != nil || o.first(wire.TypeAAAA) != nil
	delegates := r.typ == wire.TypeNS && !bytes.Equal(r.owner.name, l.apex.Wire())
	switch {
	case o.first(wire.TypeCNAME) != nil:
		l.warnf(r, "%s %s: its target %s is an alias (RFC 2181 section 10.3)", owner, r.typ, host.String())
	case addressed:
	case delegates && liesUnder(&host, r.owner): // only this zone can tell its address
		l.warnf(r, "%s is delegated to %s, which lies below it and has no address here", owner, host.String())
	case !l.madeElsewhere(&host, below):
		l.warnf(r, "%s %s: its target %s has no address in this zone", owner, r.typ, host.String())
	}
}

// target returns the name that r leads to, for the types that lead to one.
func target(r *record) (name wire.Name, ok bool) {
	prefix := 0
	switch r.typ {
	case wire.TypeNS, wire.TypeDNAME:
	case wire.TypeMX:
		prefix = 2
	case wire.TypeSRV:
		prefix = 6
	default:
		return name, false
	}
	ok = len(r.rdata) > prefix && name.Set(r.rdata[prefix:])
	return name, ok
}

// liesUnder reports whether name is owner's or lies below it.
func liesUnder(name *wire.Name, owner *owner) bool {
	var above wire.Name
	above.Set(owner.name)
	_, ok := name.Below(&above)
	return ok
}

// madeElsewhere reports whether a name without addresses of its own may have
// some all the same: from a wildcard, a DNAME, or a delegated zone whose
// servers are not named in itself.
func (l *loader) madeElsewhere(name *wire.Name, below int) bool {
	for strip := 1; strip <= below; strip++ {
		above := string(name.Suffix(strip))
		if l.names["\x01*"+above] != nil || l.names[above].first(wire.TypeDNAME) != nil {
			return true
		}
		if strip < below && l.names[above].first(wire.TypeNS) != nil {
			return true
		}
	}
	return false
}

func isAddress(t wire.Type) bool { return t == wire.TypeA || t == wire.TypeAAAA }

// checkReverse wants a host to be what a reverse name leads to. What browses for
// services (RFC 6763 section 11) leads to domains of any kind.
func (l *loader) checkReverse(r *record) {
	var host wire.Name
	if r.typ != wire.TypePTR || !isReverse(&l.apex) || isBrowsing(r.owner.name) || !host.Set(r.rdata) {
		return
	}
	if !isHost(&host, '_') { // underscores are in the names of too many
		l.errorf(r, "PTR of %s: %s is no name of a host (RFC 1123 section 2.1)", presentation(r.owner.name), host.String())
	}
}

// isReverse reports whether a zone maps addresses to names.
func isReverse(apex *wire.Name) bool {
	return endsIn(apex.Wire(), []byte("\x07in-addr\x04arpa\x00")) || endsIn(apex.Wire(), []byte("\x03ip6\x04arpa\x00"))
}

// isBrowsing reports whether a name in wire form is one that RFC 6763 section 11
// gives to browsing: b, db, r, dr or lb before _dns-sd._udp.
func isBrowsing(name []byte) bool {
	n := 1 + int(name[0])
	switch string(name[1:n]) {
	case "b", "db", "r", "dr", "lb":
		return bytes.HasPrefix(name[n:], []byte("\x07_dns-sd\x04_udp"))
	}
	return false
}

// checkAlias wants an ALIAS to be the only word on its owner's addresses.
func (l *loader) checkAlias(r *record) {
	if r.typ != wire.TypeALIAS || r.owner.first(r.typ) != r {
		return
	}
	for _, t := range []wire.Type{wire.TypeA, wire.TypeAAAA} {
		if r.owner.first(t) != nil {
			l.errorf(r, "%s has an ALIAS and %s: its addresses are those of the ALIAS's target", presentation(r.owner.name), t)
		}
	}
}
