package zonefile

import (
	"bytes"
	"regexp"

	"github.com/musterdns/muster/dnsserver/wire"
)

// aliasEntry is the beginning of an entry of type ALIAS, up to the type: an owner
// or none, TTL and class in either order.
var aliasEntry = regexp.MustCompile(`^([^\s;"()$]*[ \t]+(?:(?:[0-9][0-9A-Za-z]*|(?i:IN))[ \t]+){0,2})((?i:ALIAS))[ \t]`)

// aliasAhead is how far into an entry its type is looked for.
const aliasAhead = 1024

// aliasStand is what the parser reads in place of ALIAS, which it does not know: a
// type with RDATA of the same form that nothing uses (RFC 1035 section 3.3.4).
// Entries that really have it are told apart by their places.
const (
	aliasStand     = "MD"
	aliasStandType = wire.TypeMD
)

// alias looks whether the entry that begins with c, the last octet read, is an
// ALIAS, and then has the parser read something else.
func (in *input) alias(c byte) error {
	ahead, _ := in.Peek(aliasAhead) // at the end of the file, what there is
	if end := bytes.IndexByte(ahead, '\n'); end >= 0 {
		ahead = ahead[:end+1]
	}
	if !named(ahead) {
		return nil // nearly all, which is not to cost much
	}
	m := aliasEntry.FindSubmatchIndex(append([]byte{c}, ahead...))
	if m == nil {
		return nil
	}
	head := []byte{c}
	for len(head) < m[5] { // counted as what it is read from
		c, err := in.readByte()
		if err != nil {
			return err
		}
		head = append(head, c)
	}
	in.text = string(head[:m[3]]) + aliasStand
	in.src.aliases[place{in.name, in.line}] = struct{}{}
	return nil
}

// named reports whether the word ALIAS is in text.
func named(text []byte) bool {
	word := []byte("ALIAS")
	for ; len(text) > len(word); text = text[1:] {
		if text[0]|0x20 == 'a' && bytes.EqualFold(text[:len(word)], word) {
			return true
		}
	}
	return false
}

// place is a line of a file.
type place struct {
	file string
	line int
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
