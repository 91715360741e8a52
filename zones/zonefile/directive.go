package zonefile

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// directiveMax bounds the line of a directive that is read ahead.
const directiveMax = 1 << 16

// entry tells where entries begin: lines that are no part of a string or of what
// parentheses hold together (RFC 1035 section 5.1).
type entry struct {
	begins  bool // the next octet begins an entry
	newline bool // the next octet begins a line
	escaped bool
	quoted  bool
	comment bool
	open    int  // parentheses
	extra   bool // one was closed that was not open
}

// next takes one octet.
func (e *entry) next(c byte) {
	e.newline, e.begins = c == '\n', false
	switch {
	case c == '\n':
		e.comment, e.escaped = false, false
		e.begins = !e.quoted && e.open == 0
	case e.comment:
	case e.escaped:
		e.escaped = false
	case c == '\\':
		e.escaped = true
	case c == '"':
		e.quoted = !e.quoted
	case e.quoted:
	case c == ';':
		e.comment = true
	case c == '(':
		e.open++
	case c == ')':
		e.extra = e.extra || e.open == 0
		e.open = max(0, e.open-1)
	}
}

// directive reads the line on after a $ that begins an entry. The parser knows no
// file name in quotes and not all that BIND's $GENERATE can do: these are made into
// what it knows, all else is left as it stands.
func (in *input) directive() error {
	line, err := in.restOfLine()
	if err != nil {
		return err
	}
	word, rest := line, ""
	if end := strings.IndexAny(line, " \t\r\n"); end >= 0 {
		word, rest = line[:end], line[end:]
	}
	switch strings.ToUpper(word) {
	case "INCLUDE":
		rest = unquoteFirst(rest)
	case "GENERATE":
		if in.made, err = parseGenerate(strings.TrimRight(uncommented(rest), " \t\r\n")); err != nil {
			return err
		}
		return in.generate()
	case "ORIGIN", "TTL":
	default:
		return fmt.Errorf("%.32q is no directive: there are $ORIGIN, $TTL, $INCLUDE and $GENERATE; an owner that begins with a dollar sign is written \\$", "$"+word)
	}
	in.text = "$" + word + rest
	return nil
}

// restOfLine reads to the end of the line or of the file.
func (in *input) restOfLine() (string, error) {
	var b strings.Builder
	for b.Len() < directiveMax {
		c, err := in.readByte()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		if b.WriteByte(c); c == '\n' {
			return b.String(), nil
		}
	}
	return "", fmt.Errorf("a directive of more than %d octets", directiveMax)
}

// generate makes the next record of $GENERATE to read, if there is one.
func (in *input) generate() (err error) {
	in.text, err = in.made.line()
	switch {
	case err != nil:
		return err
	case in.text == "":
		in.made = nil
		return nil
	}
	if in.src.made++; in.src.made > generatedMax {
		return fmt.Errorf("$GENERATE makes more than %d records", generatedMax)
	}
	return nil
}

// unquoteFirst takes the quotes off the first word of text.
func unquoteFirst(text string) string {
	quoted := strings.TrimLeft(text, " \t")
	if !strings.HasPrefix(quoted, `"`) {
		return text
	}
	name, rest, ok := strings.Cut(quoted[1:], `"`)
	if !ok || name == "" || strings.ContainsAny(name, " \t;()\\") {
		return text // the parser tells what is wrong with it
	}
	return " " + name + rest
}

// uncommented is text without the comment that ends it.
func uncommented(text string) string {
	var e entry
	for i := range len(text) {
		if e.next(text[i]); e.comment {
			return text[:i]
		}
	}
	return text
}
