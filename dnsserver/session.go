package dnsserver

import (
	"encoding/binary"
	"net"
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
		c.session = c.srv.cfg.Sessions.Open(&tcpWriter{c}, c.client, c.hold)
	}
	if c.session == nil {
		reply, _ := c.respond(msg, c.buffer()) // as without sessions
		c.push(reply)
		return true
	}
	return c.session.Message(msg)
}

// hold keeps the connection from being taken for idle, or does no more. The session
// calls it within Message.
func (c *conn) hold(on bool) {
	if on == c.held {
		return
	}
	c.held = on
	if on {
		// The kernel finds clients that are no more, within two minutes. It fails only
		// once closed.
		_ = c.raw.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
		c.working.Add(1)
	} else {
		c.working.Add(-1)
	}
}
