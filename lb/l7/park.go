package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// parkAfter is how long a goroutine waits for a connection's next request; then
	// the connection is parked. Clients that go on asking do so sooner, and pay
	// nothing for it.
	parkAfter = time.Second
	// awakeMany is how many connections may have a goroutine for that long. Where
	// there are more, each waits in proportion less: a goroutine and its stack
	// take 10 KB, and the memory of a burst is given back late.
	awakeMany = 64
)

// patience is how long a connection of the listener waits for its next request before
// it is parked.
func (l *listener) patience() time.Duration {
	if n := l.awake.Load(); n > awakeMany {
		return max(parkAfter*awakeMany/time.Duration(n), time.Millisecond)
	}
	return parkAfter
}

// errPark says that a connection has been idle for parkAfter.
var errPark = errors.New("the connection is idle")

// park is where idle connections wait for their next request: all of them on
// one epoll instance, without a goroutine or a buffer each. A parked connection
// is the park's alone, which is who closes it.
type park struct {
	epoll, wakeR, wakeW int // descriptors
	begun               time.Time
	ending              sync.Once

	mu     sync.Mutex // guards what is below
	conns  map[int32]parked
	bare   int  // of them that are no more than a descriptor
	closed bool // no more are taken
}

// parked is a connection that waits.
type parked struct {
	k     *clientConn   // nil: it is in cleartext, and is known anew when it wakes
	since time.Duration // from when the park was made
}

// add parks a connection; false: it cannot be. One over TLS is then the park's; of one
// in cleartext the park keeps a descriptor of its own, and the caller closes it.
func (p *park) add(k *clientConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	var err error
	controlErr := k.probe.raw.Control(func(fd uintptr) {
		at, c := int(fd), parked{k, time.Since(p.begun)}
		if k.tcp != nil {
			c.k = nil
			if at, err = duplicate(at); err != nil {
				return
			}
		}
		if err = p.watch(at); err != nil {
			if c.k == nil {
				_ = syscall.Close(at)
			}
			return
		}
		p.conns[int32(at)] = c
		if c.k == nil {
			p.bare++
		}
	})
	return err == nil && controlErr == nil
}

// size is how many connections are parked, and how many of them are no more than a
// descriptor; none before Listen.
func (p *park) size() (all, bare int) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns), p.bare
}

// left takes those out that are left.
func (p *park) left() map[int32]parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := maps.Clone(p.conns)
	for fd, c := range all {
		p.forget(fd, c)
	}
	return all
}

// take takes a connection out; false: it is not there. last says that none is left,
// and none will come.
func (p *park) take(fd int32) (c parked, ok, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok = p.conns[fd]
	if ok {
		p.forget(fd, c)
	}
	last = p.closed && len(p.conns) == 0
	return c, ok, last
}

// forget ends the watch of a connection. p.mu is held.
func (p *park) forget(fd int32, c parked) {
	delete(p.conns, fd)
	p.unwatch(int(fd))
	if c.k == nil {
		p.bare--
	}
}

// expire closes what has been idle since before a time, or with all whatever
// is there, but for those who have asked since.
func (p *park) expire(before time.Time, all bool) {
	limit := before.Sub(p.begun)
	var old []*clientConn
	p.mu.Lock()
	for fd, c := range p.conns {
		switch {
		case !all && c.since >= limit, all && ended(int(fd), true) && !ended(int(fd), false):
			continue
		case c.k != nil:
			old = append(old, c.k)
		}
		p.forget(fd, c)
		if c.k == nil {
			_ = syscall.Close(int(fd))
		}
	}
	p.mu.Unlock()
	for _, k := range old {
		k.hangUp()
		k.l.finish(k)
	}
}

// shut takes no more connections, and ends run if there are none.
func (p *park) shut() {
	p.mu.Lock()
	p.closed = true
	none := len(p.conns) == 0
	p.mu.Unlock()
	if none {
		p.close()
	}
}

// close closes all connections and ends run.
func (p *park) close() {
	p.ending.Do(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.expire(time.Time{}, true)
		p.wake()
	})
}

// rest is a connection's wait for the first byte of a request. Nearly all connections
// wait, where there are many, and do so without buffers.
type rest struct {
	try func(fd uintptr) bool // made once: a closure a call would be garbage
	n   int
	err error
}

// wait reads what comes first, with nothing buffered. k is equipped before and, unless
// there is an error, afterwards. When its time is over and k is not equipped, nothing
// that was received is left unread, but for a part of a record of TLS.
func (r *rest) wait(k *clientConn) error {
	r.prepare(k)
	if err := k.probe.raw.Read(r.try); err != nil {
		return err
	}
	return r.took(k)
}

// last is wait for a connection that is to end, and does not wait: what has come by
// now was sent before the client could know.
func (r *rest) last(k *clientConn) error {
	r.prepare(k)
	err := k.probe.raw.Control(func(fd uintptr) {
		if !r.try(fd) {
			r.n, r.err = 0, io.EOF
		}
	})
	if err != nil {
		return err
	}
	return r.took(k)
}

func (r *rest) prepare(k *clientConn) {
	if r.try == nil {
		r.try = func(fd uintptr) bool {
			if k.scratch == nil {
				k.equip()
			}
			if k.under == nil {
				r.n, r.err = readNow(int(fd), k.rd.Buffer())
			} else {
				r.n, r.err = k.under.attempt(int(fd), k.rd.Buffer())
			}
			if errors.Is(r.err, os.ErrDeadlineExceeded) {
				k.strip()
				return false
			}
			return true
		}
	}
}

func (r *rest) took(k *clientConn) error {
	if r.n == 0 {
		return r.err
	}
	k.rd.Took(r.n)
	return nil
}

// readNow reads what a socket has received; os.ErrDeadlineExceeded: nothing.
func readNow(fd int, b []byte) (int, error) {
	for {
		switch n, err := syscall.Read(fd, b); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// underTLS is the TCP connection that TLS is over. While it is told of a descriptor,
// which is its own, it does not wait.
type underTLS struct {
	*net.TCPConn

	secure *tls.Conn // what is over it
	fd     int       // -1: it waits, as any connection
}

func newUnderTLS(tcp *net.TCPConn, cfg *tls.Config) *underTLS {
	u := &underTLS{TCPConn: tcp, fd: -1}
	u.secure = tls.Server(u, cfg)
	return u
}

// Read reads. package tls takes os.ErrDeadlineExceeded for no reason to give the
// connection up, and goes on where it was.
func (u *underTLS) Read(b []byte) (int, error) {
	if u.fd >= 0 {
		return readNow(u.fd, b)
	}
	return u.TCPConn.Read(b)
}

// Write writes.
func (u *underTLS) Write(b []byte) (int, error) {
	if u.fd >= 0 {
		return syscall.Write(u.fd, b)
	}
	return u.TCPConn.Write(b)
}

// attempt reads what was sent over TLS, without waiting.
func (u *underTLS) attempt(fd int, b []byte) (int, error) {
	u.fd = fd
	defer func() { u.fd = -1 }()
	return u.secure.Read(b)
}

// hangUp tells the client of a connection over TLS that idles that it ends, unless that
// would have to wait.
func (k *clientConn) hangUp() {
	_ = k.probe.raw.Control(func(fd uintptr) {
		k.under.fd = int(fd)
		_ = k.under.secure.CloseWrite()
	})
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
	if k.scratch == nil {
		return
	}
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
