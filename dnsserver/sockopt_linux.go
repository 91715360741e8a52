//go:build linux && !portable

package dnsserver

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what each UDP socket asks for, in octets: the default of 208
// KiB overflows at 277 queued queries.
const receiveBuffer = 4 << 20

// control sets a UDP socket up before it is bound to addr.
func control(c syscall.RawConn, addr netip.Addr) error {
	var err error
	controlErr := c.Control(func(fd uintptr) { err = setOptions(int(fd), addr) })
	if controlErr != nil {
		return controlErr
	}
	return err
}

func setOptions(fd int, addr netip.Addr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("setting SO_REUSEPORT: %w", err)
	}
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], receiveBuffer) == nil {
			continue // needs CAP_NET_ADMIN; without it the kernel's limit (rmem_max) holds
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], receiveBuffer); err != nil {
			return fmt.Errorf("setting the socket's buffers: %w", err)
		}
	}
	// Replies fit every path's MTU or near; a forged "fragmentation needed" must
	// not make the kernel fragment them, where a fragment can be replaced.
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT
	info := unix.IP_PKTINFO
	if addr.Is6() {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT
		info = unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return fmt.Errorf("setting path MTU discovery off: %w", err)
	}
	if !addr.IsUnspecified() {
		return nil
	}
	if err := unix.SetsockoptInt(fd, level, info, 1); err != nil {
		return fmt.Errorf("asking for the destination's address: %w", err)
	}
	return nil
}

// socketDrops is how many datagrams the kernel dropped at the socket, mostly as
// its receive buffer was full.
func socketDrops(fd uintptr) uint64 {
	const words, dropsWord = 9, 8 // SK_MEMINFO_VARS and SK_MEMINFO_DROPS of linux/sock_diag.h
	var info [words]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[dropsWord])
}
