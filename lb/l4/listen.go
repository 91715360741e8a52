//go:build linux

package l4

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// backlog is how many connections the kernel accepts ahead; it takes the least
// of this and net.core.somaxconn.
const backlog = 4096

// open returns the listening sockets: one, or of UDP one a loop.
func (p *Proxy) open() ([]int, error) {
	n := 1
	if p.cfg.UDP {
		n = p.cfg.Workers
	}
	var sockets []int
	at := p.cfg.Listen
	for i := range n {
		fd, err := p.openOne(i, at)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, fd)
		at = localAddr(fd) // the others get the same port
	}
	return sockets, nil
}

// openOne takes the inherited socket number i over, or makes one.
func (p *Proxy) openOne(i int, at netip.AddrPort) (int, error) {
	f := p.cfg.Inherited(p.socketName(i))
	if f == nil {
		kind := unix.SOCK_STREAM
		if p.cfg.UDP {
			kind = unix.SOCK_DGRAM
		}
		return listen(kind, at, p.cfg.Transparent)
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("taking over socket %s: %w", f.Name(), err)
	}
	fd := -1
	// Not by File.Fd, which may make the socket wait: the old process shares it.
	controlErr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if controlErr != nil {
		err = controlErr
	}
	if err != nil {
		return -1, fmt.Errorf("taking over socket %s: %w", f.Name(), err)
	}
	if err := p.adopt(fd); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("taking over socket %s: %w", f.Name(), err)
	}
	return fd, nil
}

// adopt sets a socket up that was another's, perhaps an HTTP proxy's, which may
// go on with it until Run is called, or if that is not to be: whether it is
// transparent is left to settle.
func (p *Proxy) adopt(fd int) error {
	if p.cfg.UDP {
		return nil
	}
	if p.cfg.Transparent {
		if err := mayBeTransparent(); err != nil {
			return err
		}
	}
	return setOptions(fd, accepted[:])
}

// settle makes the sockets transparent, or takes that back, wherever they come
// from.
func (p *Proxy) settle() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.UDP {
		return nil
	}
	for _, fd := range p.sockets {
		if err := setTransparent(fd, p.cfg.Listen.Addr(), p.cfg.Transparent); err != nil {
			return err
		}
	}
	return nil
}

// socketName is what a socket is handed over as. The address is in it, so that
// a listener that has moved takes no old one over.
func (p *Proxy) socketName(i int) string {
	network := "tcp"
	if p.cfg.UDP {
		network = "udp"
	}
	return fmt.Sprintf("proxy %s %s %s %d", p.cfg.Name, network, p.cfg.Listen, i)
}

// Sockets returns the listening sockets, to be handed over, by names that
// Config.Inherited is asked for. They stay the Proxy's: once Run has begun to
// stop their use fails with net.ErrClosed.
func (p *Proxy) Sockets() map[string]syscall.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	sockets := map[string]syscall.Conn{}
	for i := range p.sockets {
		sockets[p.socketName(i)] = lent{p, i}
	}
	return sockets
}

// lent is a listening socket that others may duplicate while it is open.
type lent struct {
	p *Proxy
	i int
}

var (
	_ syscall.Conn    = lent{}
	_ syscall.RawConn = lent{}
)

// SyscallConn returns the socket itself.
func (s lent) SyscallConn() (syscall.RawConn, error) { return s, nil }

// Control calls f with the descriptor, which f must not keep.
func (s lent) Control(f func(fd uintptr)) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.i >= len(s.p.sockets) {
		return net.ErrClosed
	}
	f(uintptr(s.p.sockets[s.i]))
	return nil
}

// Read fails: the Proxy reads.
func (s lent) Read(func(fd uintptr) bool) error { return syscall.EOPNOTSUPP }

// Write fails: the Proxy writes.
func (s lent) Write(func(fd uintptr) bool) error { return syscall.EOPNOTSUPP }

// listen makes a listening socket.
func listen(kind int, at netip.AddrPort, transparent bool) (int, error) {
	fd, err := unix.Socket(family(at.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	if err := setListen(fd, kind, at, transparent); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// accepted are the options of a TCP socket that pass to what it accepts.
var accepted = [...][3]int{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, // or a client's urgent octet would be lost
}

func setOptions(fd int, options [][3]int) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("setting option %d: %w", o[1], err)
		}
	}
	return nil
}

func setListen(fd, kind int, at netip.AddrPort, transparent bool) error {
	options := append([][3]int{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}}, accepted[:]...)
	if kind == unix.SOCK_DGRAM {
		options = [][3]int{{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}}
	}
	if at.Addr().Is6() {
		only := 1
		if at.Addr().IsUnspecified() {
			only = 0 // [::] is for all, as everywhere in Go
		}
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only})
	}
	if err := setOptions(fd, options); err != nil {
		return err
	}
	if transparent {
		if err := setTransparent(fd, at.Addr(), true); err != nil {
			return err
		}
	}
	if errno := bind(fd, at); errno != 0 {
		return fmt.Errorf("binding %s: %w", at, errno)
	}
	if kind == unix.SOCK_DGRAM {
		return nil
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listening on %s: %w", at, err)
	}
	return nil
}
