package config

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// yamlLine finds the line in an error of the parser.
var yamlLine = regexp.MustCompile(`line (\d+)`)

// trimYAML is the parser's error without its name and line.
func trimYAML(err error) string {
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	if loc := yamlLine.FindStringIndex(s); loc != nil && loc[0] == 0 {
		s = strings.TrimPrefix(s[loc[1]:], ": ")
	}
	return s
}

// structural are the parser's errors whose line is that of the list or the keys
// that it was reading, counted from 0, and what they mean there; all others count
// from 1.
var structural = map[string]string{
	"did not find expected ',' or ']'":    "a [ that is opened here has no ] or no comma where one must be",
	"did not find expected ',' or '}'":    "a { that is opened here has no } or no comma where one must be",
	"did not find expected '-' indicator": "of the list that begins here something stands further in or out than its first element",
	"did not find expected key":           "of the keys that begin here something stands further in or out than the first",
	"did not find expected node content":  "something else stands where a value is expected",
}

// yamlMends says what is mostly meant where YAML reads something else.
var yamlMends = []struct{ reason, mend string }{
	{"did not find expected alphabetic or numeric character", `put quotes around what begins with * or &, as "*.example.com"`},
	{"found character that cannot start any token", "put quotes around what begins with @, ` or %"},
	{"mapping values are not allowed in this context", "put quotes around what has a colon and a space in it; keys of one mapping begin in one column"},
	{"did not find expected node content", `put quotes around what begins with [ or a colon and is no list, as "[::1]:53"`},
	{"found unexpected end of stream", "close the quotes that are opened there"},
	{"could not find expected ':'", "write a key, a colon and a space"},
}

// yamlProblem says what is wrong with a text that is not YAML, and the mend.
func yamlProblem(err error) (reason, mend string) {
	reason = trimYAML(err)
	for _, m := range yamlMends {
		if m.reason == reason {
			mend = m.mend
		}
	}
	if plain := structural[reason]; plain != "" {
		reason = plain
	}
	return "is not YAML: " + reason, mend
}

// syntax adds the problem of a file that is not YAML. The parser knows no columns,
// so the place is the line's first octet unless it can be found here.
func (d *decoder) syntax(data []byte, err error) {
	p := Problem{Origin: Origin{Source: d.file, Line: yamlErrorLine(data), Col: 1}}
	p.Reason, p.Mend = yamlProblem(err)
	switch reason, tab := trimYAML(err), indentTab(data); {
	case !utf8.Valid(data):
		p.Origin.place(data, invalid(data))
		p.Reason, p.Mend = "is not YAML: an octet that is not UTF-8", "save the file as UTF-8"
	case reason == "control characters are not allowed":
		at := bytes.IndexFunc(data, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r", r) || r == 0x7f })
		p.Origin.place(data, max(at, 0))
	case tab >= 0 && (reason == "found character that cannot start any token" || strings.HasPrefix(reason, "found a tab character")):
		p.Origin.place(data, tab)
		p.Reason, p.Mend = "is not YAML: a tab before the first word of a line", "indent with spaces"
	}
	d.add(p)
}

// yamlErrorLine is the line, from 1, of the parser's error in data. The parser takes
// a place in the first line for none and then tells another, so it is given data with
// a line before.
func yamlErrorLine(data []byte) int {
	dec := yaml.NewDecoder(io.MultiReader(strings.NewReader("\n"), bytes.NewReader(data)))
	var err error
	for err == nil {
		err = dec.Decode(new(yaml.Node))
	}
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 1
	}
	line, _ := strconv.Atoi(m[1]) // digits by the expression
	if structural[trimYAML(err)] == "" {
		line--
	}
	return min(max(line, 1), 1+bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")))
}

// place sets line and column to those of an octet of data.
func (o *Origin) place(data []byte, at int) {
	o.Line = 1 + bytes.Count(data[:at], []byte("\n"))
	o.Col = 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:at], '\n')+1:at])
}

// invalid is where the first octet stands that is no UTF-8.
func invalid(data []byte) int {
	at := 0
	for at < len(data) {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return at
}

// indentTab is where the first tab stands that has nothing but white space before
// it in its line and something after it; -1: there is none.
func indentTab(data []byte) int {
	at := 0
	for line := range bytes.Lines(data) {
		blank := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if tab := bytes.IndexByte(blank, '\t'); tab >= 0 && len(bytes.TrimSpace(line)) > 0 && line[len(blank)] != '#' {
			return at + tab
		}
		at += len(line)
	}
	return -1
}
