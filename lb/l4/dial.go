//go:build linux

package l4

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/proxyproto"
)

// dial begins to connect to an instance of the backend.
func (c *conn) dial() {
	if c.backend == nil {
		c.refuse(&c.l.counts.unrouted)
		return
	}
	for {
		choice, err := c.backend.Choose(c.request(), c.tried)
		if err != nil {
			c.refuse(&c.l.counts.unserved)
			return
		}
		c.choice = choice
		c.attempt++
		switch c.begin() {
		case began:
			return
		case unreachable:
			c.l.counts.unreachable.Add(1)
			if !c.next(dispatch.Unreachable) {
				return
			}
		case impossible:
			c.settle(dispatch.Outcome{})
			c.refuse(&c.l.counts.localFailed)
			return
		}
	}
}

// request is what the choice depends on.
func (c *conn) request() dispatch.Request {
	return dispatch.Request{Hash: dispatch.HashAddr(c.source.Addr()), Client: c.source.Addr(), ActiveMax: c.l.p.cfg.InstanceMax}
}

// beginning is what came of beginning to connect.
type beginning uint8

const (
	began beginning = iota
	unreachable
	impossible // for want of a socket or a port here, which is no instance's fault
)

// begin begins to connect to the chosen instance.
func (c *conn) begin() beginning {
	cfg := &c.l.p.cfg
	to := c.choice.Addr()
	if cfg.KeepPort {
		to = netip.AddrPortFrom(to.Addr(), c.dest.Port())
	}
	var from netip.AddrPort
	if cfg.Transparent && c.source.Addr().Is4() == to.Addr().Is4() {
		from = c.source
	}
	fd, err := newSocket(unix.SOCK_STREAM, to, from)
	if err != nil {
		return impossible
	}
	switch errno := connect(fd, to); errno {
	case 0:
	case unix.EADDRNOTAVAIL, unix.ENOBUFS, unix.ENOMEM:
		_ = unix.Close(fd)
		return impossible
	default:
		_ = unix.Close(fd)
		return unreachable
	}
	c.server = side{fd: fd, watchedOut: true}
	c.phase, c.since = phaseConnecting, c.l.now
	if c.l.watch(unix.EPOLL_CTL_ADD, fd, inEvents|unix.EPOLLOUT, c.data(serverSocket), c.ref.generation) != nil {
		return impossible // and settled with the connection
	}
	c.server.watched = true
	c.l.wheel.set(&c.timer, c.deadline())
	return began
}

// retry goes on with another instance after this one failed.
func (c *conn) retry(r dispatch.Result) {
	if c.next(r) {
		c.dial()
	}
}

// next gives the choice back as failed; false: there is no other, and the
// client was reset.
func (c *conn) next(r dispatch.Result) bool {
	if c.tried == nil {
		c.tried = &dispatch.Tried{}
	}
	c.tried.Add(c.choice)
	c.settle(dispatch.Outcome{Result: r})
	if c.server.fd >= 0 {
		_ = unix.Close(c.server.fd)
	}
	c.server = side{fd: -1}
	if c.tried.Len() > max(c.l.p.cfg.Retries, 0) {
		c.refuse(&c.l.counts.unserved)
		return false
	}
	c.l.counts.retried.Add(1)
	return true
}

// settle gives the choice back, if there is one.
func (c *conn) settle(o dispatch.Outcome) {
	if c.stopEnd != nil {
		c.stopEnd()
		c.stopEnd = nil
	}
	if c.choice.Valid() {
		c.choice.Done(o)
		c.choice = dispatch.Choice{}
	}
}

// connected learns what came of connecting, and begins to relay.
func (c *conn) connected() {
	if errno := socketError(c.server.fd); errno != 0 {
		c.l.counts.unreachable.Add(1)
		c.retry(dispatch.Unreachable)
		return
	}
	c.l.counts.connected.Add(1)
	c.phase, c.since, c.last, c.asked = phaseRelaying, c.l.now, c.l.now, c.l.now
	c.owed, c.silent, c.soon = c.l.now, false, true // a greeting, where the client says nothing
	c.begun()
	l, to, attempt := c.l, c.ref, c.attempt
	c.stopEnd = c.choice.OnEnd(func(e dispatch.End) { l.post(message{to: to, attempt: attempt, end: e}) })
	c.l.wheel.set(&c.timer, c.deadline())
	c.step()
	// Only now, so that what is there is read before epoll tells of it.
	if c.phase == phaseRelaying && !c.watchIn(&c.client, clientSocket) {
		c.refuse(&c.l.counts.localFailed)
	}
}

// begun sets the flows up: the PROXY header first, then what the client has
// said already.
func (c *conn) begun() {
	said := c.hello
	c.hello = nil
	if c.l.p.cfg.ProxyTo {
		header := proxyproto.Header{Source: c.source, Dest: c.dest}.AppendV2(nil)
		c.headerOctets = int64(len(header))
		said = append(header, said...)
	}
	c.up.held = said
	if len(said) == 0 {
		c.up.held = nil
	}
}

// cutUnused reports that the instance reset the connection before an octet of
// the client was sent or one came back: another instance may have it.
func (c *conn) cutUnused() bool {
	if !c.down.reset || c.down.octets > 0 || c.up.octets > c.headerOctets || c.up.pipe != nil {
		return false
	}
	if c.up.reset || c.l.stopping {
		return false
	}
	unsent := c.headerOctets - c.up.octets
	c.hello = c.up.held[min(unsent, int64(len(c.up.held))):]
	c.up = flow{from: &c.client, to: &c.server, eof: c.up.eof}
	c.down = flow{from: &c.server, to: &c.client}
	return true
}

// outcome is what the connection says of its instance.
func (c *conn) outcome() dispatch.Outcome {
	o := dispatch.Outcome{Latency: time.Duration(c.answered)}
	switch {
	case c.phase != phaseRelaying:
	case c.down.reset && !c.up.eof:
		o.Result = dispatch.Failed
	case c.down.octets > 0:
		o.Result = dispatch.OK
	}
	return o
}

// keepAlive has the kernel find out whether a silent peer is still there: after
// 5 s, and three questions 5 s apart.
func keepAlive(fd int) {
	for _, o := range [][3]int{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		_ = unix.SetsockoptInt(fd, o[0], o[1], o[2]) // fails only on a closed socket
	}
}
