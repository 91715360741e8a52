package zonefile

import (
	"bytes"
	"encoding/base32"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// record is a record with the place that it was read from.
type record struct {
	owner *owner
	typ   wire.Type
	ttl   uint32
	rdata []byte
	stand *stand // what the parser read in its place; nil: the record itself
	file  string
	line  int
}

// owner is what is known of one name of the zone: its records, and the first of
// each type.
type owner struct {
	name    []byte // in wire form, lower-cased
	records []*record
	firsts  map[wire.Type]*record
}

// first returns the owner's first record of a type, nil if it has none or the
// owner is nil.
func (o *owner) first(t wire.Type) *record {
	if o == nil {
		return nil
	}
	return o.firsts[t]
}

// loader collects a zone's records and what is to be said of them.
type loader struct {
	apex         wire.Name
	records      []*record
	names        map[string]*owner
	errs         []error
	moreErrs     int
	warnings     []Warning
	moreWarnings int
}

func (l *loader) errorf(r *record, format string, args ...any) {
	if len(l.errs) == problemsMax {
		l.moreErrs++
		return
	}
	l.errs = append(l.errs, fmt.Errorf("%s:%d: %w", r.file, r.line, fmt.Errorf(format, args...)))
}

func (l *loader) warnf(r *record, format string, args ...any) {
	if len(l.warnings) == problemsMax {
		l.moreWarnings++
		return
	}
	l.warnings = append(l.warnings, Warning{r.file, r.line, fmt.Sprintf(format, args...)})
}

// problems is the errors, the last of them how many were left out.
func (l *loader) problems() []error {
	if l.moreErrs > 0 {
		return append(l.errs, fmt.Errorf("and %d more errors", l.moreErrs))
	}
	return l.errs
}

// told is the warnings likewise.
func (l *loader) told() []Warning {
	if l.moreWarnings > 0 {
		last := l.warnings[len(l.warnings)-1]
		last.Text = fmt.Sprintf("and %d more warnings", l.moreWarnings)
		return append(l.warnings, last)
	}
	return l.warnings
}

// read takes all records from the parser. What cannot be parsed ends it, as
// what follows might be read as something that it is not.
func (l *loader) read(parser *dns.ZoneParser, src *source) error {
	buf := make([]byte, math.MaxUint16+512)
	for {
		rr, ok := parser.Next()
		if !ok {
			break
		}
		file, line := src.at()
		r := &record{file: file, line: line}
		if t, ok := src.stood[src.place()]; ok && rr.Header().Rrtype == uint16(t.standType) {
			r.stand = t
		}
		if err := l.add(rr, r, buf); err != nil {
			l.errorf(r, "%w", err)
		}
		// Of some types the parser overlooks what holds lines together.
		if e := &src.open[len(src.open)-1].entry; e.extra {
			l.errorf(r, "a ) without its (")
			e.extra = false
		}
	}
	if err := parser.Err(); err != nil {
		return parseError(src, err)
	}
	if src.unclosed != nil {
		l.errorf(src.unclosed, "a parenthesis that is not closed")
	}
	return nil
}

// add enters rr as r, of rr's type unless r has one.
func (l *loader) add(rr dns.RR, r *record, buf []byte) error {
	h := rr.Header()
	if h.Class != dns.ClassINET {
		return fmt.Errorf("class %s: only IN is served", dns.Class(h.Class))
	}
	r.ttl, r.typ = h.Ttl, wire.Type(h.Rrtype)
	if r.stand != nil {
		r.typ = r.stand.typ
	}
	if isMeta(r.typ) {
		return fmt.Errorf("type %s cannot be in a zone", r.typ)
	}
	if r.ttl > math.MaxInt32 {
		return fmt.Errorf("TTL %d: more than %d (RFC 2181 section 8)", r.ttl, math.MaxInt32)
	}
	err := mend(rr)
	var end int
	if err == nil {
		end, err = dns.PackRR(rr, buf, 0, nil, false)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", h.Name, r.typ, err)
	}
	rdata := end - int(h.Rdlength)
	var name wire.Name
	if !name.Set(buf[:rdata-10]) { // type, class, TTL and length stand between
		if h.Name == "" {
			return errors.New("no owner: the line begins with a blank, and no record before it has one")
		}
		return fmt.Errorf("%s: malformed owner", h.Name)
	}
	if _, ok := name.Below(&l.apex); !ok {
		l.warnf(r, "%s %s: lies outside the zone %s, dropped", h.Name, r.typ, l.apex.String())
		return nil
	}
	if r.rdata = bytes.Clone(buf[rdata:end]); r.stand != nil && r.stand.form != nil {
		r.rdata = r.stand.form.carried(r.rdata)
	}
	o := l.names[string(name.Wire())]
	if o == nil {
		o = &owner{name: bytes.Clone(name.Wire()), firsts: map[wire.Type]*record{}}
		l.names[string(o.name)] = o
	}
	r.owner = o
	if o.firsts[r.typ] == nil {
		o.firsts[r.typ] = r
	}
	o.records = append(o.records, r)
	l.records = append(l.records, r)
	return nil
}

// mend makes of what the parser read what can be packed: the types of a bit map
// in their order, which people write in any, and the length of a hash, which the
// parser takes for that of SHA-1.
func mend(rr dns.RR) error {
	switch rr := rr.(type) {
	case *dns.NSEC:
		slices.Sort(rr.TypeBitMap)
	case *dns.NSEC3:
		slices.Sort(rr.TypeBitMap)
		hash, err := base32hex.DecodeString(strings.ToUpper(rr.NextDomain))
		if err != nil || len(hash) > math.MaxUint8 {
			return fmt.Errorf("next hash %q: must be base32hex without padding (RFC 5155 section 3.3)", rr.NextDomain)
		}
		rr.HashLength = uint8(len(hash))
	case *dns.CSYNC:
		slices.Sort(rr.TypeBitMap)
	}
	return nil
}

// base32hex is how hashes are written (RFC 5155 section 3.3).
var base32hex = base32.HexEncoding.WithPadding(base32.NoPadding)

// isMeta reports whether t is no type of data: RFC 6895 section 3.1 sets 128 to
// 255 aside for questions and meta types, OPT came before that.
func isMeta(t wire.Type) bool { return t == 0 || t == wire.TypeOPT || t >= 128 && t <= 255 }

// zoneRecords is the records for zones.NewZone.
func (l *loader) zoneRecords() []zones.Record {
	out := make([]zones.Record, len(l.records))
	for i, r := range l.records {
		out[i] = zones.Record{Owner: r.owner.name, Type: r.typ, TTL: r.ttl, RData: r.rdata}
	}
	return out
}

// parserMessage takes from what the parser says the reason and the column. Its
// lines are not the file's after $GENERATE, so ours are told.
var parserMessage = regexp.MustCompile(`(?s)^(?:.*?: )?dns: (.*) at line: \d+:(\d+)$`)

// parseError puts the parser's error in the form of ours: the place first.
func parseError(src *source, err error) error {
	file, line := src.at()
	var pe *dns.ParseError
	if m := parserMessage.FindStringSubmatch(err.Error()); m != nil && errors.As(err, &pe) {
		what := m[1]
		if t := src.stood[src.place()]; t != nil {
			what = strings.Replace(what, "HIP RendezvousServers", t.name+" name", 1)
		}
		return &syntaxError{where: fmt.Sprintf("%s:%d:%s", file, line, m[2]), what: plain(what), cause: err}
	}
	return fmt.Errorf("%s:%d: %w", file, line, err)
}

// badField is how the parser names what it cannot read: by type and field.
var badField = regexp.MustCompile(`^bad ([A-Z0-9]+) ([A-Za-z0-9]+)`)

// plainWords are what the parser says that only its author can read.
var plainWords = strings.NewReplacer(
	`Txt: " "`, "a quotation mark that is not closed",
	`: "unbalanced brace"`, ": a parenthesis that is not closed",
	`: "extra closing brace"`, ": a ) without its (",
	"missing TTL with no previous value", "no TTL: write one in the record, or $TTL in a line before it",
)

// plain puts the parser's reason in words that need no knowledge of the parser,
// which takes what it does not know for a TTL.
func plain(what string) string {
	if rest, ok := strings.CutPrefix(what, "not a TTL: "); ok {
		if t := standOf(strings.Trim(rest, `"`)); t != nil {
			return t.name + " without data"
		}
		return rest + ` is no type of record that has a name here, and no class or TTL; any type can be written as TYPE123 \# LENGTH HEX (RFC 3597 section 5)`
	}
	if rest, ok := strings.CutPrefix(what, "bad owner name: "); ok {
		return rest + " is no domain name: labels have 1 to 63 octets, names 255 at most"
	}
	m := badField.FindStringSubmatchIndex(what)
	if m == nil {
		return plainWords.Replace(what)
	}
	typ, field, rest := what[m[2]:m[3]], what[m[4]:m[5]], what[m[1]:]
	if typ == field { // an A record has an A
		return plainWords.Replace("bad " + typ + " record" + rest)
	}
	return plainWords.Replace("bad " + typ + " record, " + field + rest)
}

// syntaxError is the parser's error with the place put first.
type syntaxError struct {
	where, what string
	cause       error
}

func (e *syntaxError) Error() string { return e.where + ": " + e.what }
func (e *syntaxError) Unwrap() error { return e.cause }
