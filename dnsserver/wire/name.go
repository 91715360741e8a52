package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Name is an uncompressed, lower-cased domain name in wire form with its label
// offsets: a value that fits the stack. The zero Name is not a name; the root
// is ParseName("."). Names are compared with Equal: what lies behind a name's
// end may differ, so the type forbids ==.
type Name struct {
	_      [0]func()
	buf    [256]byte  // 255 at most are used; 256 lets folding go by words
	off    [128]uint8 // offsets of the labels, the root's last
	n      uint8      // octets, root included
	labels uint8      // without the root
}

var (
	errNameLong   = errors.New("longer than 255 octets (RFC 1035 section 2.3.4)")
	errLabelLong  = errors.New("label longer than 63 octets (RFC 1035 section 2.3.4)")
	errLabelEmpty = errors.New("empty label")
	errEscape     = errors.New(`bad escape: want \DDD up to 255, or \ and a character (RFC 1035 section 5.1)`)
)

// ParseName reads presentation form (RFC 1035 section 5.1 escapes); the name is
// taken as fully qualified with or without its last dot. The root is "."; the
// empty string is an error.
func ParseName(s string) (Name, error) {
	var n Name
	if err := n.parse(s); err != nil {
		return Name{}, fmt.Errorf("parsing name %q: %w", s, err)
	}
	return n, nil
}

func (n *Name) parse(s string) error {
	if s == "." {
		n.Set([]byte{0})
		return nil
	}
	var w [maxName]byte
	start, end := 0, 1 // of the label being read: its length octet, its end
	for i := 0; i < len(s); {
		c, size := s[i], 1
		switch c {
		case '.':
			if end == start+1 {
				return errLabelEmpty
			}
			w[start], start, end = byte(end-start-1), end, end+1
		case '\\':
			if c, size = unescape(s[i:]); size == 0 {
				return errEscape
			}
			fallthrough
		default:
			if end-start > maxLabel {
				return errLabelLong
			}
			if end >= maxName-1 { // the root's octet is still to come
				return errNameLong
			}
			w[end] = c
			end++
		}
		i += size
	}
	if end > start+1 { // no last dot
		w[start], start = byte(end-start-1), end
	}
	if start == 0 {
		return errLabelEmpty
	}
	if !n.Set(w[:start+1]) {
		return errNameLong
	}
	return nil
}

// unescape reads \DDD or \X and how long it was; 0 when it is neither.
func unescape(s string) (c byte, size int) {
	digit := func(i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	switch {
	case len(s) < 2:
		return 0, 0
	case !digit(1):
		return s[1], 2
	case !digit(2) || !digit(3):
		return 0, 0
	}
	v := int(s[1]-'0')*100 + int(s[2]-'0')*10 + int(s[3]-'0')
	if v > 255 {
		return 0, 0
	}
	return byte(v), 4
}

// Set makes n the name that w holds in wire form, lower-cased; w must be one
// whole uncompressed name and nothing more. It reports false, and leaves n in
// no useful state, when w is not. It allocates nothing and does not keep w.
func (n *Name) Set(w []byte) bool {
	return n.read(w) == len(w) && len(w) > 0
}

// read makes n the uncompressed name at the start of w and returns how many
// octets it took; 0 for what is no such name.
func (n *Name) read(w []byte) int {
	i, labels := 0, 0
	for {
		if i >= len(w) || i >= maxName {
			return 0
		}
		n.off[labels] = uint8(i)
		l := int(w[i])
		if l == 0 {
			break
		}
		if l > maxLabel { // a compression pointer or a reserved label type
			return 0
		}
		i += 1 + l
		labels++
	}
	i++
	copy(n.buf[:], w[:i])
	n.n, n.labels = uint8(i), uint8(labels)
	n.fold()
	return i
}

// fold lower-cases the ASCII letters of the name (RFC 4343), eight octets at a
// time. Length octets are below 'A' and so stay what they are.
func (n *Name) fold() {
	const ones = 0x0101010101010101
	for i := 0; i < int(n.n); i += 8 {
		x := binary.LittleEndian.Uint64(n.buf[i:])
		low7 := x & (0x7f * ones)
		aboveZ := low7 + (0x7f-'Z')*ones
		fromA := low7 + (0x80-'A')*ones
		upper := (fromA ^ aboveZ) &^ x & (0x80 * ones)
		binary.LittleEndian.PutUint64(n.buf[i:], x|upper>>2)
	}
}

// Wire returns the name's octets, root included; valid while n lives unchanged.
func (n *Name) Wire() []byte { return n.buf[:n.n] }

// Len is the length of Wire: 1 for the root, at most 255.
func (n *Name) Len() int { return int(n.n) }

// Labels returns the number of labels, the root not counted.
func (n *Name) Labels() int { return int(n.labels) }

// Label returns the i-th label's octets without its length; 0 is the leftmost.
func (n *Name) Label(i int) []byte {
	o := int(n.off[i])
	return n.buf[o+1 : o+1+int(n.buf[o])]
}

// Suffix returns the wire form of the name without its first i labels.
func (n *Name) Suffix(i int) []byte { return n.buf[n.off[i]:n.n] }

// Prefix returns the first i labels in wire form, without a root.
func (n *Name) Prefix(i int) []byte { return n.buf[:n.off[i]] }

// Equal reports whether both are the same name.
func (n *Name) Equal(m *Name) bool { return bytes.Equal(n.Wire(), m.Wire()) }

// Below reports how many labels n has below apex, 0 for apex itself, and
// whether n lies at or below it at all.
func (n *Name) Below(apex *Name) (labels int, ok bool) {
	labels = int(n.labels) - int(apex.labels)
	if labels < 0 || !bytes.Equal(n.Suffix(labels), apex.Wire()) {
		return 0, false
	}
	return labels, true
}

// String is the presentation form, with the last dot and the escapes of RFC
// 1035 section 5.1 and RFC 4343 section 2.1.
func (n *Name) String() string {
	if n.labels == 0 {
		return "."
	}
	s := make([]byte, 0, int(n.n)+8)
	for i := range n.Labels() {
		for _, c := range n.Label(i) {
			switch {
			case bytes.IndexByte([]byte(`. '@;()"\`), c) >= 0:
				s = append(s, '\\', c)
			case c < '!' || c > '~':
				s = append(s, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			default:
				s = append(s, c)
			}
		}
		s = append(s, '.')
	}
	return string(s)
}
