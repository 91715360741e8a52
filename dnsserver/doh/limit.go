package doh

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/lb/proxyproto"
)

// limited is a listener that closes at once what comes beyond its limits.
type limited struct {
	net.Listener
	max, maxPerIP int
	proxies       []netip.Prefix // whose connections begin with a PROXY header
	refused       atomic.Uint64
	badHeaders    atomic.Uint64

	mu   sync.Mutex
	all  int
	byIP map[netip.Addr]int
}

func newLimited(l net.Listener, limit, perIP int, proxies []netip.Prefix) *limited {
	return &limited{Listener: l, max: limit, maxPerIP: perIP, proxies: proxies, byIP: map[netip.Addr]int{}}
}

// Accept implements net.Listener. Of a proxy's connection it is not known yet whose it is.
func (l *limited) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &counted{Conn: nc, l: l}
		from := addrOf(nc)
		through := proxyproto.Trusts(l.proxies, from.Addr())
		switch {
		case !l.admit(c) || !through && !l.settle(c, dnsserver.ClientKey(from.Addr())):
			l.refused.Add(1)
			c.Close()
		case through:
			return &proxied{counted: c, proxy: from}, nil
		default:
			return c, nil
		}
	}
}

func addrOf(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.AddrPort().Addr().Unmap().WithZone(""), a.AddrPort().Port())
}

// admit takes a connection in.
func (l *limited) admit(c *counted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.max {
		return false
	}
	l.all++
	c.in = true
	return true
}

// settle counts a connection that was taken in to its client.
func (l *limited) settle(c *counted, ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.in || l.byIP[ip] >= l.maxPerIP {
		return false
	}
	l.byIP[ip]++
	c.ip, c.settled = ip, true
	return true
}

func (l *limited) leave(c *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.in {
		return
	}
	c.in = false
	l.all--
	if !c.settled {
		return
	}
	if l.byIP[c.ip]--; l.byIP[c.ip] == 0 {
		delete(l.byIP, c.ip)
	}
}

// counted is a connection that leaves when it is closed.
type counted struct {
	net.Conn
	l *limited

	// Under the listener's lock: whether it was taken in and has not left, and whether it is
	// counted to a client, and to which.
	in, settled bool
	ip          netip.Addr
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.l.leave(c)
	return c.Conn.Close()
}
