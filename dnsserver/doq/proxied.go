package doq

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/musterdns/muster/lb/proxyproto"
)

// datagramMax is the longest datagram with a header that is read, in octets: QUIC's are
// 1,500 at most, as it does without fragments (RFC 9000 section 14).
const datagramMax = proxyproto.SizeMax + 1500

// through is the address of a client behind a proxy. What is sent there goes to the proxy.
type through struct{ client, proxy netip.AddrPort }

// Network implements net.Addr.
func (t *through) Network() string { return "udp" }

// String tells paths apart (RFC 9000 section 9): the same client through another port of
// the proxy is on another.
func (t *through) String() string { return t.client.String() + " through " + t.proxy.String() }

// socket is what of a net.UDPConn QUIC is to see: not that it could read and write with
// the kernel's own addresses.
type socket interface {
	net.PacketConn
	SyscallConn() (syscall.RawConn, error)
	SetReadBuffer(octets int) error
	SetWriteBuffer(octets int) error
}

// proxied is a socket whose datagrams from proxies begin with a header that says whose
// they are.
type proxied struct {
	socket

	udp     *net.UDPConn // the same
	proxies []netip.Prefix
	bad     *atomic.Uint64
	buf     []byte // of ReadFrom, which one goroutine calls
}

var _ net.PacketConn = (*proxied)(nil)

// unwrapping is c, or what takes the headers of proxies off where there are any.
func (s *Server) unwrapping(c *net.UDPConn) net.PacketConn {
	if len(s.cfg.ProxyFrom) == 0 {
		return c
	}
	return &proxied{c, c, s.cfg.ProxyFrom, &s.badHead, make([]byte, datagramMax)}
}

// ReadFrom implements net.PacketConn.
func (p *proxied) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := p.udp.ReadFromUDPAddrPort(p.buf)
		if err != nil {
			return 0, nil, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if !proxyproto.Trusts(p.proxies, from.Addr()) {
			return copy(b, p.buf[:n]), net.UDPAddrFromAddrPort(from), nil
		}
		h, size, err := proxyproto.Parse(p.buf[:n])
		if err != nil {
			p.bad.Add(1)
			continue
		}
		return copy(b, p.buf[size:n]), &through{h.Client(from), from}, nil
	}
}

// WriteTo implements net.PacketConn.
func (p *proxied) WriteTo(b []byte, to net.Addr) (int, error) {
	if t, ok := to.(*through); ok {
		return p.udp.WriteToUDPAddrPort(b, t.proxy)
	}
	return p.socket.WriteTo(b, to)
}
