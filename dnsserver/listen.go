package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// maxBindTries is how often another free port is tried: one that is free for
// TCP may be taken for UDP.
const maxBindTries = 32

// bound is the sockets of one address.
type bound struct {
	addr netip.AddrPort
	tcp  *net.TCPListener
	udp  []*socket
}

// bind binds addr for TCP and, with workers sockets, for UDP; both or none. TCP
// goes first: it has the port to itself, while SO_REUSEPORT lets any process of
// ours share a UDP port, without a word. Sockets that are inherited are taken in
// place of new ones.
func bind(addr netip.AddrPort, workers int, inherited func(name string) *os.File) (*bound, error) {
	for try := 1; ; try++ {
		b, err := bindOnce(addr, workers, inherited)
		if err == nil {
			return b, nil
		}
		if addr.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) || try == maxBindTries {
			return nil, err
		}
	}
}

func bindOnce(addr netip.AddrPort, workers int, inherited func(name string) *os.File) (*bound, error) {
	tcp, err := ListenTCP(addr, inherited(socketName("tcp", addr, 0)))
	if err != nil {
		return nil, err
	}
	b := &bound{tcp: tcp}
	b.addr = netip.AddrPortFrom(addr.Addr(), tcp.Addr().(*net.TCPAddr).AddrPort().Port())
	for i := range workers {
		s, err := listenWorker(b.addr, inherited(socketName("udp", addr, i)))
		if err != nil {
			b.close()
			return nil, err
		}
		b.udp = append(b.udp, s)
	}
	return b, nil
}

// socketName is what the worker-th socket of an address to listen on is handed
// over as: "dns udp 127.0.0.1:53 0". Port 0 stays 0, since the process to follow
// has the same configuration.
func socketName(transport string, listen netip.AddrPort, worker int) string {
	return fmt.Sprintf("dns %s %s %d", transport, listen, worker)
}

// network is the name of a transport for addr's family alone.
func network(transport string, addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return transport + "6"
	}
	return transport + "4"
}

// ListenTCP takes over a listener of addr, or makes one where f is nil.
func ListenTCP(addr netip.AddrPort, f *os.File) (*net.TCPListener, error) {
	var ln net.Listener
	var err error
	if f != nil {
		ln, err = net.FileListener(f)
		f.Close()
	} else {
		lc := net.ListenConfig{KeepAlive: -1} // idle connections are closed long before a probe would go out
		ln, err = lc.Listen(context.Background(), network("tcp", addr), addr.String())
	}
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", ln)
	}
	return tcp, nil
}

// ListenUDP takes over a socket of addr, or makes one where f is nil, with control as in a
// net.ListenConfig.
func ListenUDP(addr netip.AddrPort, f *os.File, control func(network, address string, c syscall.RawConn) error) (*net.UDPConn, error) {
	var pc net.PacketConn
	var err error
	if f != nil {
		pc, err = net.FilePacketConn(f)
		f.Close()
	} else {
		lc := net.ListenConfig{Control: control}
		pc, err = lc.ListenPacket(context.Background(), network("udp", addr), addr.String())
	}
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", pc)
	}
	return conn, nil
}

// listenWorker is ListenUDP for a worker's socket.
func listenWorker(addr netip.AddrPort, f *os.File) (*socket, error) {
	conn, err := ListenUDP(addr, f, func(_, _ string, c syscall.RawConn) error { return control(c, addr.Addr()) })
	if err != nil {
		return nil, err
	}
	return newSocket(conn)
}

func (b *bound) close() {
	b.tcp.Close()
	for _, s := range b.udp {
		s.close()
	}
}
