package proxyproto

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

const (
	prefixV1 = "PROXY "
	// sizeMaxV1 is the longest line, with its CRLF (PROXY section 2.1).
	sizeMaxV1 = 107
)

// parseV1 reads the line of version 1 (PROXY section 2.1).
func parseV1(b []byte) (Header, int, error) {
	if !begins(b, prefixV1) {
		return Header{}, 0, ErrNone
	}
	window := b[:min(len(b), sizeMaxV1)]
	end := bytes.IndexByte(window, '\n')
	switch {
	case end < 0 && len(window) < sizeMaxV1:
		return Header{}, 0, ErrShort
	case end < 0:
		return Header{}, 0, malformed("line longer than %d octets", sizeMaxV1)
	case window[end-1] != '\r': // the prefix lies before it
		return Header{}, 0, malformed("line ends without CR")
	}
	h, err := parseLine(string(window[len(prefixV1) : end-1]))
	if err != nil {
		return Header{}, 0, err
	}
	return h, end + 1, nil
}

// parseLine reads what stands between the prefix and CRLF.
func parseLine(line string) (Header, error) {
	f := strings.Split(line, " ")
	if f[0] == "UNKNOWN" {
		return Header{}, nil // whatever follows is to be ignored (PROXY section 2.1)
	}
	if f[0] != "TCP4" && f[0] != "TCP6" {
		return Header{}, malformed("family %.16q", f[0])
	}
	if len(f) != 5 {
		return Header{}, malformed("%d fields, want 5", len(f))
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(f[1+i])
		if err != nil || addr.Is4() != (f[0] == "TCP4") || addr.Zone() != "" {
			return Header{}, malformed("%s address %.40q", f[0], f[1+i])
		}
		port, err := parsePort(f[3+i])
		if err != nil {
			return Header{}, err
		}
		ends[i] = netip.AddrPortFrom(addr, port)
	}
	return Header{Source: ends[0], Dest: ends[1]}, nil
}

// parsePort reads a decimal port, without leading zeros (PROXY section 2.1).
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, malformed("port %.8q", s)
	}
	return uint16(n), nil
}
