package doh

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/lb/proxyproto"
)

// proxied is a connection that a proxy passes on: it begins, before TLS, with a header that
// says whose it is. That is read by whoever first asks for the client or reads, on the
// connection's own goroutine.
type proxied struct {
	*counted
	proxy netip.AddrPort

	once   sync.Once // guards the writing of what follows
	client net.Addr
	rest   []byte // what was read behind the header
	err    error
}

var errCrowded = errors.New("doh: the client has too many connections")

// RemoteAddr implements net.Conn.
func (p *proxied) RemoteAddr() net.Addr {
	p.once.Do(p.unwrap)
	return p.client
}

// Read implements net.Conn.
func (p *proxied) Read(b []byte) (int, error) {
	p.once.Do(p.unwrap)
	switch {
	case p.err != nil:
		return 0, p.err
	case len(p.rest) == 0:
		return p.counted.Read(b)
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *proxied) unwrap() {
	p.client = net.TCPAddrFromAddrPort(p.proxy)
	if p.err = p.SetReadDeadline(time.Now().Add(headerTimeout)); p.err != nil {
		return
	}
	h, rest, err := proxyproto.Read(p.Conn)
	if err != nil {
		p.l.badHeaders.Add(1)
		p.err = err
		return
	}
	from := h.Client(p.proxy)
	if !p.l.settle(p.counted, dnsserver.ClientKey(from.Addr())) {
		p.l.refused.Add(1)
		p.err = errCrowded
		return
	}
	p.client, p.rest = net.TCPAddrFromAddrPort(from), rest
	p.err = p.SetReadDeadline(time.Time{})
}
