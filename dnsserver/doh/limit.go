package doh

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// limited is a listener that closes at once what comes beyond its limits.
type limited struct {
	net.Listener
	max, maxPerIP int
	refused       atomic.Uint64

	mu   sync.Mutex
	all  int
	byIP map[netip.Addr]int
}

func newLimited(l net.Listener, limit, perIP int) *limited {
	return &limited{Listener: l, max: limit, maxPerIP: perIP, byIP: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := clientOf(c)
		if l.admit(ip) {
			return &counted{Conn: c, l: l, ip: ip}, nil
		}
		l.refused.Add(1)
		c.Close()
	}
}

// clientOf is what a client is counted by: an IPv4 address, or an IPv6 /64.
func clientOf(c net.Conn) netip.Addr {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	if p, err := ip.Prefix(64); err == nil && ip.Is6() {
		return p.Addr()
	}
	return ip
}

func (l *limited) admit(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.max || l.byIP[ip] >= l.maxPerIP {
		return false
	}
	l.all++
	l.byIP[ip]++
	return true
}

func (l *limited) leave(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.byIP[ip]--; l.byIP[ip] == 0 {
		delete(l.byIP, ip)
	}
}

// counted is a connection that leaves when it is closed.
type counted struct {
	net.Conn
	l    *limited
	ip   netip.Addr
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.l.leave(c.ip) })
	return c.Conn.Close()
}
