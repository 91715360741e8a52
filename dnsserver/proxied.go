package dnsserver

import (
	"net"
	"net/netip"
	"time"

	"github.com/musterdns/muster/lb/proxyproto"
)

// proxied reports whether what comes from an address begins with a PROXY header, by
// which a proxy tells whose query it passes on.
func (s *Server) proxied(from netip.Addr) bool { return proxyproto.Trusts(s.cfg.ProxyFrom, from) }

// unwrap takes the header off a datagram, and replaces the proxy's address by that of who
// asks; drop: there is no header.
func (w *udpWorker) unwrap(msg []byte, from *netip.AddrPort) (_ []byte, drop bool) {
	h, n, err := proxyproto.Parse(msg)
	if err != nil {
		w.srv.badHeaders.Add(1)
		return nil, true
	}
	*from = h.Client(*from)
	return msg[n:], false
}

// unwrap reads the header that a connection begins with, before TLS where it has that;
// false: there is none.
func (c *conn) unwrap() bool {
	if err := c.raw.SetReadDeadline(time.Now().Add(c.srv.cfg.FirstByteTimeout)); err != nil {
		return false
	}
	h, rest, err := proxyproto.Read(c.raw)
	if err != nil {
		c.srv.badHeaders.Add(1)
		return false
	}
	c.client.Addr = h.Client(c.client.Addr)
	c.rest.octets = rest
	return true
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
