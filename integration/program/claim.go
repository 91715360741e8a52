package program

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
)

// claimsMax is how many claims are tried before it is held that none is free.
const claimsMax = 100

// claim binds an abstract Unix socket, which does not listen, to a name: none that
// is claimed so is claimed again, by any process, before release or this one's end.
// No address is taken for it: one would keep others from listening at its port of
// every address.
func claim(name string) (release func(), err error) {
	// A bare descriptor, which the garbage collector closes for nobody.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: "@muster-claim/" + name}); err != nil {
		return nil, errors.Join(fmt.Errorf("claiming %s: %w", name, err), syscall.Close(fd))
	}
	return func() { _ = syscall.Close(fd) }, nil // nothing was written
}

// Network is a /24 of loopback addresses that nobody else has claimed: its owner
// may use fixed ports there, beside any other owner on this machine.
type Network struct {
	prefix   [3]byte
	release  func()
	released atomic.Bool
}

// ClaimNetwork claims a Network, which is the caller's until Release or the end of
// this process.
func ClaimNetwork() (*Network, error) {
	var last error
	for range claimsMax {
		r := rand.Uint32()
		// 127.0 and 127.1 are what people and muster dev use, 127.200 and up what
		// checks by the hundred thousand are sent to.
		n := &Network{prefix: [3]byte{127, byte(2 + r%198), byte(r >> 8)}}
		if n.release, last = claim(n.Addr(0).String()); last == nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no network is free: %w", last)
}

// Addr is an address of the network.
func (n *Network) Addr(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{n.prefix[0], n.prefix[1], n.prefix[2], host})
}

// Release gives the network up. It may be called more than once.
func (n *Network) Release() {
	if !n.released.Swap(true) {
		n.release()
	}
}

// FreePort returns a port of 127.0.0.1 that is free for UDP and TCP, for programs
// that cannot say which port they chose. The kernel gives it to no outgoing
// connection, and FreePort to nobody else, in this process or another, before this
// process ends.
func FreePort() (int, error) {
	var last error
	for range claimsMax {
		// Below the kernel's own, which begin at 32768.
		port := uint16(12_000 + rand.N(20_000))
		release, err := claim("port " + strconv.Itoa(int(port)))
		if err != nil {
			last = err
			continue
		}
		if last = free(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)); last == nil {
			return int(port), nil
		}
		release()
	}
	return 0, fmt.Errorf("no port is free for UDP and TCP: %w", last)
}

// free tells why an address cannot be listened at.
func free(at netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Close(), c.Close())
}
