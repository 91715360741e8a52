//go:build linux

package l4

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below are those of the data path. They never wait, so the scheduler
// is not told of them; it is of epoll_wait, which does.

// receive reads what is there into b.
func receive(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// send writes what the socket takes of b.
func send(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// splice moves up to n octets between a socket and a pipe.
func splice(from, to, n int) (int, syscall.Errno) {
	moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}

// sockaddr is an address as the kernel has it.
type sockaddr struct {
	raw  unix.RawSockaddrInet6 // room for either family
	size uint32
}

// newSockaddr is the kernel's form of a.
func newSockaddr(a netip.AddrPort) sockaddr {
	var s sockaddr
	port := (*[2]byte)(unsafe.Pointer(&s.raw.Port)) // at the same place in both
	binary.BigEndian.PutUint16(port[:], a.Port())
	if a.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		v4.Family, v4.Addr = unix.AF_INET, a.Addr().As4()
		s.size = unix.SizeofSockaddrInet4
		return s
	}
	s.raw.Family, s.raw.Addr = unix.AF_INET6, a.Addr().As16()
	s.raw.Scope_id = scope(a.Addr())
	s.size = unix.SizeofSockaddrInet6
	return s
}

// scope is the interface of a link-local address; 0: none. Zones are numbers
// here, as addrPort makes them.
func scope(a netip.Addr) uint32 {
	var n uint32
	for _, c := range []byte(a.Zone()) {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint32(c-'0')
	}
	return n
}

// addrPort is the address, IPv4 ones as such however they came.
func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:])
	if s.raw.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)).Addr), port)
	}
	a := netip.AddrFrom16(s.raw.Addr).Unmap()
	if s.raw.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(fmt.Sprint(s.raw.Scope_id))
	}
	return netip.AddrPortFrom(a, port)
}

// accept takes a connection from a listening socket's queue.
func accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	s := sockaddr{size: unix.SizeofSockaddrInet6}
	got, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(unsafe.Pointer(&s.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(got), s.addrPort(), 0
}

// localAddr is the address that a socket is bound to: for an accepted one, what
// the client connected to.
func localAddr(fd int) netip.AddrPort {
	s := sockaddr{size: unix.SizeofSockaddrInet6}
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(unsafe.Pointer(&s.size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return s.addrPort()
}

// connect begins to connect fd; EINPROGRESS is no failure.
func connect(fd int, to netip.AddrPort) syscall.Errno {
	s := newSockaddr(to)
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.size))
	if errno == unix.EINPROGRESS {
		return 0
	}
	return errno
}

// family is the address family of a.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// newSocket makes a socket to connect to an address; from, if valid, is a
// foreign address to connect from (Config.Transparent).
func newSocket(kind int, to, from netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(to.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil && from.IsValid() {
		err = bindForeign(fd, from)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bindForeign binds fd to an address that is not this machine's. A port that is
// taken is left to the kernel: the address is what counts.
func bindForeign(fd int, from netip.AddrPort) error {
	if err := setTransparent(fd, from.Addr(), true); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("setting SO_REUSEADDR: %w", err)
	}
	errno := bind(fd, from)
	if errno == unix.EADDRINUSE {
		errno = bind(fd, netip.AddrPortFrom(from.Addr(), 0))
	}
	if errno != 0 {
		return fmt.Errorf("binding to the client's address %s: %w", from, errno)
	}
	return nil
}

func bind(fd int, to netip.AddrPort) syscall.Errno {
	s := newSockaddr(to)
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.size))
	return errno
}

// setTransparent lets a socket have foreign addresses, which needs
// CAP_NET_ADMIN, or takes that back.
func setTransparent(fd int, a netip.Addr, on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_TRANSPARENT, 0
	if a.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if on {
		value = 1
	}
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return fmt.Errorf("setting IP_TRANSPARENT (needs CAP_NET_ADMIN): %w", err)
	}
	return nil
}

// mayBeTransparent reports why no socket of this process can be made
// transparent; nil: they can.
func mayBeTransparent() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	defer unix.Close(fd)
	return setTransparent(fd, netip.IPv4Unspecified(), true)
}

// Opaque takes back what a transparent Proxy has made of a listening socket,
// when another proxy has it from now on.
func Opaque(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	// Not what localAddr says, which has IPv4 addresses of IPv6 sockets as such.
	err = raw.Control(func(fd uintptr) {
		family, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		a := netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			a = netip.IPv6Unspecified()
		}
		if setErr = err; err == nil {
			setErr = setTransparent(int(fd), a, false)
		}
	})
	if err != nil {
		return err
	}
	return setErr
}

// reset closes a TCP socket so that its peer gets a reset (RFC 9293 section
// 3.10.5, ABORT).
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// socketError takes the error that a socket has pending.
func socketError(fd int) syscall.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return syscall.Errno(n)
}
