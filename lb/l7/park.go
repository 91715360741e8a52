package l7

import (
	"errors"
	"sync"
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
	epoll, wakeR, wakeW int // descriptors

	mu     sync.Mutex // guards what is below
	conns  map[int32]parked
	closed bool
}

// parked is a connection that waits.
type parked struct {
	k     *clientConn
	since time.Time
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
	p.unwatch(int(k.fd))
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
		p.wake()
	}
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
