package zonefile

import (
	"bytes"

	"github.com/musterdns/muster/dnsserver/wire"
)

// checkRings tells of delegations whose servers' addresses only other such delegations
// could tell, in a ring: no resolver finds them, and some never stop to try (TsuNAME).
func (l *loader) checkRings() {
	waits := map[*owner][]*owner{} // delegations by one that they wait for
	var found []*owner             // delegations whose servers can be found
	known := map[*owner]bool{}
	for _, r := range l.records {
		if r.typ != wire.TypeNS || bytes.Equal(r.owner.name, l.apex.Wire()) {
			continue
		}
		switch on, lies := l.lies(r); {
		case !lies && !known[r.owner]:
			known[r.owner] = true
			found = append(found, r.owner)
		case lies:
			waits[on] = append(waits[on], r.owner)
		}
	}
	for len(found) > 0 {
		o := found[len(found)-1]
		found = found[:len(found)-1]
		for _, w := range waits[o] {
			if !known[w] {
				known[w] = true
				found = append(found, w)
			}
		}
	}
	for _, r := range l.records {
		on, lies := l.lies(r)
		if lies && on != r.owner && !known[r.owner] && r.owner.first(wire.TypeNS) == r { // else checkTarget tells
			l.warnf(r, "%s: the delegations of it and of %s need each other's addresses: nobody finds them", presentation(r.owner.name), presentation(on.name))
		}
	}
}

// lies is the delegation below which the server that r names lies, without an address
// here; false: r is no delegation to such a one.
func (l *loader) lies(r *record) (on *owner, ok bool) {
	if r.typ != wire.TypeNS || bytes.Equal(r.owner.name, l.apex.Wire()) {
		return nil, false
	}
	host, _ := target(r)
	below, inside := host.Below(&l.apex)
	o := l.names[string(host.Wire())]
	if !inside || o.first(wire.TypeA) != nil || o.first(wire.TypeAAAA) != nil {
		return nil, false
	}
	for strip := below - 1; strip >= 0; strip-- { // the first from the top
		if above := l.names[string(host.Suffix(strip))]; above.first(wire.TypeNS) != nil {
			return above, true
		}
	}
	return nil, false
}
