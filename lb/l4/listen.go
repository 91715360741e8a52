//go:build linux

package l4

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// backlog is how many connections the kernel accepts ahead; it takes the least
// of this and net.core.somaxconn.
const backlog = 4096

// listen makes a listening socket.
func listen(kind int, at netip.AddrPort, transparent bool) (int, error) {
	fd, err := unix.Socket(family(at.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	if err := setListen(fd, kind, at, transparent); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setListen(fd, kind int, at netip.AddrPort, transparent bool) error {
	options := [][3]int{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}}
	if kind == unix.SOCK_DGRAM {
		options = [][3]int{{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}}
	}
	if at.Addr().Is6() {
		only := 1
		if at.Addr().IsUnspecified() {
			only = 0 // [::] is for all, as everywhere in Go
		}
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only})
	}
	for _, o := range options { // those of TCP pass to what is accepted
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("setting option %d: %w", o[1], err)
		}
	}
	if transparent {
		if err := setTransparent(fd, at.Addr()); err != nil {
			return err
		}
	}
	if errno := bind(fd, at); errno != 0 {
		return fmt.Errorf("binding %s: %w", at, errno)
	}
	if kind == unix.SOCK_DGRAM {
		return nil
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listening on %s: %w", at, err)
	}
	return nil
}
