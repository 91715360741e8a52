package dnsserver

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

// opcodeDSO is that of stateful operations (RFC 8490 section 5.4).
const opcodeDSO = 6

// stateful reports whether a message is for the connection's session: over TLS alone
// (RFC 8765 section 4).
func (c *conn) stateful(msg []byte) bool {
	return c.client.Transport == TLS && c.srv.cfg.Sessions != nil && len(msg) >= wire.HeaderSize &&
		binary.BigEndian.Uint16(msg[2:])>>11&0xf == opcodeDSO
}

// converse hands a message to the session, which is opened by the first; false: the
// connection is over.
func (c *conn) converse(msg []byte) bool {
	if !c.flush() { // what was asked before is answered before
		return false
	}
	c.tally.n[received]++
	c.activity.Add(1)
	if c.session == nil {
		c.session = c.srv.cfg.Sessions.Open(&sessionWriter{tcpWriter{c}}, c.client)
	}
	if c.session == nil {
		reply, _ := c.respond(msg, c.buffer()) // as without sessions
		c.push(reply)
		return true
	}
	return c.session.Message(msg)
}

// silentUntil is until when a session's connection is kept if nothing more is sent.
func (c *conn) silentUntil() time.Time { return time.Unix(0, c.told.Load()).Add(c.held) }

// sessionWriter is a connection for its session.
type sessionWriter struct{ tcpWriter }

var _ SessionWriter = (*sessionWriter)(nil)

// WriteMsg implements Writer.
func (w *sessionWriter) WriteMsg(msg []byte) error {
	w.c.told.Store(time.Now().UnixNano())
	return w.tcpWriter.WriteMsg(msg)
}

// Keep implements SessionWriter.
func (w *sessionWriter) Keep(silence time.Duration) {
	c := w.c
	switch {
	case c.held == 0 && silence > 0:
		// The kernel finds clients that are no more, within two minutes. It fails only
		// once closed.
		_ = c.raw.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
		c.working.Add(1)
	case c.held > 0 && silence == 0:
		c.working.Add(-1)
	}
	c.held = silence
}

// leaveTimeout is for how long a client that was told to go may take to close: five
// seconds (RFC 8490 section 6.6.1).
const leaveTimeout = 5 * time.Second

var errLeaving = errors.New("the client was told to go: it is sent no more")

// Leave implements SessionWriter.
func (w *sessionWriter) Leave(msg []byte) {
	w.c.leaving.Store(true)
	if framed, err := frame(msg); err == nil {
		_ = w.c.send(framed) // it goes in any case
	}
	_ = w.c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader; fails only once closed
}

// seeOff waits until the client closes. What it sends meanwhile is passed over, and a
// client that stays is cut off (RFC 8490 section 6.6.1).
func (c *conn) seeOff() {
	if c.held > 0 { // it may be evicted
		c.working.Add(-1)
		c.held = 0
	}
	var err error
	until := time.Now().Add(leaveTimeout)
	for err == nil || errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(until) { // Leave wakes who is here already, too
		err = c.nc.SetReadDeadline(until)
		if c.srv.stopping.Load() { // as in read
			until = c.srv.stopAt.Add(lingerTimeout)
			err = c.nc.SetReadDeadline(until)
		}
		if err == nil {
			_, err = c.nc.Read(c.in)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.srv.conns.timedOut.Add(1)
		_ = c.raw.SetLinger(0) // fails only once closed
		c.raw.Close()
	}
}

// End implements SessionWriter.
func (w *sessionWriter) End() { _ = w.c.raw.Close() } // its reader sees that
