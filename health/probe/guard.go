package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// guard refuses addresses that a registrant could use to make the checker talk
// to itself or to its surroundings: whoever may register an instance chooses
// what is connected to.
type guard struct {
	allow []netip.Prefix
}

// refusedError says that the guard let an address not pass.
type refusedError struct {
	addr netip.Addr
	kind string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%v is %s: not probed unless health.allow_targets has it", e.addr, e.kind)
}

// control is a net.Dialer's Control: it sees the address that is really about
// to be connected to, after the socket was made and before anything was sent.
func (g *guard) control(network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("guarding a %s connection: %w", network, err)
	}
	return g.check(ap.Addr())
}

func (g *guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	kind := kindOf(addr)
	if kind == "" || slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	return &refusedError{addr, kind}
}

// kindOf names what makes an address none to be probed, or is empty.
func kindOf(addr netip.Addr) string {
	switch {
	case isMetadata(addr):
		return "a metadata service"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsUnspecified(), addr.Is4() && addr.As4()[0] == 0:
		return "unspecified" // RFC 1122 section 3.2.1.3: this host on this network
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsMulticast():
		return "multicast"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	case addr.Is6():
		if v4, ok := embedded(addr); ok {
			return kindOf(v4)
		}
	}
	return ""
}

// isMetadata knows the addresses at which clouds hand out credentials to
// whatever runs on the machine, where they are not plainly link-local.
func isMetadata(addr netip.Addr) bool {
	switch addr.String() {
	case "169.254.169.254", // AWS, Azure, Google Cloud, OpenStack, DigitalOcean
		"fd00:ec2::254",   // AWS
		"fd20:ce::254",    // Google Cloud
		"100.100.100.200", // Alibaba Cloud
		"168.63.129.16":   // Azure's WireServer
		return true
	}
	return false
}

// embedded is the IPv4 address that a packet to addr would reach: of
// IPv4-compatible addresses (RFC 4291 section 2.5.5.1) and of those that a
// NAT64 translates (RFC 6052 section 2.1). IPv4-mapped ones were unmapped.
func embedded(addr netip.Addr) (v4 netip.Addr, ok bool) {
	b := addr.As16()
	compatible := [12]byte{}
	nat64 := [12]byte{0x00, 0x64, 0xff, 0x9b}
	prefix := [12]byte(b[:12])
	return netip.AddrFrom4([4]byte(b[12:])), prefix == compatible || prefix == nat64
}

// unmapPrefix makes a network of IPv4-mapped addresses one of IPv4 addresses,
// which is what check compares.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	const mappedBits = 96
	if p.Addr().Is4In6() && p.Bits() >= mappedBits {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return p
}
