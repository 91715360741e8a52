package registry

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// cursor reads one JSON text (RFC 8259) from its beginning to its end and
// builds nothing but what its caller asks for. A registry has a hundred
// thousand values to read at start; encoding/json spends several times as long
// on each and cannot say which field of which element is wrong.
//
// Invariant: it never recurses deeper than depthMax and never reads a byte
// twice but for the strings with escapes, so no value can cost more than its
// length.
type cursor struct {
	in    []byte
	at    int
	depth int
	mend  string // what to write in the place of a text that is no object

	ignored string // the fields that are not known, ignoredMax at most, a line each
	unknown int    // how many there are
	list    string // the list or object of the record that is being read; empty: the record
	index   int    // in list; negative: it is no list
}

// syntax is the error for a text that is not JSON.
func (c *cursor) syntax(expected string) error {
	reason := "is not JSON: " + expected + " expected at byte " + strconv.Itoa(c.at+1)
	if c.at >= len(c.in) {
		reason = "is not JSON: it ends where " + expected + " is expected"
	}
	return &FieldError{Value: excerpt(c.in), Reason: reason, Mend: c.mend}
}

// document reads an object that is the whole text.
func (c *cursor) document(field func(name []byte) error) error {
	if err := c.object(field); err != nil {
		return err
	}
	if c.peek() != 0 || c.at < len(c.in) {
		return c.syntax("the end")
	}
	return nil
}

// fieldReader reads the value of one field; known is false for a field that it
// does not know, whose value is not read.
type fieldReader = func(c *cursor, name []byte) (known bool, err error)

// decode reads an object that is the whole value. Fields that read does not know are
// passed over and returned, and an error of one that it knows names it.
func decode(value []byte, mend string, read fieldReader) (ignored string, err error) {
	if err := checkSize(value, mend); err != nil {
		return "", err
	}
	c := cursor{in: value, mend: mend}
	err = c.document(func(name []byte) error {
		known, err := read(&c, name)
		return c.after(name, known, err)
	})
	return c.ignored, err
}

// after goes on behind a field with what its fieldReader returned.
func (c *cursor) after(name []byte, known bool, err error) error {
	switch {
	case err != nil:
		return within(string(name), err)
	case !known:
		return c.ignore(name)
	}
	return nil
}

// peek skips white space and returns the byte that the next value begins with;
// 0 at the end.
func (c *cursor) peek() byte {
	for c.at < len(c.in) {
		switch b := c.in[c.at]; b {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return b
		}
	}
	return 0
}

// take consumes b if it is next.
func (c *cursor) take(b byte) bool {
	if c.peek() != b || c.at >= len(c.in) {
		return false
	}
	c.at++
	return true
}

// enter and leave count nesting.
func (c *cursor) enter() error {
	if c.depth++; c.depth > depthMax {
		return &FieldError{Value: excerpt(c.in), Reason: "nests deeper than " + strconv.Itoa(depthMax) + " levels", Mend: "write it flatter"}
	}
	return nil
}

func (c *cursor) leave() { c.depth-- }

// object reads an object and calls field at each value; field must consume it.
// The name is valid during the call. null is read as an object without fields.
func (c *cursor) object(field func(name []byte) error) error {
	if c.null() {
		return nil
	}
	if !c.take('{') {
		if c.depth == 0 {
			return bad("", c.in, "is not a JSON object", c.mend)
		}
		return c.wrongType("an object")
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if c.take('}') {
		return nil
	}
	for {
		name, err := c.rawString()
		if err != nil {
			return err
		}
		if !c.take(':') {
			return c.syntax(`":"`)
		}
		if err := field(name); err != nil {
			return err
		}
		if c.take(',') {
			continue
		}
		if c.take('}') {
			return nil
		}
		return c.syntax(`"," or "}"`)
	}
}

// array reads an array and calls element at each value; element must consume
// it. more than elementsMax elements are an error, null is an empty array.
func (c *cursor) array(elementsMax int, element func(i int) error) error {
	if c.null() {
		return nil
	}
	if !c.take('[') {
		return c.wrongType("an array")
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if c.take(']') {
		return nil
	}
	for i := 0; ; i++ {
		if i == elementsMax {
			return &FieldError{Reason: "has more than " + strconv.Itoa(elementsMax) + " entries", Mend: "write fewer"}
		}
		if err := element(i); err != nil {
			return within("["+strconv.Itoa(i)+"]", err)
		}
		if c.take(',') {
			continue
		}
		if c.take(']') {
			return nil
		}
		return c.syntax(`"," or "]"`)
	}
}

// null consumes a null.
func (c *cursor) null() bool {
	if c.peek() != 'n' {
		return false
	}
	return c.literal("null")
}

func (c *cursor) literal(word string) bool {
	if !bytes.HasPrefix(c.in[c.at:], []byte(word)) {
		return false
	}
	c.at += len(word)
	return true
}

// rawString reads a string and returns its bytes, which are part of the text
// unless it had escapes.
func (c *cursor) rawString() ([]byte, error) {
	if !c.take('"') {
		return nil, c.wrongType("a string")
	}
	start := c.at
	for ; c.at < len(c.in); c.at++ {
		switch b := c.in[c.at]; {
		case b == '"':
			c.at++
			return c.in[start : c.at-1], nil
		case b == '\\':
			return c.escapedString(start)
		case b < ' ':
			return nil, c.syntax("no control character within a string, but an escape,")
		}
	}
	return nil, c.syntax("the end of a string")
}

// escapedString goes on at the first escape of a string.
func (c *cursor) escapedString(start int) ([]byte, error) {
	out := append([]byte(nil), c.in[start:c.at]...)
	for c.at < len(c.in) {
		b := c.in[c.at]
		switch {
		case b == '"':
			c.at++
			return out, nil
		case b < ' ':
			return nil, c.syntax("no control character within a string, but an escape,")
		case b != '\\':
			out = append(out, b)
			c.at++
			continue
		}
		var err error
		if out, err = c.escape(out); err != nil {
			return nil, err
		}
	}
	return nil, c.syntax("the end of a string")
}

// escape reads one escape (RFC 8259 section 7) and appends what it means.
func (c *cursor) escape(out []byte) ([]byte, error) {
	const plain, meaning = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	c.at++
	if c.at >= len(c.in) {
		return nil, c.syntax("an escape")
	}
	b := c.in[c.at]
	if i := bytes.IndexByte([]byte(plain), b); i >= 0 {
		c.at++
		return append(out, meaning[i]), nil
	}
	if b != 'u' {
		return nil, c.syntax("an escape")
	}
	c.at++
	r, ok := c.hex4()
	if !ok {
		return nil, c.syntax("four hexadecimal digits")
	}
	if utf16.IsSurrogate(r) {
		second := rune(utf8.RuneError)
		if mark := c.at; c.literal(`\u`) {
			if second, ok = c.hex4(); !ok {
				return nil, c.syntax("four hexadecimal digits")
			}
			if utf16.DecodeRune(r, second) == utf8.RuneError {
				c.at = mark // a lone half stands for nothing; what follows is read by itself
			}
		}
		r = utf16.DecodeRune(r, second)
	}
	return utf8.AppendRune(out, r), nil
}

func (c *cursor) hex4() (rune, bool) {
	if len(c.in)-c.at < 4 {
		return 0, false
	}
	var r rune
	for _, b := range c.in[c.at : c.at+4] {
		switch {
		case '0' <= b && b <= '9':
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	c.at += 4
	return r, true
}

// rawNumber reads a number and returns its text.
func (c *cursor) rawNumber() ([]byte, error) {
	if first := c.peek(); first != '-' && (first < '0' || first > '9') {
		return nil, c.wrongType("a number")
	}
	start := c.at
	c.take('-')
	first := c.at
	if !c.digits() || c.in[first] == '0' && c.at-first > 1 {
		c.at = first
		return nil, c.syntax("a number without a leading zero")
	}
	if c.at < len(c.in) && c.in[c.at] == '.' {
		c.at++
		if !c.digits() {
			return nil, c.syntax("a digit")
		}
	}
	if c.at < len(c.in) && (c.in[c.at] == 'e' || c.in[c.at] == 'E') {
		c.at++
		if c.at < len(c.in) && (c.in[c.at] == '+' || c.in[c.at] == '-') {
			c.at++
		}
		if !c.digits() {
			return nil, c.syntax("a digit")
		}
	}
	return c.in[start:c.at], nil
}

func (c *cursor) digits() bool {
	start := c.at
	for c.at < len(c.in) && '0' <= c.in[c.at] && c.in[c.at] <= '9' {
		c.at++
	}
	return c.at > start
}

// skip consumes a value of any kind; what it holds must be JSON all the same.
func (c *cursor) skip() error {
	switch c.peek() {
	case '{':
		return c.object(func([]byte) error { return c.skip() })
	case '[':
		return c.array(math.MaxInt, func(int) error { return c.skip() })
	case '"':
		_, err := c.rawString()
		return err
	case 't', 'f', 'n':
		if c.literal("true") || c.literal("false") || c.literal("null") {
			return nil
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		_, err := c.rawNumber()
		return err
	}
	return c.syntax("a value")
}

// ignore passes over a field that is not known, as a later version may have written
// it, and keeps its name for who wants to tell of it.
func (c *cursor) ignore(name []byte) error {
	if c.unknown++; c.unknown > ignoredMax {
		return c.skip()
	}
	if c.ignored != "" {
		c.ignored += "\n"
	}
	c.ignored += c.place() + string(name[:min(len(name), excerptMax)])
	return c.skip()
}

// place is what stands before the names of fields where the cursor is.
func (c *cursor) place() string {
	switch {
	case c.list == "":
		return ""
	case c.index < 0:
		return c.list + "."
	}
	return c.list + "[" + strconv.Itoa(c.index) + "]."
}

// wrongType is the error for a value that is not what its field holds; for
// what is no value at all, it is a syntax error.
func (c *cursor) wrongType(want string) error {
	c.peek()
	mark := *c
	if err := c.skip(); err != nil {
		return err
	}
	return bad("", c.in[mark.at:c.at], "is not "+want, "write "+want)
}
