// Package http1 reads and writes HTTP/1.1 messages for a proxy: heads that are
// parsed strictly, and bodies whose end is known without doubt.
//
// Where a sender's message could be understood in two ways, it is refused: two
// lengths, a length beside a transfer coding, a line that ends in a bare LF or
// is folded, white space before a colon, a transfer coding that does not end in
// chunked. Requests are smuggled past a proxy through nothing else (RFC 9112
// section 11). What it forwards it writes itself, so that the next hop reads
// one message where it read one.
//
// A head is copied once into one string, of which all fields are parts; nothing
// else is allocated. Names are compared without regard to case.
//
// Invariant: this package imports the standard library alone.
package http1

import "strings"

// Known is a field name that a proxy acts upon. Zero is any other.
type Known uint8

// The known names.
const (
	Other Known = iota
	Accept
	Authorization
	Connection
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	Forwarded
	GRPCStatus
	Host
	HTTP2Settings
	IdempotencyKey
	KeepAlive
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	TE
	Trailer
	TransferEncoding
	Upgrade
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XRequestID
)

// names are the known names in lower case.
var names = [...]string{
	Accept: "accept", Authorization: "authorization", Connection: "connection", ContentLength: "content-length", ContentType: "content-type",
	Cookie: "cookie", Date: "date", Expect: "expect", Forwarded: "forwarded", GRPCStatus: "grpc-status", Host: "host",
	HTTP2Settings: "http2-settings", IdempotencyKey: "idempotency-key", KeepAlive: "keep-alive",
	ProxyAuthenticate: "proxy-authenticate", ProxyAuthorization: "proxy-authorization", ProxyConnection: "proxy-connection",
	TE: "te", Trailer: "trailer", TransferEncoding: "transfer-encoding", Upgrade: "upgrade",
	XForwardedFor: "x-forwarded-for", XForwardedHost: "x-forwarded-host", XForwardedProto: "x-forwarded-proto",
	XRequestID: "x-request-id",
}

// byLength lists the known names of each length.
var byLength = [20][]Known{
	2: {TE}, 4: {Host, Date}, 6: {Accept, Cookie, Expect}, 7: {Trailer, Upgrade}, 9: {Forwarded}, 10: {Connection, KeepAlive},
	11: {GRPCStatus}, 12: {ContentType, XRequestID}, 13: {Authorization}, 14: {ContentLength, HTTP2Settings}, 15: {XForwardedFor, IdempotencyKey},
	16: {XForwardedHost, ProxyConnection}, 17: {TransferEncoding, XForwardedProto}, 18: {ProxyAuthenticate}, 19: {ProxyAuthorization},
}

// KnownName returns which known name a name is.
func KnownName(name string) Known {
	if len(name) >= len(byLength) {
		return Other
	}
	for _, k := range byLength[len(name)] {
		// The last letters differ within a length more often than the first.
		if want := names[k]; name[len(name)-1]|0x20 == want[len(want)-1] && strings.EqualFold(name, want) {
			return k
		}
	}
	return Other
}

// HopByHop reports whether the field is between two neighbours and is not
// forwarded (RFC 9110 section 7.6.1), whatever Connection lists. Credentials
// for a proxy count (RFC 9110 section 11.7): this one asks for none, and they
// are nobody else's. The framing fields are among them since who forwards
// frames anew.
func (k Known) HopByHop() bool {
	switch k {
	case Connection, KeepAlive, ProxyConnection, ProxyAuthenticate, ProxyAuthorization, TE, Trailer, TransferEncoding, Upgrade, HTTP2Settings, ContentLength:
		return true
	default:
		return false
	}
}

// Trails reports whether the field may be a trailer: not if it frames or routes the
// message, or says who sends it (RFC 9110 section 6.5.1).
func (k Known) Trails() bool {
	switch k {
	case Authorization, ContentType, Cookie, Expect, Forwarded, Host, XForwardedFor, XForwardedHost, XForwardedProto, XRequestID:
		return false
	default:
		return !k.HopByHop()
	}
}

// Field is one header or trailer field. Value has no white space around it.
type Field struct {
	Name, Value string
	Known       Known
}

// NewField returns a field whose name is looked up.
func NewField(name, value string) Field { return Field{name, value, KnownName(name)} }

// Find returns the value of the first field of a name that is no known one.
func Find(fields []Field, name string) (string, bool) {
	for i := range fields {
		if len(fields[i].Name) == len(name) && strings.EqualFold(fields[i].Name, name) {
			return fields[i].Value, true
		}
	}
	return "", false
}

// FindKnown returns the value of the first field of a known name.
func FindKnown(fields []Field, name Known) (string, bool) {
	for i := range fields {
		if fields[i].Known == name {
			return fields[i].Value, true
		}
	}
	return "", false
}

// Error is a message that cannot be taken.
type Error struct {
	Status int    // what to answer: 400, 413, 414, 431, 501, 505
	Reason string // one sentence without the message's own words
}

// Error is the reason.
func (e *Error) Error() string { return e.Reason }

func malformed(reason string) error { return &Error{400, reason} }

// tokens are the bytes of a token (RFC 9110 section 5.6.2), and values those of
// a field value (section 5.5): visible, space, tab and obs-text.
var tokens, values = func() (tokens, values [256]bool) {
	for c := range 256 {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		tokens[c] = letter || c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0 && c != 0
		values[c] = c >= ' ' && c != 0x7f || c == '\t'
	}
	return tokens, values
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

func isValue(s string) bool {
	for i := range len(s) {
		if !values[s[i]] {
			return false
		}
	}
	return true
}

// trimSpace takes spaces and tabs off both ends.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// HasToken reports whether a comma-separated list has a token.
func HasToken(list, token string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(trimSpace(part), token) {
			return true
		}
	}
	return false
}
