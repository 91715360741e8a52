package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// poller tells of the ends of connections: one epoll instance, and one
// goroutine for all of them. A connection is in it beside the runtime's own
// poller; closing it takes it out.
type poller struct {
	file *os.File // the epoll instance, itself waited for by the runtime
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("probe: making an epoll instance: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // os.NewFile makes it pollable by that
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("probe: making an epoll instance: %w", err)
	}
	return &poller{os.NewFile(uintptr(fd), "epoll")}, nil
}

func (p *poller) close() error { return p.file.Close() }

// edge triggers: each event is told once.
const edge = syscall.EPOLLET & 0xffffffff

// add tells of the end of c from now on, and of octets if they are to be
// drained, each as id.
func (p *poller) add(c *net.TCPConn, id uint64, drain bool) error {
	events := uint32(syscall.EPOLLRDHUP | edge)
	if drain {
		events |= syscall.EPOLLIN
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	epoll, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var added error
	event := syscall.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)} // the kernel keeps the bits
	err = raw.Control(func(fd uintptr) {
		added = epoll.Control(func(own uintptr) {
			err = syscall.EpollCtl(int(own), syscall.EPOLL_CTL_ADD, int(fd), &event)
		})
		added = errors.Join(added, err)
	})
	return errors.Join(err, added)
}

// wait calls told for each event until ctx ends.
func (p *poller) wait(ctx context.Context, told func(id uint64, ended bool)) error {
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(longPast()) })
	defer stop()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var events [256]syscall.EpollEvent
	for ctx.Err() == nil {
		n, waited := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, waited = syscall.EpollWait(int(fd), events[:], 0)
			return n != 0
		})
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("probe: waiting for connections: %w", err)
		}
		if waited != nil && !errors.Is(waited, syscall.EINTR) {
			return fmt.Errorf("probe: waiting for connections: %w", waited)
		}
		for _, e := range events[:max(n, 0)] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 // as add made it
			told(id, e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0)
		}
	}
	return nil
}

// keepalive bounds how long a silent peer goes unnoticed: asked after idle,
// it has wait to answer. The kernel counts in seconds.
func keepalive(c *net.TCPConn, idle, wait time.Duration) error {
	idle, wait = wholeSeconds(idle), wholeSeconds(wait)
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: wait, Count: 1}); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT of linux/tcp.h: as well for what was sent and is not acknowledged (RFC 5482)
	// Half a second less than the moment at which the kernel looks: it counts
	// from what came last, which is not the moment at which it began to wait.
	limit := idle + wait - time.Second/2
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(limit.Milliseconds()))
	}); err != nil {
		return err
	}
	return set
}
