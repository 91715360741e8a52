//go:build linux

package l4

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/clienthello"
	"github.com/musterdns/muster/lb/proxyproto"
)

// believes reports whether connections from a begin with a PROXY header.
func (p *Proxy) believes(a netip.Addr) bool { return proxyproto.Trusts(p.cfg.ProxyFrom, a) }

// readHello reads until it is known where the connection goes.
func (c *conn) readHello() {
	if !c.watchIn(&c.client, clientSocket) {
		c.refuse(&c.l.counts.localFailed)
		return
	}
	for c.client.readable {
		most := clienthello.SizeMax
		if !c.headed {
			most = proxyproto.SizeMax
		}
		n, errno := receive(c.client.fd, c.l.buf[:max(1, most-len(c.hello))])
		switch {
		case errno == unix.EAGAIN:
			c.client.readable = false
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			c.finish(errno != 0) // it left before it said where to
			return
		}
		c.hello = append(c.hello, c.l.buf[:n]...)
		if c.understand() {
			return
		}
	}
}

// understand reads what has come; false: more is needed.
func (c *conn) understand() bool {
	if !c.headed {
		h, n, err := proxyproto.Parse(c.hello)
		switch {
		case errors.Is(err, proxyproto.ErrShort):
			return false
		case err != nil || h.Datagram:
			c.refuse(&c.l.counts.badHello)
			return true
		}
		c.headed, c.hello = true, c.hello[n:]
		if h.Known() {
			c.source, c.dest = unmapped(h.Source), unmapped(h.Dest)
		}
		if !c.admit() {
			return true
		}
	}
	if c.l.p.routes.byName() {
		name, err := clienthello.ServerName(c.hello)
		switch {
		case errors.Is(err, clienthello.ErrShort):
			return false
		case errors.Is(err, clienthello.ErrNone): // no TLS: no name
		case err != nil:
			c.refuse(&c.l.counts.badHello)
			return true
		}
		c.backend, _ = c.l.p.routes.find(name)
	} else {
		c.backend = c.l.p.routes.fallback
	}
	c.dial()
	return true
}

// unmapped is an address without IPv4 in IPv6.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
