package proxyproto

import (
	"errors"
	"io"
	"net/netip"
	"slices"
)

// Trusts reports whether an address lies in one of the networks that are trusted to write
// headers. Its IPv6 zone does not count.
func Trusts(networks []netip.Prefix, a netip.Addr) bool {
	if len(networks) == 0 {
		return false
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Client is whose the connection is that a proxy passes on: the proxy's own where the
// header names nobody, as in its health checks. A 4-in-6 address is unmapped.
func (h Header) Client(proxy netip.AddrPort) netip.AddrPort {
	if !h.Known() {
		return proxy
	}
	return netip.AddrPortFrom(h.Source.Addr().Unmap().WithZone(""), h.Source.Port())
}

// Read reads the header that r begins with; rest is what of the octets read stands behind
// it. The error is that of r where it ends before the header, or one of Parse's. It never
// reads more than SizeMax octets.
func Read(r io.Reader) (h Header, rest []byte, err error) {
	buf := make([]byte, 0, SizeMax)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, size, parseErr := Parse(buf)
		switch {
		case parseErr == nil:
			return h, buf[size:], nil
		case !errors.Is(parseErr, ErrShort):
			return h, nil, parseErr
		case err != nil:
			return h, nil, err
		}
	}
}
