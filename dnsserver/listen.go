package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// maxBindTries is how often another free port is tried: one that is free for
// TCP may be taken for UDP.
const maxBindTries = 32

// bound is the sockets of one address.
type bound struct {
	addr netip.AddrPort
	tcp  *net.TCPListener
	udp  []*net.UDPConn
}

// bind binds addr for TCP and, with workers sockets, for UDP; both or none. TCP
// goes first: it has the port to itself, while SO_REUSEPORT lets any process of
// ours share a UDP port, without a word.
func bind(addr netip.AddrPort, workers int) (*bound, error) {
	for try := 1; ; try++ {
		b, err := bindOnce(addr, workers)
		if err == nil {
			return b, nil
		}
		if addr.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) || try == maxBindTries {
			return nil, err
		}
	}
}

func bindOnce(addr netip.AddrPort, workers int) (*bound, error) {
	tcpNet, udpNet := "tcp4", "udp4"
	if addr.Addr().Is6() {
		tcpNet, udpNet = "tcp6", "udp6"
	}
	ctx := context.Background()           // nothing here waits: the addresses are numbers
	lc := net.ListenConfig{KeepAlive: -1} // idle connections are closed long before a probe would go out
	ln, err := lc.Listen(ctx, tcpNet, addr.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", ln)
	}
	b := &bound{tcp: tcp}
	b.addr = netip.AddrPortFrom(addr.Addr(), tcp.Addr().(*net.TCPAddr).AddrPort().Port())
	lc = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, addr.Addr())
	}}
	for range workers {
		pc, err := lc.ListenPacket(ctx, udpNet, b.addr.String())
		if err != nil {
			b.close()
			return nil, err
		}
		conn, ok := pc.(*net.UDPConn)
		if !ok {
			b.close()
			return nil, fmt.Errorf("unexpected %T", pc)
		}
		b.udp = append(b.udp, conn)
	}
	return b, nil
}

func (b *bound) close() {
	b.tcp.Close()
	for _, c := range b.udp {
		c.Close()
	}
}
