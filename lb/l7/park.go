package l7

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// parkAfter is how long a goroutine waits for a connection's next request, with
// its buffers; then the connection is parked. Clients that go on asking do so
// sooner, and pay nothing for it.
const parkAfter = time.Second

// errPark says that a connection has been idle for parkAfter.
var errPark = errors.New("the connection is idle")

// park is where idle connections wait for their next request: all of them on
// one epoll instance, without a goroutine or a buffer each. A parked connection
// is the park's alone, which is who closes it.
type park struct {
	epoll, wakeR, wakeW int

	mu     sync.Mutex // guards what is below
	conns  map[int32]parked
	closed bool
}

// parked is a connection that waits.
type parked struct {
	k     *clientConn
	since time.Time
}

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
	p := &park{epoll: epoll, wakeR: pipe[0], wakeW: pipe[1], conns: map[int32]parked{}}
	if err := p.watch(p.wakeR); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// watch has a descriptor reported once, when it can be read from.
func (p *park) watch(fd int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &event))
}

// add parks a connection; false: it cannot be, and is the caller's still.
func (p *park) add(k *clientConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	var err error
	controlErr := k.probe.raw.Control(func(fd uintptr) {
		k.fd = int32(fd)
		if err = p.watch(int(fd)); err == nil {
			p.conns[k.fd] = parked{k, time.Now()}
		}
	})
	return err == nil && controlErr == nil
}

// size is how many connections are parked; none before Listen.
func (p *park) size() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// take takes a connection out; nil: it is not there.
func (p *park) take(fd int32) *clientConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.conns[fd].k
	if k != nil {
		p.forget(k)
	}
	return k
}

// forget ends the watch of a connection. p.mu is held.
func (p *park) forget(k *clientConn) {
	delete(p.conns, k.fd)
	_ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, int(k.fd), nil) // fails only for what is not watched
}

// run hands connections that have something to say to wake, until close.
func (p *park) run(wake func(*clientConn)) {
	defer p.release()
	events := make([]syscall.EpollEvent, 128)
	for {
		n, err := syscall.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic("l7: invariant broken: waiting for idle connections: " + err.Error())
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == p.wakeR {
				return
			}
			if k := p.take(e.Fd); k != nil {
				wake(k)
			}
		}
	}
}

// expire closes what has been idle since before a time, or with all whatever
// is there.
func (p *park) expire(before time.Time, all bool) {
	p.mu.Lock()
	var old []*clientConn
	for _, c := range p.conns {
		if all || c.since.Before(before) {
			old = append(old, c.k)
			p.forget(c.k)
		}
	}
	p.mu.Unlock()
	for _, k := range old {
		k.l.finish(k)
	}
}

// close closes all connections and ends run.
func (p *park) close() {
	p.mu.Lock()
	ended := p.closed
	p.closed = true
	p.mu.Unlock()
	if !ended {
		p.expire(time.Time{}, true)
		_ = syscall.Close(p.wakeW) // seen at wakeR
	}
}

func (p *park) release() {
	_ = syscall.Close(p.epoll)
	_ = syscall.Close(p.wakeR)
}

// scratch is what a connection needs while it carries a request.
type scratch struct {
	in, out []byte
	x       exchange
}

// scratches keeps them for the next connection that wakes.
type scratches struct{ pool sync.Pool }

func (s *scratches) get() *scratch {
	if b, ok := s.pool.Get().(*scratch); ok {
		return b
	}
	return &scratch{in: make([]byte, bufferSize), out: make([]byte, 0, bufferSize)}
}

// equip gives a connection what it needs for requests.
func (k *clientConn) equip() {
	k.scratch = k.p.scratches.get()
	k.x = &k.scratch.x
	k.x.version, k.x.hop, k.x.listener, k.x.to = "HTTP/1.1", k.hop, k.l, k
	k.x.reset()
	k.rd.Reset(k.c, k.scratch.in)
	k.out = k.scratch.out[:0]
}

// strip takes it back. Nothing may be buffered.
func (k *clientConn) strip() {
	if cap(k.out) == bufferSize {
		k.scratch.out = k.out
	}
	k.x.hop, k.x.listener, k.x.to = nil, nil, nil
	k.x.reset() // it keeps nothing of this connection alive
	k.rd.Reset(nil, nil)
	k.out, k.x = nil, nil
	k.p.scratches.pool.Put(k.scratch)
	k.scratch = nil
}
