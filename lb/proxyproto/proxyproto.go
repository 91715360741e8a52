// Package proxyproto reads and writes the header of the PROXY protocol, by
// which a proxy tells the next server whose connection it passes on: HAProxy's
// "The PROXY protocol, versions 1 & 2", cited below as PROXY with its section.
// Version 1 is read, version 2 is read and written.
//
// Whoever may connect can claim any address in a header. Read one only from
// networks that are trusted to write it.
package proxyproto

import (
	"errors"
	"fmt"
	"net/netip"
)

// SizeMax is the longest header that Parse takes, octets. Version 2 may have
// 65,551, nearly all of it extensions, which Parse skips; those in use need a
// few hundred.
const SizeMax = 4096

// ErrShort says that the octets are the beginning of a header: more are needed.
var ErrShort = errors.New("PROXY header is incomplete")

// ErrNone says that the octets are no header, of neither version.
var ErrNone = errors.New("no PROXY header")

// FormatError says what is wrong with a header.
type FormatError struct{ Reason string }

// Error is the reason, with what it is the reason of.
func (e *FormatError) Error() string { return "malformed PROXY header: " + e.Reason }

func malformed(format string, args ...any) error {
	return &FormatError{Reason: fmt.Sprintf(format, args...)}
}

// Header is what a proxy says of a connection. The zero value says nothing: the
// connection is the proxy's own (its health check), or of a family that has no
// IP addresses, and its ends are those of the socket.
type Header struct {
	Source, Dest netip.AddrPort // of one family
	Datagram     bool           // UDP
}

// Known reports whether the header names the ends of a connection.
func (h Header) Known() bool { return h.Source.IsValid() && h.Dest.IsValid() }

// Parse reads a header at the beginning of b and returns how many octets it
// takes; b is not kept. The error is ErrShort, ErrNone or a *FormatError. b
// needs no more than SizeMax octets: with that many the error is never ErrShort.
func Parse(b []byte) (Header, int, error) {
	if len(b) == 0 {
		return Header{}, 0, ErrShort
	}
	if b[0] == signature[0] {
		return parseV2(b)
	}
	return parseV1(b)
}

// begins reports whether b begins with prefix, as far as b goes.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}
