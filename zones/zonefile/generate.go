package zonefile

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits of what $GENERATE makes.
const (
	generatedMax       = 1 << 17 // records in a zone: two of the largest ranges there are
	rangeMax           = 1 << 16 // records of one line
	widthMax           = 255     // of one number in it: no name and no string is longer
	generatedOctetsMax = 1 << 16 // of one record's text
)

// generator makes the lines of a $GENERATE directive, as BIND 9's manual has it:
// the text after the range once for each number of it, with the number for each $.
type generator struct {
	next, stop, step int64
	parts            []part
}

// part is a piece of the text: words as they stand, or a place for the number.
type part struct {
	text   string
	number bool
	offset int64
	width  int
	base   byte // d, o, x, X, n, N
}

// parseGenerate reads what follows $GENERATE.
func parseGenerate(text string) (*generator, error) {
	text = strings.TrimLeft(text, " \t")
	end := strings.IndexAny(text, " \t")
	if end < 0 {
		return nil, errors.New("$GENERATE: nothing after the range")
	}
	g, err := parseRange(text[:end])
	if err != nil {
		return nil, err
	}
	for rest := strings.TrimLeft(text[end:], " \t"); rest != ""; {
		var p part
		if p, rest, err = parsePart(rest); err != nil {
			return nil, err
		}
		g.parts = append(g.parts, p)
	}
	return g, nil
}

// parseRange reads START-STOP and START-STOP/STEP.
func parseRange(text string) (*generator, error) {
	bad := fmt.Errorf("bad range in $GENERATE: %q: must be START-STOP or START-STOP/STEP", text)
	span, step, stepped := strings.Cut(text, "/")
	start, stop, ok := strings.Cut(span, "-")
	if !ok {
		return nil, bad
	}
	g := &generator{step: 1}
	numbers := []struct {
		text string
		to   *int64
	}{{start, &g.next}, {stop, &g.stop}, {step, &g.step}}
	if !stepped {
		numbers = numbers[:2]
	}
	for _, n := range numbers {
		v, err := strconv.ParseUint(n.text, 10, 31)
		if err != nil {
			return nil, bad
		}
		*n.to = int64(v)
	}
	if g.stop < g.next || g.step == 0 {
		return nil, bad
	}
	if (g.stop-g.next)/g.step >= rangeMax {
		return nil, fmt.Errorf("bad range in $GENERATE: %q: more than %d records", text, rangeMax)
	}
	return g, nil
}

// parsePart takes the first part off the text. \$ and $$ stand for a $.
func parsePart(text string) (p part, rest string, err error) {
	switch {
	case strings.HasPrefix(text, `\`) && len(text) > 1:
		return part{text: text[:2]}, text[2:], nil
	case strings.HasPrefix(text, "$$"):
		return part{text: `\$`}, text[2:], nil
	case strings.HasPrefix(text, "${"):
		end := strings.IndexByte(text, '}')
		if end < 0 {
			return part{}, "", fmt.Errorf("$GENERATE: %q: a } is missing", text)
		}
		p, err = parseModifier(text[2:end])
		return p, text[end+1:], err
	case text[0] == '$':
		return part{number: true, base: 'd'}, text[1:], nil
	}
	end := 1
	for end < len(text) && text[end] != '$' && text[end] != '\\' {
		end++
	}
	return part{text: text[:end]}, text[end:], nil
}

// parseModifier reads what stands between ${ and }: OFFSET, OFFSET,WIDTH or
// OFFSET,WIDTH,BASE.
func parseModifier(text string) (part, error) {
	bad := fmt.Errorf("bad modifier in $GENERATE: %q: must be ${OFFSET,WIDTH,BASE}, the base one of d, o, x, X, n, N", "${"+text+"}")
	fields := strings.Split(text, ",")
	p := part{number: true, base: 'd'}
	switch len(fields) {
	case 3:
		if len(fields[2]) != 1 || !strings.Contains("doxXnN", fields[2]) {
			return p, bad
		}
		p.base = fields[2][0]
		fallthrough
	case 2:
		width, err := strconv.ParseUint(fields[1], 10, 16)
		if err != nil {
			return p, bad
		}
		if p.width = int(width); p.width > widthMax {
			return p, fmt.Errorf("bad modifier in $GENERATE: %q: wider than %d", "${"+text+"}", widthMax)
		}
		fallthrough
	case 1:
		offset, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return p, bad
		}
		p.offset = offset
		return p, nil
	}
	return p, bad
}

// line is the next record's text, "" after the last.
func (g *generator) line() (string, error) {
	if g.next > g.stop {
		return "", nil
	}
	var b strings.Builder
	for _, p := range g.parts {
		if !p.number {
			b.WriteString(p.text)
			continue
		}
		n := g.next + p.offset
		if n > math.MaxInt32 {
			return "", fmt.Errorf("$GENERATE: %d with an offset of %d is more than %d", g.next, p.offset, math.MaxInt32)
		}
		p.write(&b, n)
		if b.Len() > generatedOctetsMax {
			return "", fmt.Errorf("$GENERATE: a record of more than %d octets", generatedOctetsMax)
		}
	}
	g.next += g.step
	b.WriteByte('\n')
	return b.String(), nil
}

// write writes n as p wants it. What is not decimal is of 32 bits, and below 0
// wraps around, as in BIND.
func (p *part) write(b *strings.Builder, n int64) {
	word := uint32(n)
	switch p.base {
	case 'n':
		writeNibbles(b, "0123456789abcdef", word, p.width)
	case 'N':
		writeNibbles(b, "0123456789ABCDEF", word, p.width)
	case 'd':
		fmt.Fprintf(b, "%0*d", p.width, n)
	case 'o':
		fmt.Fprintf(b, "%0*o", p.width, word)
	case 'x':
		fmt.Fprintf(b, "%0*x", p.width, word)
	case 'X':
		fmt.Fprintf(b, "%0*X", p.width, word)
	}
}

// writeNibbles writes the digits of n as labels, the least first, as ip6.arpa has
// them. The width counts the dots too: an even one ends in a dot.
func writeNibbles(b *strings.Builder, digits string, n uint32, width int) {
	for {
		b.WriteByte(digits[n&15])
		if n >>= 4; n == 0 && width <= 1 {
			return
		}
		b.WriteByte('.')
		if width -= 2; n == 0 && width <= 0 {
			return
		}
	}
}
