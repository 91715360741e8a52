package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
)

// connect makes a TCP connection and closes it. It is a net.Dialer's work with
// half of its system calls: nothing is set on a socket that carries nothing, and
// an instance near by has answered before there is something to wait for.
func (s *Set) connect(ctx context.Context, to netip.AddrPort) error {
	if err := s.guard.check(to.Addr()); err != nil {
		return err
	}
	domain, address := sockaddr(to)
	if address == nil {
		return s.connectByDialer(ctx, to)
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err = syscall.Connect(fd, address); errors.Is(err, syscall.EINPROGRESS) {
		var made bool
		if made, err = connected(fd); !made && err == nil {
			return await(ctx, fd)
		}
	}
	_ = syscall.Close(fd) // nothing was left to be written
	return err
}

// sockaddr is an address as the kernel takes it; nil for one with a zone.
func sockaddr(to netip.AddrPort) (domain int, address syscall.Sockaddr) {
	switch a := to.Addr().Unmap(); {
	case a.Is4():
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	case a.Zone() == "":
		return syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(to.Port()), Addr: a.As16()}
	default:
		return 0, nil
	}
}

// connected reports whether a connection that was begun is made, or the error
// that has ended it.
func connected(fd int) (bool, error) {
	if _, err := syscall.Getpeername(fd); err == nil {
		return true, nil
	}
	errno, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	return false, err
}

// await waits for a connection that was begun, and closes it.
func await(ctx context.Context, fd int) error {
	file := os.NewFile(uintptr(fd), "connection")
	defer func() { _ = file.Close() }()
	deadline, _ := ctx.Deadline()
	if err := file.SetWriteDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(longPast()) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var made bool
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		made, failed = connected(int(fd))
		return made || failed != nil
	})
	if err != nil {
		return err
	}
	return failed
}
