package registry

import (
	"errors"
	"strconv"
	"strings"
)

// ErrExists is returned by Apply when a Create finds its key taken.
var ErrExists = errors.New("the record exists already")

// ErrNotFound is returned when a record asked for is not there.
var ErrNotFound = errors.New("no such record")

// ErrChanged is returned by Apply when a record was changed since the revision
// that the caller read.
var ErrChanged = errors.New("the record was changed by somebody else meanwhile")

// ErrLost is returned by Apply when the lease of an Op is lost and not yet made
// again.
var ErrLost = errors.New("the lease is lost")

// FieldError says which part of a record cannot be used. All functions of this
// package that decode, encode or parse return it, so that a caller can show
// what to do. No part of it holds a control character, whatever was decoded.
type FieldError struct {
	Field  string // where: `ports.http`, `checks[0].interval`; empty: the whole value
	Value  string // what stands there, quoted and cut; empty: nothing to show
	Reason string // what is wrong with it
	Mend   string // what to do; may be empty
}

// Error says it on one line: `ports.http: "70000": is no port; write 1 to 65535`.
func (e *FieldError) Error() string {
	if e.Mend == "" {
		return e.reason()
	}
	return e.reason() + "; " + e.Mend
}

// reason is the error without its mend.
func (e *FieldError) reason() string {
	var b strings.Builder
	for _, part := range []string{e.Field, e.Value} {
		if part != "" {
			b.WriteString(part)
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Reason)
	return b.String()
}

// NewProblem makes the Problem of a record from the error that decoding it
// gave. Whatever the error holds, the reason is printable ASCII on one line.
func NewProblem(rawKey string, revision int64, err error) Problem {
	p := Problem{RawKey: rawKey, Revision: revision}
	if field, ok := errors.AsType[*FieldError](err); ok {
		p.Reason, p.Mend = field.reason(), field.Mend
	} else {
		p.Reason = err.Error()
	}
	p.Reason, p.Mend = printable(p.Reason), printable(p.Mend)
	return p
}

// printable escapes what is not printable ASCII. Errors of this package have
// nothing of the kind; it holds the promise of Problem for all others.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			quoted := strconv.QuoteToASCII(s)
			return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
		}
	}
	return s
}

// excerpt quotes the beginning of a value for an error.
func excerpt[S string | []byte](v S) string {
	if len(v) > excerptMax {
		return strconv.QuoteToASCII(string(v[:excerptMax])) + "..."
	}
	return strconv.QuoteToASCII(string(v))
}

// bad makes the FieldError of a value.
func bad[S string | []byte](field string, value S, reason, mend string) error {
	return &FieldError{Field: field, Value: excerpt(value), Reason: reason, Mend: mend}
}

// within puts the name of the enclosing field before that of a FieldError.
func within(outer string, err error) error {
	var inner *FieldError
	if !errors.As(err, &inner) {
		return err
	}
	moved := *inner
	switch {
	case inner.Field == "":
		moved.Field = outer
	case inner.Field[0] == '[':
		moved.Field = outer + inner.Field
	default:
		moved.Field = outer + "." + inner.Field
	}
	return &moved
}
