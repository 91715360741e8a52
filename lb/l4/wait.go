//go:build linux

package l4

import (
	"errors"
	"math"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop waits with Go's poller for its epoll, of which it asks itself what there is.
// Waiting in epoll_wait would be a system call of some tens of microseconds a time, for
// which the runtime's monitor looks every 20 us as long as it finds any: where one core
// has all the work, that took a sixth of the CPU of spliced bodies.

// openEpoll makes the loop's epoll.
func (l *loop) openEpoll() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.SetNonblock(l.epoll, true); err == nil { // what Go's poller takes
		l.poller = os.NewFile(uintptr(l.epoll), "epoll")
		l.raw, err = l.poller.SyscallConn()
	}
	if err == nil {
		err = l.poller.SetReadDeadline(time.Time{}) // fails if it was not taken
	}
	return err
}

// waiter waits for the events of a loop.
type waiter struct {
	l      *loop
	events []unix.EpollEvent
	n      int
	err    error
	look   func(uintptr) bool // lookNow: made once, or a call would make garbage
}

// lookNow takes the events that there are; false: none.
func (w *waiter) lookNow(uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.l.epoll), uintptr(unsafe.Pointer(unsafe.SliceData(w.events))), uintptr(len(w.events)), 0, 0, 0)
	w.n = int(n)
	switch errno {
	case 0:
	case syscall.EINTR:
		w.n = 0
	default:
		w.n, w.err = 0, errno
	}
	return w.n > 0 || w.err != nil
}

// wait waits for events, or until a timer of the loop is due.
func (w *waiter) wait() ([]unix.EpollEvent, error) {
	l := w.l
	if len(l.turn) > 0 {
		w.lookNow(0)
		return w.events[:w.n], w.err
	}
	at := l.due()
	if l.alarm == 0 || at < l.alarm {
		var deadline time.Time
		if l.alarm = at; at < math.MaxInt64 {
			deadline = time.Now().Add(time.Duration(at - l.now))
		}
		if err := l.poller.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
	}
	w.n = 0
	if err := l.raw.Read(w.look); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		l.alarm = 0
		w.lookNow(0)
	}
	return w.events[:w.n], w.err
}

// due is when the next timer is, if nothing happens before.
func (l *loop) due() int64 {
	at := l.wheel.next()
	if at < 0 {
		at = math.MaxInt64
	}
	if l.stopping {
		at = min(at, l.stopAt)
	}
	return at
}
