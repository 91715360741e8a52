package zonefile

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
)

// stand is a type that the parser does not know, and one with RDATA of the same form
// that it does, and reads in its place. Entries that really have that are told apart
// by their places.
type stand struct {
	name      string
	typ       wire.Type
	standName string
	standType wire.Type
}

// stands are all of them. MD is a type that nothing uses (RFC 1035 section 3.3.4).
var stands = [...]stand{
	{"ALIAS", wire.TypeALIAS, "MD", wire.TypeMD},
	{"WALLET", wire.TypeWALLET, "TXT", wire.TypeTXT},
	{"CLA", wire.TypeCLA, "TXT", wire.TypeTXT},
}

// standEntry is the beginning of an entry of one of those types, up to the type: an
// owner or none, TTL and class in either order.
var standEntry = regexp.MustCompile(`^([^\s;"()$]*[ \t]+(?:(?:[0-9][0-9A-Za-z]*|(?i:IN))[ \t]+){0,2})((?i:ALIAS|WALLET|CLA))[ \t]`)

// standAhead is how far into an entry its type is looked for.
const standAhead = 1024

// place is a line of a file.
type place struct {
	file string
	line int
}

// stand looks whether the entry that begins with c, the last octet read, is of a type
// that another stands for, and then has the parser read that.
func (in *input) stand(c byte) error {
	ahead, _ := in.Peek(standAhead) // at the end of the file, what there is
	if end := bytes.IndexByte(ahead, '\n'); end >= 0 {
		ahead = ahead[:end+1]
	}
	if !named(ahead) {
		return nil // nearly all, which is not to cost much
	}
	m := standEntry.FindSubmatchIndex(append([]byte{c}, ahead...))
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
	for i := range stands {
		if t := &stands[i]; strings.EqualFold(t.name, string(head[m[4]:])) {
			in.text = string(head[:m[3]]) + t.standName
			in.src.stood[place{in.name, in.line}] = t
		}
	}
	return nil
}

// named reports whether the name of a type that another stands for is in text.
func named(text []byte) bool {
	for ; len(text) > 0; text = text[1:] {
		switch text[0] | 0x20 {
		case 'a', 'w', 'c':
		default:
			continue
		}
		for i := range stands {
			if name := stands[i].name; len(text) > len(name) && strings.EqualFold(string(text[:len(name)]), name) {
				return true
			}
		}
	}
	return false
}
