package proxyproto

import (
	"encoding/binary"
	"net/netip"
)

// signature begins each header of version 2 (PROXY section 2.2).
const signature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	fixedOctets = len(signature) + 4 // signature, version and command, family, length
	ipv4Octets  = 2*4 + 2*2          // two addresses, two ports
	ipv6Octets  = 2*16 + 2*2
	unixOctets  = 2 * 108
)

// Values of the octets after the signature (PROXY section 2.2).
const (
	version       = 2 << 4
	commandLocal  = 0
	commandProxy  = 1
	familyUnspec  = 0
	familyIPv4    = 1
	familyIPv6    = 2
	familyUnix    = 3
	transStream   = 1
	transDatagram = 2
)

// parseV2 reads the binary header of version 2 (PROXY section 2.2).
func parseV2(b []byte) (Header, int, error) {
	if !begins(b, signature) {
		return Header{}, 0, ErrNone
	}
	if len(b) < fixedOctets {
		return Header{}, 0, ErrShort
	}
	command, family := b[12], b[13]
	n := int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case command&0xf0 != version:
		return Header{}, 0, malformed("version %d", command>>4)
	case command&0xf > commandProxy:
		return Header{}, 0, malformed("command %d", command&0xf)
	case fixedOctets+n > SizeMax:
		return Header{}, 0, malformed("%d octets, at most %d", fixedOctets+n, SizeMax)
	case len(b) < fixedOctets+n:
		return Header{}, 0, ErrShort
	}
	if command&0xf == commandLocal {
		// The receiver must use the real ends of the connection and discard the
		// rest, whatever the family (PROXY section 2.2).
		return Header{}, fixedOctets + n, nil
	}
	h, err := parseEnds(family, b[fixedOctets:fixedOctets+n])
	if err != nil {
		return Header{}, 0, err
	}
	return h, fixedOctets + n, nil
}

// parseEnds reads the addresses; extensions (TLVs) after them are skipped.
func parseEnds(family byte, b []byte) (Header, error) {
	var h Header
	if family == familyUnspec { // UNSPEC: the receiver ignores the addresses
		return h, nil
	}
	switch family & 0xf {
	case transStream:
	case transDatagram:
		h.Datagram = true
	default:
		return h, malformed("transport %d", family&0xf)
	}
	var want, size int
	switch family >> 4 {
	case familyIPv4:
		want, size = ipv4Octets, 4
	case familyIPv6:
		want, size = ipv6Octets, 16
	case familyUnix:
		want = unixOctets
	default:
		return h, malformed("family %d", family>>4)
	}
	if len(b) < want {
		return h, malformed("%d octets of addresses, want %d", len(b), want)
	}
	if size == 0 {
		return Header{}, nil // a UNIX socket has no IP addresses
	}
	source, _ := netip.AddrFromSlice(b[:size])
	dest, _ := netip.AddrFromSlice(b[size : 2*size])
	h.Source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(b[2*size:]))
	h.Dest = netip.AddrPortFrom(dest, binary.BigEndian.Uint16(b[2*size+2:]))
	return h, nil
}

// AppendV2 appends the header in version 2: command PROXY, or LOCAL if the ends
// are not known. Ends of different families go out as IPv6, IPv4 mapped.
func (h Header) AppendV2(dst []byte) []byte {
	dst = append(dst, signature...)
	if !h.Known() {
		return append(dst, version|commandLocal, familyUnspec, 0, 0)
	}
	trans := byte(transStream)
	if h.Datagram {
		trans = transDatagram
	}
	source, dest := h.Source.Addr(), h.Dest.Addr()
	if source.Is4() && dest.Is4() {
		dst = append(dst, version|commandProxy, familyIPv4<<4|trans, 0, ipv4Octets)
		dst = append(append(dst, source.AsSlice()...), dest.AsSlice()...)
	} else {
		dst = append(dst, version|commandProxy, familyIPv6<<4|trans, 0, ipv6Octets)
		s, d := source.As16(), dest.As16()
		dst = append(append(dst, s[:]...), d[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, h.Source.Port())
	return binary.BigEndian.AppendUint16(dst, h.Dest.Port())
}
