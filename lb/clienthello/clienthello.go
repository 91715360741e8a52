// Package clienthello reads from the first octets of a TLS connection which
// server the client means, without terminating TLS: the server name (RFC 6066
// section 3) of its ClientHello (RFC 8446 section 4.1.2). With Encrypted Client
// Hello that is the public name of the outer one.
package clienthello

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// SizeMax is how many octets ServerName needs at most: one full record. Real
// messages have 200 to 2,000 octets; only a client that fragments its message
// needs the headers of several records.
const SizeMax = 5 + 1<<14

// ErrShort says that the octets are the beginning of a ClientHello: more are
// needed.
var ErrShort = errors.New("ClientHello is incomplete")

// ErrNone says that the octets are not those of a TLS client.
var ErrNone = errors.New("no TLS ClientHello")

// FormatError says what is wrong with a ClientHello.
type FormatError struct{ Reason string }

// Error is the reason, with what it is the reason of.
func (e *FormatError) Error() string { return "malformed ClientHello: " + e.Reason }

func malformed(format string, args ...any) error {
	return &FormatError{Reason: fmt.Sprintf(format, args...)}
}

const (
	recordHeader    = 5
	recordHandshake = 22      // RFC 8446 section 5.1
	recordMax       = 1 << 14 // RFC 8446 section 5.1
	messageHeader   = 4
	messageHello    = 1 // RFC 8446 section 4
	randomOctets    = 32
	extensionName   = 0   // RFC 6066 section 1.1
	nameHost        = 0   // RFC 6066 section 3
	nameMax         = 253 // of a host name without its last dot (RFC 1035 section 2.3.4)
)

// ServerName returns the name in lower case, without a last dot; "" when the
// client sent none. b is not kept. The error is ErrShort, ErrNone or a
// *FormatError; with SizeMax octets it is never ErrShort.
func ServerName(b []byte) (string, error) {
	message, err := handshake(b)
	if err != nil {
		return "", err
	}
	extensions, err := findExtensions(message)
	if err != nil {
		return "", err
	}
	for len(extensions.rest) > 0 {
		kind, body := extensions.uint16(), extensions.vector(2)
		if extensions.failed {
			return "", malformed("extensions end early")
		}
		if kind == extensionName {
			return parseNames(body)
		}
	}
	return "", nil
}

// handshake is the body of the first handshake message, which may lie in
// several records (RFC 8446 section 5.1).
func handshake(b []byte) ([]byte, error) {
	var joined []byte // nil while one record has it all
	for at, first := 0, true; ; first = false {
		rest := b[at:]
		if err := checkRecord(rest, first); err != nil {
			return nil, err
		}
		if len(rest) < recordHeader {
			return nil, short(b)
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		have := rest[recordHeader:min(len(rest), recordHeader+n)]
		part := have
		if !first {
			joined = append(joined, have...)
			part = joined
		}
		if len(part) > 0 && part[0] != messageHello {
			return nil, ErrNone
		}
		if len(part) >= messageHeader {
			size := int(part[1])<<16 | int(part[2])<<8 | int(part[3])
			if size > SizeMax-recordHeader-messageHeader {
				return nil, malformed("message of %d octets", size)
			}
			if len(part) >= messageHeader+size {
				return part[messageHeader : messageHeader+size], nil
			}
		}
		if len(have) < n {
			return nil, short(b)
		}
		if first {
			joined = append(joined, have...)
		}
		at += recordHeader + n
	}
}

// checkRecord judges what is there of a record's header.
func checkRecord(b []byte, first bool) error {
	wrong := ErrNone
	if !first {
		wrong = malformed("record between fragments")
	}
	if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
		return wrong
	}
	if len(b) < recordHeader {
		return nil
	}
	// A handshake record is not empty (RFC 8446 section 5.1).
	if n := int(binary.BigEndian.Uint16(b[3:])); n == 0 || n > recordMax {
		return malformed("record of %d octets", n)
	}
	return nil
}

// short asks for more octets while there may be more.
func short(b []byte) error {
	if len(b) >= SizeMax {
		return malformed("more than %d octets", SizeMax)
	}
	return ErrShort
}

// findExtensions skips what stands before the extensions (RFC 8446 section
// 4.1.2). A hello of old clients may end before them.
func findExtensions(message []byte) (cursor, error) {
	c := cursor{rest: message}
	c.skip(2 + randomOctets) // version, random
	c.vector(1)              // session id
	c.vector(2)              // cipher suites
	c.vector(1)              // compression methods
	if c.failed {
		return c, malformed("message ends early")
	}
	if len(c.rest) == 0 {
		return c, nil
	}
	extensions := cursor{rest: c.vector(2)}
	if c.failed || len(c.rest) > 0 {
		return c, malformed("length of the extensions")
	}
	return extensions, nil
}

// parseNames reads the extension: a list with one host name (RFC 6066 section 3
// allows one of each type, and defined one type).
func parseNames(body []byte) (string, error) {
	c := cursor{rest: body}
	list := cursor{rest: c.vector(2)}
	kind, name := list.uint8(), list.vector(2)
	if c.failed || list.failed || len(c.rest) > 0 || len(list.rest) > 0 {
		return "", malformed("length of the server name")
	}
	if kind != nameHost {
		return "", malformed("server name of type %d", kind)
	}
	return hostName(name)
}

// hostName checks that a name can be one, so that what is compared, logged and
// shown has no surprises in it.
func hostName(b []byte) (string, error) {
	name := strings.TrimSuffix(string(b), ".")
	if name == "" || len(name) > nameMax {
		return "", malformed("server name of %d octets", len(b))
	}
	for _, c := range []byte(name) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", malformed("server name %q", name)
		}
	}
	return strings.ToLower(name), nil
}

// cursor reads fields one after another. Once one is cut short, it has failed
// and gives zeros.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) skip(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.failed = nil, true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) uint8() int {
	if b := c.skip(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (c *cursor) uint16() int {
	if b := c.skip(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

// vector reads a field that begins with its length in size octets, 1 or 2.
func (c *cursor) vector(size int) []byte {
	if size == 1 {
		return c.skip(c.uint8())
	}
	return c.skip(c.uint16())
}
