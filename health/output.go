package health

import (
	"net/netip"
	"strings"
	"unique"
)

// output is what a check said, without the target's address where that is in
// it: then well targets of one service say the same, and it is kept once for
// them all.
type output struct {
	text string
	from uint16 // the address stood before the octet of text of this number, 1 the first; 0: text is all
}

// addrRoom is room for the longest address and port, in octets.
const addrRoom = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")

// outputOf splits what was said of a target at addr.
func outputOf(said string, addr netip.AddrPort) output {
	const fromMax = 1 << 15 // an address beyond it stays: no prober says so much
	if addr.IsValid() {
		text := addr.String()
		if at := strings.Index(said, text); at >= 0 && at < fromMax {
			return output{said[:at] + said[at+len(text):], uint16(at + 1)}
		}
	}
	return output{text: said}
}

// of is what was said of the target at addr.
func (o *output) of(addr netip.AddrPort) string {
	if o.from == 0 {
		return o.text
	}
	return o.text[:o.from-1] + addr.String() + o.text[o.from-1:]
}

// is reports whether said is what was said of the target at addr. It allocates
// nothing: nearly every check says what the one before it did.
func (o *output) is(said string, addr netip.AddrPort) bool {
	if o.from == 0 {
		return o.text == said
	}
	var room [addrRoom]byte
	text := addr.AppendTo(room[:0])
	before, after := o.text[:o.from-1], o.text[o.from-1:]
	return len(said) == len(o.text)+len(text) && strings.HasPrefix(said, before) && strings.HasSuffix(said, after) &&
		said[len(before):len(before)+len(text)] == string(text)
}

// say replaces the output with a number by what was said of the target at addr,
// and returns that one's number.
func say(outputs *interned[output], number uint32, said string, addr netip.AddrPort) uint32 {
	if now := outputs.value(number); now.is(said, addr) {
		return number
	}
	next := outputs.take(unique.Make(outputOf(said, addr)))
	outputs.drop(number)
	return next
}
