package dnsserver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

const (
	prefixSize = 2 // each message's length, RFC 1035 section 4.2.2

	inSmall = 1 << 10                      // what a connection's input starts with; grows as octets come
	inLarge = prefixSize + wire.MaxMessage // and ends with

	flushAt = 16 << 10 // answers gathered before they are written
	outSize = flushAt + prefixSize + wire.MaxMessage

	writeTimeout = 5 * time.Second // for a client that does not read
	maxConnSlow  = 32              // deferred queries of one connection; it is not read from meanwhile

	acceptWaitMin, acceptWaitMax = 5 * time.Millisecond, time.Second
)

// tcpListener accepts connections on one address.
type tcpListener struct {
	ln   *net.TCPListener
	srv  *Server
	name string // as socketName has it
	tls  bool
}

// run accepts until the server stops, and returns when every connection has
// ended. ctx is that of deferred queries.
func (l *tcpListener) run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	wait := acceptWaitMin
	for {
		nc, err := l.ln.AcceptTCP()
		if err != nil && l.srv.stopping.Load() {
			l.ln.Close()
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("dnsserver: accepting on %s: %w", l.ln.Addr(), err)
			}
			l.acceptFailed(err, wait)
			wait = min(2*wait, acceptWaitMax)
			continue
		}
		wait = acceptWaitMin
		c := newConn(l, nc)
		if !l.srv.conns.admit(c) {
			nc.Close()
			continue
		}
		conns.Go(func() { c.run(ctx) })
	}
}

// acceptFailed waits before the next try: with no file descriptors left the
// listener stays ready, and trying at once would spin. An idle connection is
// closed to get one back.
func (l *tcpListener) acceptFailed(err error, wait time.Duration) {
	if l.srv.conns.acceptErrors.Add(1) == 1 || wait == acceptWaitMax {
		l.srv.cfg.Logger.Warn("accepting a connection failed", slog.String("listener", l.ln.Addr().String()), slog.Any("error", err))
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		l.srv.conns.evictIdle()
	}
	select {
	case <-time.After(wait):
	case <-l.srv.stopped:
	}
}

// conn answers the messages of one connection, in the clear or over TLS.
type conn struct {
	responder
	raw      *net.TCPConn
	rest     rest     // raw, and what was read of it already
	nc       net.Conn // rest, or TLS over it
	counters *counters

	in   []byte // input; have octets of it are read, the first off answered
	have int
	off  int
	out  []byte // answers not yet written; nil when there are none

	// What eviction goes by, read by others: messages answered, and deferred
	// queries that are at work.
	activity atomic.Uint64
	working  atomic.Int32
	session  Session        // nil until a DSO message comes
	leaving  atomic.Bool    // the client was told to go: it is answered no more
	held     time.Duration  // how long the session keeps it in silence; of the goroutine of run
	told     atomic.Int64   // when the session has last sent something, ns since 1970
	slots    chan struct{}  // of deferred queries
	slow     sync.WaitGroup // of the same

	// The connection's place in the table, under the table's lock.
	key         netip.Addr
	inAll, inIP place
}

func newConn(l *tcpListener, nc *net.TCPConn) *conn {
	s := l.srv
	c := &conn{raw: nc, rest: rest{TCPConn: nc}, in: make([]byte, inSmall)}
	c.nc = &c.rest
	c.srv, c.handler, c.query = s, s.cfg.Handler, new(wire.Query)
	c.client.Transport, c.counters = TCP, &s.conns.tcp
	if l.tls {
		// Its first Read shakes hands, within the time for the first octet.
		c.nc, c.client.Transport, c.counters = tls.Server(&c.rest, s.tls), TLS, &s.conns.tls
		_ = nc.SetWriteDeadline(time.Now().Add(s.cfg.FirstByteTimeout)) // fails only once closed
	}
	c.client.reply.keepalive = uint16(min(s.cfg.IdleTimeout/keepaliveUnit, math.MaxUint16))
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.client.Addr = netip.AddrPortFrom(a.AddrPort().Addr().Unmap().WithZone(""), a.AddrPort().Port())
	}
	c.key = ClientKey(c.client.Addr.Addr())
	return c
}

// run answers until the client ends, is too slow, or sends what is no query. A
// client that has only shut its sending side gets what it still waits for.
func (c *conn) run(ctx context.Context) {
	defer func() {
		if c.session != nil {
			c.session.Close()
		}
		if c.leaving.Load() {
			c.seeOff()
		}
		c.slow.Wait()
		c.nc.Close()
		c.srv.conns.remove(c)
	}()
	if c.srv.proxied(c.client.Addr.Addr()) && !c.unwrap() {
		return
	}
	deadline := time.Now().Add(c.srv.cfg.FirstByteTimeout)
	partial := false // a message has begun, and deadline is that of its end
	for {
		n, err := c.read(deadline)
		if c.leaving.Load() {
			return
		}
		if n > 0 {
			answered := c.activity.Load()
			ok := c.answer(ctx)
			if !ok {
				return
			}
			now := time.Now()
			switch {
			case c.have == 0 && c.held > 0:
				deadline, partial = now.Add(c.held), false
			case c.have == 0:
				deadline, partial = now.Add(c.srv.cfg.IdleTimeout), false
			case !partial || c.activity.Load() != answered:
				deadline, partial = now.Add(c.srv.cfg.MessageTimeout), true
			}
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || c.srv.stopping.Load() {
				return
			}
			if c.held > 0 && !partial && time.Now().Before(c.silentUntil()) { // it was told something
				deadline = c.silentUntil()
				continue
			}
			if c.working.Load() > 0 && c.held == 0 && !partial { // not idle: it waits for us
				deadline = time.Now().Add(c.srv.cfg.IdleTimeout)
				continue
			}
			c.srv.conns.timedOut.Add(1)
			return
		}
	}
}

// read reads more input, growing the buffer when it is full, so that a length
// prefix alone costs us nothing.
func (c *conn) read(deadline time.Time) (int, error) {
	if c.have == len(c.in) {
		grown := make([]byte, min(2*len(c.in), inLarge))
		copy(grown, c.in)
		c.in = grown
	} else if c.have == 0 && len(c.in) > inSmall {
		c.in = make([]byte, inSmall)
	}
	err := c.nc.SetReadDeadline(deadline)
	if c.srv.stopping.Load() { // looked at after setting it: else stop's own may have been undone
		err = c.nc.SetReadDeadline(c.lingerUntil())
	}
	if err != nil || c.leaving.Load() {
		return 0, err
	}
	n, err := c.nc.Read(c.in[c.have:])
	c.have += n
	return n, err
}

// lingerUntil is how long the connection is still read from once the server
// stops. One that has had an answer may be closed at any time, and its client
// knows that; one that has asked nothing yet was made to ask.
func (c *conn) lingerUntil() time.Time {
	if c.activity.Load() == 0 {
		return c.srv.stopAt.Add(freshLinger)
	}
	return c.srv.stopAt.Add(lingerTimeout)
}

// answer answers every whole message of the input and writes the answers; false
// when the connection is over.
func (c *conn) answer(ctx context.Context) bool {
	c.client.Now = time.Now().UnixNano()
	c.off = 0
	ok := true
	for ok && c.whole() > 0 {
		ok = c.answerWhole(ctx)
	}
	ok = c.flush() && ok
	c.have = copy(c.in, c.in[c.off:c.have])
	return ok
}

// whole is the length of the next message with its prefix, 0 when it is not
// there in whole.
func (c *conn) whole() int {
	rest := c.in[c.off:c.have]
	if len(rest) < prefixSize {
		return 0
	}
	size := prefixSize + int(binary.BigEndian.Uint16(rest))
	if len(rest) < size {
		return 0
	}
	return size
}

// answerWhole answers whole messages until there are none, or the connection is
// over: false. It returns early when the handler panics, with that answered.
func (c *conn) answerWhole(ctx context.Context) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			c.srv.panics.log("tcp", v)
			c.tally.n[panicked]++
			c.push(c.fail(c.buffer()))
			ok = true
		}
	}()
	for size := c.whole(); size > 0; size = c.whole() {
		msg := c.in[c.off+prefixSize : c.off+size]
		c.off += size
		if len(c.out) >= flushAt && !c.flush() {
			return false
		}
		if c.stateful(msg) {
			if !c.converse(msg) {
				return false
			}
			continue
		}
		reply, v := c.respond(msg, c.buffer())
		if !c.parsed {
			return false // no query: whoever speaks there doesn't speak DNS
		}
		c.activity.Add(1)
		if v == Defer {
			if reply, ok = c.deferQuery(ctx); !ok {
				return false
			}
		}
		c.push(reply)
	}
	return true
}

// buffer is where the next answer goes, behind its prefix.
func (c *conn) buffer() []byte {
	if c.out == nil {
		c.out = c.srv.outBuffers.get()
	}
	return c.out[len(c.out)+prefixSize : cap(c.out)]
}

// push queues an answer that lies in buffer.
func (c *conn) push(reply []byte) {
	if reply == nil {
		return
	}
	n := len(c.out)
	c.out = c.out[:n+prefixSize+len(reply)]
	binary.BigEndian.PutUint16(c.out[n:], uint16(len(reply)))
}

// flush publishes the counts, writes the queued answers and gives their buffer
// back; false when the client is gone or does not read.
func (c *conn) flush() bool {
	c.counters.add(&c.tally) // before writing: who has an answer finds it counted
	if c.out == nil {
		return true
	}
	var err error
	if len(c.out) > 0 {
		err = c.write(c.out)
	}
	c.srv.outBuffers.put(c.out)
	c.out = nil
	if err != nil {
		c.counters.n[sendFailed].Add(1)
	}
	return err == nil
}

func (c *conn) write(b []byte) error {
	if c.leaving.Load() {
		return errLeaving
	}
	return c.send(b)
}

func (c *conn) send(b []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	return err
}

// deferQuery hands the message at hand to the slow pool, or returns what to say instead. It
// waits while the connection has too many of them: the client's pipeline then
// fills up, and it alone is held up.
func (c *conn) deferQuery(ctx context.Context) (reply []byte, ok bool) {
	if c.slots == nil {
		c.slots = make(chan struct{}, maxConnSlow)
	}
	select {
	case c.slots <- struct{}{}:
	default:
		if !c.flush() { // what is answered must not wait too
			return nil, false
		}
		c.slots <- struct{}{}
	}
	if !c.srv.slow.take() {
		<-c.slots
		return c.fail(c.buffer()), true
	}
	c.counters.add(&c.tally) // it may be answered before what is gathered
	c.working.Add(1)
	c.slow.Add(1)
	c.srv.slow.start(ctx, c.query.Msg, c.client, c.signed(&tcpWriter{c}), func() {
		c.activity.Add(1)
		c.working.Add(-1)
		<-c.slots
		c.slow.Done()
	})
	return nil, true
}

// tcpWriter answers one deferred query.
type tcpWriter struct{ c *conn }

var _ Writer = (*tcpWriter)(nil)

func (w *tcpWriter) Limit() int { return wire.MaxMessage }

// WriteMsg writes prefix and message with one call, which the connection does
// not let others come between.
func (w *tcpWriter) WriteMsg(msg []byte) error {
	framed, err := frame(msg)
	if err != nil {
		return err
	}
	return w.c.write(framed)
}

// frame is a message behind its length.
func frame(msg []byte) ([]byte, error) {
	if len(msg) > wire.MaxMessage {
		return nil, fmt.Errorf("message of %d octets: a stream takes %d", len(msg), wire.MaxMessage)
	}
	framed := make([]byte, 0, prefixSize+len(msg))
	framed = binary.BigEndian.AppendUint16(framed, uint16(len(msg)))
	return append(framed, msg...), nil
}

// bufferPool holds the buffers that answers are gathered in, of outSize octets.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[outSize]byte); ok {
		return b[:0]
	}
	return new([outSize]byte)[:0]
}

func (p *bufferPool) put(b []byte) { p.pool.Put((*[outSize]byte)(b[:outSize])) }
