//go:build linux

package l4

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/dispatch"
)

const (
	// eventsMax is how many events a wait brings.
	eventsMax = 256
	// acceptMax is how many connections are accepted before others have their
	// turn; the listener stays ready.
	acceptMax = 32
	// acceptPause is how long a loop accepts nothing after that failed for want
	// of descriptors or memory.
	acceptPause = int64(100 * time.Millisecond)
	// handSlack is by how many connections (and an eighth) a loop may exceed the
	// one with the fewest before it hands accepted ones over.
	handSlack = 16
)

// Who an event is for, if not for a connection.
const (
	forInbox    = -1
	forListener = -2
)

// handler is what a loop has in its table: a connection or a flow.
type handler interface {
	expirer
	// event tells what epoll says of one of the handler's sockets.
	event(socket int, events uint32)
	// ended tells that the instance chosen at an attempt has ended.
	ended(attempt uint32, e dispatch.End)
	// again continues what had more to do than one turn.
	again()
	// kill ends it at once.
	kill(why *atomic.Uint64)
}

// slot is an entry of the table. The generation tells an event for who had it
// before from one for who has it now.
type slot struct {
	h          handler
	generation uint32
}

// ref names a handler for those who may be late.
type ref struct{ index, generation uint32 }

// loop owns connections; see the package's comment. Only its goroutine touches
// what is above mu.
type loop struct {
	p         *Proxy
	epoll     int
	poller    *os.File        // epoll's
	raw       syscall.RawConn // poller's
	alarm     int64           // until when raw.Read waits, as it was told; 0: it was not
	inboxFD   int             // an eventfd: there are messages
	listener  int             // -1: none (any more)
	accepting bool
	resume    timer // of accepting
	udp       *udpListener

	now      int64 // of this turn, ns since the Proxy was made
	wheel    *wheel
	table    []slot
	free     []uint32
	buf      []byte
	pipes    pipes
	turn     []ref // who has more to do
	spare    []ref // turn's other array
	stopping bool
	released bool // nobody hands connections over any more
	stopAt   int64

	conns  atomic.Int64 // written by the loop and by those who hand over to it
	counts counts

	mu     sync.Mutex // guards inbox, and inboxFD against being closed
	inbox  []message
	closed bool
}

// The orders of a message: to accept no more, and to end with the last
// connection.
const (
	orderStop    = -1
	orderRelease = -2
)

// message is something that another goroutine has for a loop.
type message struct {
	to      ref
	attempt uint32
	end     dispatch.End // EndNone: an accepted connection, or an order
	fd      int          // or orderStop, orderRelease
	source  netip.AddrPort
}

// newLoop makes a loop that accepts from a listening socket, which it does not
// own.
func newLoop(p *Proxy, listener int) (*loop, error) {
	l := &loop{p: p, listener: listener, epoll: -1, inboxFD: -1, wheel: newWheel(p.clock()), now: p.clock()}
	l.resume.owner = acceptResumer{l}
	var err error
	if err = l.openEpoll(); err != nil {
		return nil, fmt.Errorf("making an epoll: %w", err)
	}
	if l.inboxFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		l.close()
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	if err = l.watch(unix.EPOLL_CTL_ADD, l.inboxFD, unix.EPOLLIN, forInbox, 0); err != nil {
		l.close()
		return nil, err
	}
	if !p.cfg.UDP {
		l.buf = make([]byte, bufferOctets)
		return l, nil
	}
	if l.udp, err = newUDPListener(l, listener); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// watch tells epoll of a socket. data and generation come back with its events.
func (l *loop) watch(op, fd int, events uint32, data int32, generation uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: data, Pad: int32(generation)}
	if err := unix.EpollCtl(l.epoll, op, fd, &ev); err != nil {
		return fmt.Errorf("registering a socket: %w", err)
	}
	return nil
}

// watchListener begins to accept. Of the loops that wait, one is woken.
func (l *loop) watchListener() error {
	events := uint32(unix.EPOLLIN)
	if l.udp == nil {
		events |= unix.EPOLLEXCLUSIVE
	}
	l.accepting = true
	return l.watch(unix.EPOLL_CTL_ADD, l.listener, events, forListener, 0)
}

func (l *loop) unwatchListener() {
	if l.accepting {
		l.accepting = false
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, l.listener, nil) // it is there
	}
}

// acceptResumer ends a pause in accepting.
type acceptResumer struct{ l *loop }

func (a acceptResumer) expire(now int64) int64 {
	if a.l.stopping {
		return 0
	}
	if err := a.l.watchListener(); err != nil {
		a.l.accepting = false
		return now + acceptPause
	}
	return 0
}

// run serves until it was released and all connections have ended.
func (l *loop) run() error {
	w := &waiter{l: l, events: make([]unix.EpollEvent, eventsMax)}
	w.look = w.lookNow
	for !l.released || l.conns.Load() > 0 {
		events, err := w.wait()
		if err != nil {
			return fmt.Errorf("l4: waiting for events: %w", err)
		}
		l.now = l.p.clock()
		for _, ev := range events {
			l.handle(ev)
		}
		l.wheel.advance(l.now)
		l.takeTurns()
		if l.stopping && l.now >= l.stopAt {
			l.killAll()
		}
	}
	return nil
}

// handle passes an event on.
func (l *loop) handle(ev unix.EpollEvent) {
	switch ev.Fd {
	case forInbox:
		l.takeMessages()
	case forListener:
		if l.udp != nil {
			l.udp.receive()
			return
		}
		l.acceptSome()
	default:
		s := l.table[ev.Fd>>1]
		if s.h != nil && s.generation == uint32(ev.Pad) {
			s.h.event(int(ev.Fd&1), ev.Events)
		}
	}
}

// takeTurns gives those who had more to do their next turn.
func (l *loop) takeTurns() {
	list := l.turn
	l.turn = l.spare[:0]
	for _, r := range list {
		if h := l.find(r); h != nil {
			h.again()
		}
	}
	l.spare = list[:0]
}

// find is who has a ref; nil: it has ended.
func (l *loop) find(r ref) handler {
	if s := l.table[r.index]; s.generation == r.generation {
		return s.h
	}
	return nil
}

// enter gives a handler a place in the table.
func (l *loop) enter(h handler) ref {
	if n := len(l.free); n > 0 {
		i := l.free[n-1]
		l.free = l.free[:n-1]
		l.table[i].h = h
		return ref{i, l.table[i].generation}
	}
	l.table = append(l.table, slot{h: h})
	return ref{index: uint32(len(l.table) - 1)}
}

// leave frees a place.
func (l *loop) leave(r ref) {
	l.table[r.index] = slot{generation: r.generation + 1}
	l.free = append(l.free, r.index)
}

// post sends a message to the loop, from any goroutine. One that has ended
// takes none.
func (l *loop) post(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.inbox = append(l.inbox, m); len(l.inbox) == 1 {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(l.inboxFD, one[:]) // fails only when it is full, and so awake
	}
}

// takeMessages takes all messages.
func (l *loop) takeMessages() {
	var count [8]byte
	_, _ = unix.Read(l.inboxFD, count[:]) // fails only when it is empty
	l.mu.Lock()
	list := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, m := range list {
		switch {
		case m.end != dispatch.EndNone:
			if h := l.find(m.to); h != nil {
				h.ended(m.attempt, m.end)
			}
		case m.fd == orderStop:
			l.stop()
		case m.fd == orderRelease:
			l.released = true
		default:
			newConn(l, m.fd, m.source)
		}
	}
}

// stop ends accepting, after what is in the queue, and sets a limit to all.
func (l *loop) stop() {
	if l.udp == nil && l.accepting {
		for l.acceptSome() {
		}
	}
	l.unwatchListener()
	l.wheel.remove(&l.resume)
	l.stopping, l.stopAt = true, l.now+int64(l.p.cfg.StopTimeout)
	if l.udp != nil {
		l.udp.stop()
	}
	l.p.left.Done()
}

// killAll ends what is left.
func (l *loop) killAll() {
	for _, s := range l.table {
		if s.h != nil {
			s.h.kill(&l.counts.stopped)
		}
	}
}

// acceptSome takes connections from the queue; true: there may be more.
func (l *loop) acceptSome() bool {
	for range acceptMax {
		fd, source, errno := accept(l.listener)
		switch errno {
		case 0:
			l.counts.accepted.Add(1)
			l.place(fd, source)
		case unix.ECONNABORTED, unix.EINTR: // the client has gone already
		case unix.EAGAIN:
			return false
		default:
			l.pauseAccepting(errno)
			return false
		}
	}
	return true
}

// pauseAccepting: a listener that is ready, and cannot be accepted from, would
// keep the loop awake.
func (l *loop) pauseAccepting(errno syscall.Errno) {
	if l.counts.acceptFailed.Add(1) == 1 {
		l.p.log.Error("accepting connections failed; trying again each 100 ms", "error", errno)
	}
	l.unwatchListener()
	l.wheel.set(&l.resume, l.now+acceptPause)
}

// place gives an accepted connection to this loop, or to the one with the
// fewest if this has more than its share.
func (l *loop) place(fd int, source netip.AddrPort) {
	if l.p.active.Add(1) > int64(l.p.cfg.ConnsMax) {
		l.p.active.Add(-1)
		l.counts.refusedMax.Add(1)
		reset(fd)
		return
	}
	to, own := l, l.conns.Load()
	for _, other := range l.p.loops {
		if n := other.conns.Load(); n+n/8+handSlack < own && n < to.conns.Load() {
			to = other
		}
	}
	to.conns.Add(1)
	if to == l || l.stopping {
		newConn(l, fd, source)
		return
	}
	to.post(message{fd: fd, source: source})
}

// close closes what the loop made.
func (l *loop) close() {
	l.pipes.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.poller != nil {
		l.poller.Close()
	}
	if l.inboxFD >= 0 {
		_ = unix.Close(l.inboxFD)
	}
}
