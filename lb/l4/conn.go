//go:build linux

package l4

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/dispatch"
)

// The sockets of a connection, as epoll's events name them.
const (
	clientSocket = 0
	serverSocket = 1
)

// phase is how far a connection has come.
type phase uint8

const (
	phaseHello      phase = iota // its first octets are awaited, to know where to
	phaseConnecting              // to an instance
	phaseRelaying
	phaseClosed
)

// conn is one TCP connection. It belongs to a loop.
type conn struct {
	l     *loop
	ref   ref
	phase phase
	timer timer

	source, dest netip.AddrPort // the client's ends; dest only if it is needed
	counted      netip.Addr     // what ConnsPerClient counts it as; invalid: not counted
	hello        []byte         // read, and not yet understood or passed on
	headed       bool           // the PROXY header was read, or none is due

	client, server side
	up, down       flow // from the client, and to it
	headerOctets   int64

	backend *dispatch.Backend
	choice  dispatch.Choice
	attempt uint32
	tried   *dispatch.Tried // nil: none
	stopEnd func()          // nil: not waiting for the instance's end

	since    int64 // of this phase
	last     int64 // when an octet was moved last
	asked    int64 // when the client's last octet before the first answer was passed on
	answered int64 // how long the first octet of the answer took, ns
	owed     int64 // since when the instance has owed an octet; 0: it owes none
	silent   bool  // that it does was told
	soon     bool  // the timer fires when it is to be told
	drainBy  int64 // 0: no limit
	queued   bool  // it is in the loop's turn
}

// inEvents are what is watched for on both sockets.
const inEvents = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// newConn takes over an accepted connection, which Proxy.active and loop.conns
// have counted.
func newConn(l *loop, fd int, source netip.AddrPort) {
	c := &conn{l: l, source: source, client: side{fd: fd, readable: true}, server: side{fd: -1}, since: l.now, last: l.now}
	c.up.from, c.up.to = &c.client, &c.server
	c.down.from, c.down.to = &c.server, &c.client
	c.timer.owner = c
	c.ref = l.enter(c)
	cfg := &l.p.cfg
	if cfg.ProxyTo || cfg.KeepPort {
		c.dest = localAddr(fd)
	}
	c.headed = !l.p.believes(source.Addr())
	if c.headed && !c.admit() {
		return
	}
	if c.headed && !l.p.routes.byName() {
		c.backend = l.p.routes.fallback
		c.dial()
		return
	}
	l.wheel.set(&c.timer, c.deadline())
	c.readHello()
}

// admit counts the connection for its client; false: it had too many, and was
// closed.
func (c *conn) admit() bool {
	if !c.l.p.clients.enter(c.source.Addr()) {
		c.refuse(&c.l.counts.refusedOne)
		return false
	}
	c.counted = c.source.Addr()
	return true
}

// data is what epoll gives back with events of a socket.
func (c *conn) data(socket int) int32 { return int32(c.ref.index)<<1 | int32(socket) }

// watchIn has epoll tell when there is something to read.
func (c *conn) watchIn(s *side, socket int) bool {
	if !s.watched {
		s.watched = c.l.watch(unix.EPOLL_CTL_ADD, s.fd, inEvents, c.data(socket), c.ref.generation) == nil
	}
	return s.watched
}

// watchOut has epoll tell when there is room to write, too, from now on.
func (c *conn) watchOut(s *side, socket int) {
	if s.watchedOut || !s.watched {
		return
	}
	s.watchedOut = c.l.watch(unix.EPOLL_CTL_MOD, s.fd, inEvents|unix.EPOLLOUT, c.data(socket), c.ref.generation) == nil
}

// event is what happened to a socket.
func (c *conn) event(socket int, events uint32) {
	s := &c.client
	if socket == serverSocket {
		s = &c.server
	}
	// What an edge tells of, but reading less than was asked for does not: an end,
	// or octets after an urgent one, before which reading stops.
	const beyond = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLPRI
	if events&(unix.EPOLLIN|beyond) != 0 {
		s.readable = true
	}
	if events&beyond != 0 {
		s.beyond = true
	}
	switch {
	case c.phase == phaseRelaying:
		c.step()
	case c.phase == phaseHello:
		c.readHello()
	case c.phase == phaseConnecting && socket == serverSocket:
		c.connected()
	}
}

// again is the next turn of a connection that had more to move.
func (c *conn) again() {
	c.queued = false
	c.step()
}

// step moves what can be moved, and ends what has ended.
func (c *conn) step() {
	if c.phase != phaseRelaying {
		return
	}
	moreUp := c.move(&c.up)
	moreDown := c.move(&c.down)
	switch {
	case c.cutUnused():
		c.retry(dispatch.Unreachable)
		return
	case c.up.done && c.up.reset, c.down.done && c.down.reset:
		c.finish(true)
		return
	case c.up.finished() && c.down.finished():
		c.finish(c.up.cut || c.down.cut)
		return
	}
	c.awaitRoom(&c.up, serverSocket)
	c.awaitRoom(&c.down, clientSocket)
	if c.up.finished() || c.down.finished() {
		c.l.wheel.set(&c.timer, c.deadline()) // it may be nearer now
	}
	if (moreUp || moreDown) && !c.queued {
		c.queued = true
		c.l.turn = append(c.l.turn, c.ref)
	}
}

// move pumps one direction and counts.
func (c *conn) move(f *flow) (more bool) {
	if f.finished() {
		return false
	}
	n, more := c.l.pump(f)
	if f.dead {
		// Who takes no more may still have said something: read that to its end.
		back := &c.up
		if f == back {
			back = &c.down
		}
		f.to.readable, f.to.beyond = true, true
		back.reset = back.reset || f.cut
		if f == &c.down && !c.up.finished() {
			_, again := c.l.pump(&c.up) // it had its turn before
			more = more || again
		}
	}
	if n == 0 {
		return more
	}
	f.octets += n
	c.last = c.l.now
	if f == &c.up {
		if c.down.octets == 0 {
			c.asked = c.l.now
		}
		c.owes()
		c.l.counts.bytesIn.Add(uint64(n))
		c.choice.AddBytes(n, 0)
		return more
	}
	if f.octets == n {
		c.answered = max(1, c.l.p.clock()-c.asked)
		c.choice.Answered()
	}
	c.owed, c.silent = 0, false
	c.l.counts.bytesOut.Add(uint64(n))
	c.choice.AddBytes(0, n)
	return more
}

// awaitRoom has epoll tell when a slow receiver has room again.
func (c *conn) awaitRoom(f *flow, socket int) {
	if !f.finished() && (f.held != nil || f.pipe != nil) {
		c.watchOut(f.to, socket)
	}
}

// deadline is when the connection ends if nothing happens.
func (c *conn) deadline() int64 {
	cfg := &c.l.p.cfg
	switch c.phase {
	case phaseHello:
		return c.since + int64(cfg.HelloTimeout)
	case phaseConnecting:
		return c.since + int64(cfg.ConnectTimeout)
	case phaseRelaying, phaseClosed:
	}
	at := c.last + int64(cfg.IdleTimeout)
	if c.up.finished() || c.down.finished() {
		at = c.last + min(int64(cfg.HalfCloseTimeout), int64(cfg.IdleTimeout))
	}
	if c.drainBy > 0 {
		at = min(at, c.drainBy)
	}
	if c.awaited() {
		at = min(at, c.owed+int64(c.choice.Patience()))
	}
	return at
}

// owes notes that the instance owes an octet from now on: something was sent to
// it. Of one-way streams the time begins anew each time, so that their
// instance's silence is told only when they are silent, too.
func (c *conn) owes() {
	c.owed = c.l.now
	if !c.soon && c.awaited() { // not at each request: the timer finds the time by itself
		c.soon = true
		c.l.wheel.set(&c.timer, c.deadline())
	}
}

// awaited reports whether an octet of the instance is waited for, and that was
// not told yet.
func (c *conn) awaited() bool { return c.owed > 0 && !c.silent && !c.down.finished() }

// expire tells of the instance's silence, and ends the connection if its
// deadline has come.
func (c *conn) expire(now int64) int64 {
	if c.phase == phaseRelaying && c.awaited() {
		c.silent = c.choice.Silent(time.Duration(now-c.owed), time.Now())
	}
	c.soon = c.awaited()
	if at := c.deadline(); at > now {
		return at
	}
	counts := &c.l.counts
	switch {
	case c.phase == phaseHello:
		c.refuse(&counts.helloTimeout)
	case c.phase == phaseConnecting:
		counts.connectLate.Add(1)
		c.retry(dispatch.TimedOut)
	case c.drainBy > 0 && c.drainBy <= now:
		c.kill(&counts.drained)
	case c.up.finished() || c.down.finished():
		c.kill(&counts.halfClosed)
	default:
		c.kill(&counts.idle)
	}
	return 0
}

// ended is what the instance's end does to the connection.
func (c *conn) ended(attempt uint32, e dispatch.End) {
	if attempt != c.attempt || c.phase != phaseRelaying {
		return
	}
	cfg := &c.l.p.cfg
	if e == dispatch.EndDown && cfg.OnDown == DownReset {
		c.kill(&c.l.counts.down)
		return
	}
	keepAlive(c.server.fd) // nobody tells of its end any more
	if cfg.DrainTimeout > 0 && c.drainBy == 0 {
		c.drainBy = c.l.now + int64(cfg.DrainTimeout)
		c.l.wheel.set(&c.timer, c.deadline())
	}
}

// kill resets both sides and counts why.
func (c *conn) kill(why *atomic.Uint64) {
	why.Add(1)
	c.finish(true)
}

// refuse resets a client that was not connected.
func (c *conn) refuse(why *atomic.Uint64) { c.kill(why) }

// finish closes both sides and gives back what the connection has.
func (c *conn) finish(cut bool) {
	c.l.drop(&c.up)
	c.l.drop(&c.down)
	for _, s := range []*side{&c.client, &c.server} {
		switch {
		case s.fd < 0:
		case cut:
			reset(s.fd)
		default:
			_ = unix.Close(s.fd)
		}
		s.fd = -1
	}
	c.settle(c.outcome())
	if c.counted.IsValid() {
		c.l.p.clients.leave(c.counted)
	}
	c.phase = phaseClosed
	c.l.wheel.remove(&c.timer)
	c.l.leave(c.ref)
	c.l.conns.Add(-1)
	c.l.p.active.Add(-1)
}
