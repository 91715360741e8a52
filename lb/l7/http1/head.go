package http1

import (
	"strconv"
	"strings"
)

// FieldsMax is the number of fields of one head or trailer section.
const FieldsMax = 128

// Methods that make a difference here (RFC 9110 section 9.3).
const (
	connect = "CONNECT"
	head    = "HEAD"
	options = "OPTIONS"
)

// Framing says how a body ends.
type Framing uint8

// The framings.
const (
	NoBody  Framing = iota
	Length          // after a number of bytes
	Chunked         // with the last chunk
	ToClose         // when the connection ends; responses only
)

// Request is the head of a request. Its strings are parts of the one that was
// parsed.
type Request struct {
	Method string
	Target string // as it was sent: "/path?query", "*", "http://host/path"
	Path   string // of the target, as it was sent; "*" for the asterisk
	Query  string // without the question mark
	Host   string // of the target, or of the Host field; empty in HTTP/1.0 only
	Fields []Field
	Minor  int // of the version: HTTP/1.Minor

	Framing   Framing
	Length    int64  // with Framing Length
	KeepAlive bool   // the connection may be used again
	Upgrade   string // the protocol that is asked for; empty: none
	Continue  bool   // 100 (Continue) is expected
	// Listed says that Connection names fields that are hop by hop too.
	Listed bool
}

// Response is the head of a response.
type Response struct {
	Status int
	Reason string
	Fields []Field
	Minor  int

	Framing   Framing
	Length    int64
	KeepAlive bool
	Upgrade   string
	Listed    bool
}

// framing is what the fields of a head say of what follows it.
type framing struct {
	length   int64 // -1: not given
	chunked  bool
	coded    bool // Transfer-Encoding was given
	close    bool
	keep     bool
	upgrade  bool // Connection: upgrade
	protocol string
	listed   bool
	host     string
	hosts    int
	expect   bool
}

// ParseRequest parses a head up to and with its empty line. r.Fields is
// overwritten in place. Errors are *Error.
func (r *Request) ParseRequest(text string) error {
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok {
		return malformed("the request line does not end")
	}
	*r = Request{Fields: r.Fields[:0]}
	if err := r.parseLine(line); err != nil {
		return err
	}
	var f framing
	var err error
	if r.Fields, err = parseFields(r.Fields, rest, &f); err != nil {
		return err
	}
	return r.settle(&f)
}

// parseLine parses "GET /path HTTP/1.1" (RFC 9112 section 3).
func (r *Request) parseLine(line string) error {
	method, rest, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !isToken(method) || target == "" {
		return malformed("the request line is not a method, a target and a version with one space between them")
	}
	switch {
	case version == "HTTP/1.1":
		r.Minor = 1
	case version == "HTTP/1.0":
	case len(version) == 8 && strings.HasPrefix(version, "HTTP/") && isDigit(version[5]) && version[6] == '.' && isDigit(version[7]):
		if version[5] != '1' {
			return &Error{505, "the version is not HTTP/1.1, HTTP/1.0 or HTTP/2"}
		}
		r.Minor = 1 // RFC 9110 section 6.2: a higher minor version is read as the highest known
	default:
		return malformed("the version is not one of HTTP")
	}
	r.Method, r.Target = method, target
	return r.parseTarget()
}

// Adopt checks a request that came over HTTP/2 and is to be written as HTTP/1.1:
// Method, Target, Host and Fields are given. What would be more than one word
// of a request line, or what HTTP/2 has no place for, is refused (RFC 9113
// sections 8.2.2 and 10.3). It sets Path and Query.
func (r *Request) Adopt() error {
	host := r.Host
	switch {
	case !isToken(r.Method):
		return malformed("the method is none")
	case r.Target == "" || r.Target[0] != '/' && r.Target != "*":
		return malformed("the path does not begin with a slash")
	case !isHost(host) || host == "":
		return malformed("the authority is no host")
	}
	for _, f := range r.Fields {
		switch f.Known {
		case Connection, KeepAlive, ProxyConnection, TransferEncoding, Upgrade:
			return malformed("a field belongs to HTTP/1.1")
		case Host:
			if !strings.EqualFold(f.Value, host) {
				return malformed("the authority and the Host field differ")
			}
		case TE:
			if f.Value != "trailers" {
				return malformed("the TE field says more than trailers")
			}
		default:
		}
	}
	return r.parseTarget()
}

// parseTarget takes the target apart (RFC 9112 section 3.2).
func (r *Request) parseTarget() error {
	for i := range len(r.Target) {
		if c := r.Target[i]; c <= ' ' || c >= 0x7f {
			return malformed("the target has a byte that belongs into no target")
		}
	}
	rest := r.Target
	switch {
	case r.Method == connect:
		return &Error{501, "CONNECT is not served here"}
	case rest == "*":
		if r.Method != options {
			return malformed("the target * belongs to OPTIONS")
		}
		r.Path = rest
		return nil
	case rest[0] == '/':
	default:
		scheme, after, ok := strings.Cut(rest, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return malformed("the target is neither a path nor a URL")
		}
		end := strings.IndexAny(after, "/?")
		if end < 0 {
			end = len(after)
		}
		r.Host, rest = after[:end], after[end:]
		if !isHost(r.Host) || r.Host == "" {
			return malformed("the target's host is none")
		}
		if rest == "" || rest[0] == '?' {
			rest = "/" + rest // RFC 9110 section 4.2.3: an empty path is "/"
		}
	}
	if strings.IndexByte(rest, '#') >= 0 {
		return malformed("the target has a fragment")
	}
	r.Path, r.Query, _ = strings.Cut(rest, "?")
	return nil
}

// settle checks what the fields say together.
func (r *Request) settle(f *framing) error {
	switch {
	case f.hosts > 1:
		return malformed("there is more than one Host field") // RFC 9112 section 3.2
	case f.hosts == 0 && r.Minor == 1:
		return malformed("the Host field is missing")
	case f.hosts == 1 && !isHost(f.host):
		return malformed("the Host field holds no host")
	case r.Host != "" && f.hosts == 1 && !strings.EqualFold(r.Host, f.host):
		return malformed("the target and the Host field name different hosts")
	case f.coded && f.length >= 0:
		return malformed("both Content-Length and Transfer-Encoding are given") // RFC 9112 section 6.1
	case f.coded && r.Minor == 0:
		return malformed("HTTP/1.0 has no Transfer-Encoding")
	case f.coded && !f.chunked:
		return malformed("the transfer coding does not end in chunked") // RFC 9112 section 6.3
	case f.coded:
		r.Framing = Chunked
	case f.length > 0:
		r.Framing, r.Length = Length, f.length
	}
	if r.Host == "" {
		r.Host = f.host
	}
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keep)
	r.Continue = f.expect && r.Minor == 1 && r.Framing != NoBody
	r.Listed = f.listed
	// An upgrade to h2c is not offered on, which is allowed (RFC 9113 section 3.1):
	// behind it a client would ask what no route allows.
	if f.upgrade && r.Minor == 1 && r.Framing == NoBody && !HasToken(f.protocol, "h2c") {
		r.Upgrade = f.protocol
	}
	return nil
}

// ParseResponse parses the head of a response to a request with the given
// method. r.Fields is overwritten in place.
func (r *Response) ParseResponse(text, method string) error {
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok {
		return malformed("the status line does not end")
	}
	*r = Response{Fields: r.Fields[:0]}
	// RFC 9112 section 4: "HTTP/1.1 200 OK", where the reason may be missing.
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || !isDigit(line[7]) || line[8] != ' ' ||
		!isDigit(line[9]) || !isDigit(line[10]) || !isDigit(line[11]) || len(line) > 12 && line[12] != ' ' || !isValue(line) {
		return malformed("the status line is none of HTTP/1.1")
	}
	r.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if line[7] != '0' {
		r.Minor = 1
	}
	if len(line) > 13 {
		r.Reason = line[13:]
	}
	if r.Status < 100 {
		return malformed("the status is none")
	}
	var f framing
	var err error
	if r.Fields, err = parseFields(r.Fields, rest, &f); err != nil {
		return err
	}
	return r.settle(&f, method)
}

func (r *Response) settle(f *framing, method string) error {
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keep)
	r.Listed = f.listed
	if f.upgrade {
		r.Upgrade = f.protocol
	}
	switch { // RFC 9112 section 6.3
	case f.coded && f.length >= 0:
		return malformed("both Content-Length and Transfer-Encoding are given")
	case method == head, r.Status < 200, r.Status == 204, r.Status == 304:
		r.Length = f.length // what a body would have; -1: not said
	case f.coded && !f.chunked:
		return malformed("the transfer coding is not chunked")
	case f.coded:
		r.Framing = Chunked
	case f.length > 0:
		r.Framing, r.Length = Length, f.length
	case f.length == 0:
	default:
		r.Framing, r.KeepAlive = ToClose, false
	}
	return nil
}

// parseFields parses fields up to and with the empty line (RFC 9112 section 5).
func parseFields(fields []Field, rest string, f *framing) ([]Field, error) {
	f.length = -1
	for {
		end := strings.IndexByte(rest, '\r')
		if end < 0 || len(rest) < end+2 || rest[end+1] != '\n' {
			return fields, malformed("a line does not end in CRLF")
		}
		line := rest[:end]
		rest = rest[end+2:]
		if line == "" {
			if rest != "" {
				return fields, malformed("the head goes on after its end")
			}
			return fields, nil
		}
		if line[0] == ' ' || line[0] == '\t' {
			return fields, malformed("a line is folded") // RFC 9112 section 5.2
		}
		colon := strings.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) {
			// White space before the colon is among it: RFC 9112 section 5.1.
			return fields, malformed("a line has no field name before a colon")
		}
		value := trimSpace(line[colon+1:])
		if !isValue(value) {
			return fields, malformed("a field has a control character")
		}
		if len(fields) == FieldsMax {
			return fields, &Error{431, "there are more than " + strconv.Itoa(FieldsMax) + " fields"}
		}
		field := NewField(line[:colon], value)
		fields = append(fields, field)
		if field.Known != Other {
			if err := f.note(field); err != nil {
				return fields, err
			}
		}
	}
}

// note takes in one known field.
func (f *framing) note(field Field) error {
	value := field.Value
	switch field.Known {
	case ContentLength:
		n, ok := parseLength(value)
		switch {
		case f.length >= 0:
			return malformed("there is more than one Content-Length") // RFC 9112 section 6.3
		case !ok:
			return malformed("the Content-Length is no number")
		}
		f.length = n
	case TransferEncoding:
		if f.coded {
			return malformed("there is more than one Transfer-Encoding")
		}
		f.coded, f.chunked = true, strings.EqualFold(value, "chunked")
		if !f.chunked && strings.HasSuffix(strings.ToLower(value), "chunked") && HasToken(value, "chunked") {
			return &Error{501, "a transfer coding beside chunked is not understood"} // RFC 9112 section 6.1
		}
	case Connection:
		f.noteConnection(value)
	case Upgrade:
		f.protocol = value
	case Host:
		f.host = value
		f.hosts++
	case Expect:
		if !strings.EqualFold(value, "100-continue") {
			return &Error{417, "the expectation is not 100-continue"}
		}
		f.expect = true
	default:
	}
	return nil
}

func (f *framing) noteConnection(value string) {
	for part := range strings.SplitSeq(value, ",") {
		switch part = trimSpace(part); {
		case part == "":
		case strings.EqualFold(part, "close"):
			f.close = true
		case strings.EqualFold(part, "keep-alive"):
			f.keep = true
		case strings.EqualFold(part, "upgrade"):
			f.upgrade = true
		default:
			f.listed = true
		}
	}
}

// parseLength reads digits and nothing else: no sign, no list, no white space.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// isHost reports whether s may be a host with or without a port (RFC 9110
// section 7.2): empty, a name, or an address. A user or a path never is, nor what
// one reader would part from its port elsewhere than another.
func isHost(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 2 || !isHostText(s[1:end], ':') {
			return false
		}
		port = s[end+1:]
	} else {
		if colon := strings.IndexByte(s, ':'); colon >= 0 {
			host, port = s[:colon], s[colon:]
		}
		if host == "" && port != "" || !isHostText(host, '-') {
			return false
		}
	}
	return port == "" || port[0] == ':' && strings.Trim(port[1:], "0123456789") == ""
}

// isHostText reports whether s has nothing but what a name may have (RFC 3986 section
// 3.2.2), and another byte.
func isHostText(s string, another byte) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != another && strings.IndexByte("-._~%!$&'()*+,;=", c) < 0 {
			return false
		}
	}
	return true
}
