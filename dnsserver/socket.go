package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendWait bounds the wait for a full send buffer.
const sendWait = time.Second

// socket is a bound UDP socket that the runtime's poller does not know. A
// poller that waits on it would be called by the kernel for each datagram that
// has left, with a lock taken and an entry made in its list: a twentieth of the
// cost of an answer. Its owner waits with poll(2), and only when there is
// nothing to receive. It is safe for concurrent use; a descriptor in use is not
// closed.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	addr net.Addr
	// A pipe whose closing at one end wakes who waits for the other. The socket
	// itself will not do: another process may have it too, and live on.
	woken, waker *os.File
}

// newSocket takes c over, whatever comes of it.
func newSocket(c *net.UDPConn) (*socket, error) {
	defer c.Close() // takes it out of the poller; the second descriptor stays
	file, err := unpolled(c)
	if err != nil {
		return nil, fmt.Errorf("taking the socket out of the poller: %w", err)
	}
	s := &socket{file: file, addr: c.LocalAddr()}
	if s.raw, err = file.SyscallConn(); err == nil {
		s.woken, s.waker, err = os.Pipe()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

// unpolled is a second descriptor of c that the poller does not know.
func unpolled(c *net.UDPConn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	controlErr := raw.Control(func(first uintptr) {
		if fd, err = unix.FcntlInt(first, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false) // else os.NewFile would give it to the poller
		}
	})
	if err := errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "udp "+c.LocalAddr().String()), nil
}

func (s *socket) close() {
	s.file.Close()
	s.woken.Close()
	s.waker.Close()
}

// serve calls f until it returns true, each time that there is something to
// receive.
func (s *socket) serve(f func(fd uintptr) bool) error {
	woken := s.woken.Fd()
	err := s.raw.Control(func(fd uintptr) {
		for !f(fd) {
			wait(-1, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, unix.PollFd{Fd: int32(woken)})
		}
	})
	runtime.KeepAlive(s.woken)
	return err
}

// wake ends the wait in serve for good.
func (s *socket) wake() { s.waker.Close() }

// wait waits for events, for milliseconds at most; without end if that is
// negative.
func wait(milliseconds int, fds ...unix.PollFd) bool {
	n, err := unix.Poll(fds, milliseconds)
	return n > 0 || errors.Is(err, unix.EINTR)
}

// waitToSend waits until the socket takes more, for sendWait at most.
func waitToSend(fd uintptr) bool {
	return wait(int(sendWait/time.Millisecond), unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
}

// sendTo sends one datagram with a control message; it waits for sendWait at
// most. A numeric zone says on which interface a link-local address is.
func (s *socket) sendTo(msg, control []byte, to netip.AddrPort) error {
	var addr unix.Sockaddr
	if to.Addr().Is4() {
		addr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		zone, _ := strconv.ParseUint(to.Addr().Zone(), 10, 32) // none: 0
		addr = &unix.SockaddrInet6{Port: int(to.Port()), ZoneId: uint32(zone), Addr: to.Addr().As16()}
	}
	var err error
	controlErr := s.raw.Control(func(fd uintptr) {
		for {
			_, err = unix.SendmsgN(int(fd), msg, control, addr, unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EAGAIN) || !waitToSend(fd)) {
				return
			}
		}
	})
	return errors.Join(controlErr, err)
}
