package l7

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// parks says whether idle connections can be parked.
const parks = true

func newPark() (*park, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		_ = syscall.Close(epoll)
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &park{epoll: epoll, wakeR: pipe[0], wakeW: pipe[1], begun: time.Now(), conns: map[int32]parked{}}
	if err := p.watch(p.wakeR); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// duplicate is another descriptor of what fd is one of.
func duplicate(fd int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("fcntl", errno)
	}
	return int(n), nil
}

// watch has a descriptor reported once, when it can be read from.
func (p *park) watch(fd int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &event))
}

// unwatch ends that; it fails only for what is not watched.
func (p *park) unwatch(fd int) { _ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, fd, nil) }

// wake ends run: it sees that the pipe is closed.
func (p *park) wake() { _ = syscall.Close(p.wakeW) }

// run hands connections that have something to say to wake, with their descriptors,
// until close. One that does no more than end, of which there is a descriptor alone, is
// closed here. Those who are left at the end have asked, and are handed over, too.
func (p *park) run(wake func(fd int, c parked)) {
	defer p.release()
	events := make([]syscall.EpollEvent, 128)
	for {
		n, err := syscall.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic("l7: invariant broken: waiting for idle connections: " + err.Error())
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == p.wakeR {
				for fd, c := range p.left() {
					wake(int(fd), c)
				}
				return
			}
			c, ok, last := p.take(e.Fd)
			switch {
			case !ok:
			case c.k == nil && ended(int(e.Fd), false):
				_ = syscall.Close(int(e.Fd))
			default:
				wake(int(e.Fd), c)
			}
			if last {
				p.close()
			}
		}
	}
}

func (p *park) release() {
	_ = syscall.Close(p.epoll)
	_ = syscall.Close(p.wakeR)
}
