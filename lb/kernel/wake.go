package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// WakeMark is on the packets that Wake sends (SO_MARK), so that rules can tell
// conntrack not to take them for connections.
const WakeMark = 0x6d757374

// Wake makes clients of established connections to a VIP send something, which
// whoever has their connections now answers with a reset: it sends each a segment,
// as from the VIP, with a sequence number that is almost surely outside of the
// client's window and without data. RFC 9293 section 3.10.7.4 has the client answer
// such a segment with an acknowledgement that carries the numbers that a reset must
// have. Nobody but the client and the dead instance knows them.
//
// It needs CAP_NET_RAW. A segment may get lost; a client that is not awoken learns
// of its loss when it sends.
func Wake(vip netip.AddrPort, clients []netip.AddrPort) error {
	if len(clients) == 0 {
		return nil
	}
	fd, err := openRaw(vip.Addr())
	if err != nil {
		return fmt.Errorf("waking clients: %w", err)
	}
	defer unix.Close(fd)
	var first error
	for _, client := range clients {
		err := send(fd, probe(vip, client), client)
		if err != nil && first == nil && !errors.Is(err, syscall.ENOBUFS) { // a full queue
			first = fmt.Errorf("waking client %v: %w", client, err)
		}
	}
	return first
}

// TryWake reports whether Wake could work here.
func TryWake() error {
	fd, err := openRaw(netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openRaw opens a socket that sends packets as they are (IPPROTO_RAW).
func openRaw(family netip.Addr) (int, error) {
	domain := unix.AF_INET
	if family.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("opening a raw socket (it needs CAP_NET_RAW): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, WakeMark); err != nil {
		_ = unix.Close(fd) // the first error counts
		return -1, fmt.Errorf("marking a raw socket: %w", err)
	}
	return fd, nil
}

func send(fd int, packet []byte, to netip.AddrPort) error {
	if to.Addr().Is4() {
		return unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	}
	return unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: to.Addr().As16()})
}

// Lengths of the headers, without options.
const (
	ipv4Header = 20
	ipv6Header = 40
	tcpHeader  = 20
)

// probe is an acknowledgement from the VIP with arbitrary numbers.
func probe(vip, client netip.AddrPort) []byte {
	var packet []byte
	if client.Addr().Is4() {
		packet = make([]byte, ipv4Header, ipv4Header+tcpHeader)
		packet[0] = 0x45 // version 4, 5 words of header; the kernel sums it
		binary.BigEndian.PutUint16(packet[2:], ipv4Header+tcpHeader)
		packet[8], packet[9] = 64, unix.IPPROTO_TCP
		copy(packet[12:], vip.Addr().AsSlice())
		copy(packet[16:], client.Addr().AsSlice())
	} else {
		packet = make([]byte, ipv6Header, ipv6Header+tcpHeader)
		packet[0] = 0x60 // version 6
		binary.BigEndian.PutUint16(packet[4:], tcpHeader)
		packet[6], packet[7] = unix.IPPROTO_TCP, 64
		copy(packet[8:], vip.Addr().AsSlice())
		copy(packet[24:], client.Addr().AsSlice())
	}
	segment := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(segment[0:], vip.Port())
	binary.BigEndian.PutUint16(segment[2:], client.Port())
	binary.BigEndian.PutUint32(segment[4:], jhash(packet[8:], HashSeed)) // a sequence number
	segment[12] = tcpHeader / 4 << 4
	segment[13] = 0x10 // ACK
	binary.BigEndian.PutUint16(segment[16:], checksum(vip.Addr(), client.Addr(), segment))
	return append(packet, segment...)
}

// checksum is TCP's (RFC 9293 section 3.1): of the segment and of a pseudo header.
func checksum(from, to netip.Addr, segment []byte) uint16 {
	sum := uint32(len(segment)) + unix.IPPROTO_TCP
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), segment} { // of even lengths
		for ; len(part) > 0; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
