package dnsserver

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/lb/proxyproto"
)

// proxied reports whether what comes from an address begins with a PROXY header, by
// which a proxy tells whose query it passes on.
func (s *Server) proxied(from netip.Addr) bool {
	return len(s.cfg.ProxyFrom) > 0 && slices.ContainsFunc(s.cfg.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(from) })
}

// clientOf is whose a header says that the query is: the proxy's own where it names
// nobody, as its health checks do.
func clientOf(h *proxyproto.Header, proxy netip.AddrPort) netip.AddrPort {
	if !h.Known() {
		return proxy
	}
	return netip.AddrPortFrom(h.Source.Addr().Unmap().WithZone(""), h.Source.Port())
}

// unwrap takes the header off a datagram; false: it has none, and is dropped.
func (w *udpWorker) unwrap(msg []byte) ([]byte, bool) {
	h, n, err := proxyproto.Parse(msg)
	if err != nil {
		w.srv.badHeaders.Add(1)
		return nil, false
	}
	w.client.Addr = clientOf(&h, w.client.Addr)
	return msg[n:], true
}

// unwrap reads the header that a connection begins with, before TLS where it has that;
// false: there is none.
func (c *conn) unwrap() bool {
	if err := c.raw.SetReadDeadline(time.Now().Add(c.srv.cfg.FirstByteTimeout)); err != nil {
		return false
	}
	buf := make([]byte, 0, proxyproto.SizeMax)
	for {
		n, err := c.raw.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, size, parseErr := proxyproto.Parse(buf)
		switch {
		case parseErr == nil:
			c.client.Addr = clientOf(&h, c.client.Addr)
			c.rest.octets = buf[size:]
			return true
		case !errors.Is(parseErr, proxyproto.ErrShort), err != nil, len(buf) == cap(buf):
			c.srv.badHeaders.Add(1)
			return false
		}
	}
}

// rest is a connection of which some octets were read already.
type rest struct {
	*net.TCPConn
	octets []byte
}

// Read implements net.Conn.
func (r *rest) Read(b []byte) (int, error) {
	if len(r.octets) == 0 {
		return r.TCPConn.Read(b)
	}
	n := copy(b, r.octets)
	r.octets = r.octets[n:]
	return n, nil
}
