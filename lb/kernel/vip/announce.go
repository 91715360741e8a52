package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// announceTimes is how often the link is told of a new holder: frames get
	// lost, most of all just after an interface or a switch port came up.
	announceTimes = 3
	// announceInterval lies between two of them.
	announceInterval = 300 * time.Millisecond
)

// announce tells the link who has the address now.
func (v *VIP) announce() error {
	link, err := v.link()
	if err != nil {
		return err
	}
	mac := link.Attrs().HardwareAddr
	if len(mac) != 6 {
		return nil // nobody there keeps MAC addresses
	}
	frame, protocol := gratuitousARP(mac, v.config.Address.Addr()), uint16(unix.ETH_P_ARP)
	if v.config.Address.Addr().Is6() {
		frame, protocol = neighbourAdvertisement(mac, v.config.Address.Addr()), unix.ETH_P_IPV6
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // 0: it receives nothing
	if err != nil {
		return fmt.Errorf("opening a packet socket (it needs CAP_NET_RAW): %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: link.Attrs().Index, Halen: 6}
	copy(to.Addr[:], frame[:6])
	if err := unix.Sendto(fd, frame, 0, to); err != nil {
		return fmt.Errorf("announcing %v on interface %s: %w", v.config.Address.Addr(), v.config.Interface, err)
	}
	return nil
}

// ethernet begins a frame.
func ethernet(to, from net.HardwareAddr, protocol uint16) []byte {
	frame := append(append(make([]byte, 0, 128), to...), from...)
	return binary.BigEndian.AppendUint16(frame, protocol)
}

// gratuitousARP is a request for one's own address (RFC 5227 section 3: it updates
// whoever has an entry already).
func gratuitousARP(mac net.HardwareAddr, a netip.Addr) []byte {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := ethernet(broadcast, mac, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, lengths, request (RFC 826)
	frame = append(append(frame, mac...), a.AsSlice()...)
	return append(append(frame, make([]byte, 6)...), a.AsSlice()...)
}

// neighbourAdvertisement is unsolicited, to all nodes, and overrides what they have
// (RFC 4861 sections 4.4 and 7.2.6).
func neighbourAdvertisement(mac net.HardwareAddr, a netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1")
	frame := ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	const length = 32
	frame = append(frame, 0x60, 0, 0, 0, 0, length, unix.IPPROTO_ICMPV6, 255) // hop limit, section 7.1.2
	frame = append(append(frame, a.AsSlice()...), all.AsSlice()...)
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...) // override
	message = append(append(message, 2, 1), mac...)                        // target link-layer address
	binary.BigEndian.PutUint16(message[2:], checksum(a, all, message))
	return append(frame, message...)
}

// checksum is ICMPv6's (RFC 4443 section 2.3): of the message, of an even length,
// and of a pseudo header.
func checksum(from, to netip.Addr, message []byte) uint16 {
	sum := uint32(len(message)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), message} {
		for ; len(part) > 0; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
