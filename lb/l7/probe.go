package l7

import (
	"net"
	"syscall"
)

// probe tells whether the other end of a connection has closed it, without
// reading from it. It is not safe for concurrent use. Over TLS whoever closes
// says so first (RFC 8446 section 6.1): there what is not read yet counts as the
// end, since between responses nothing else is due.
type probe struct {
	raw  syscall.RawConn
	peek func(fd uintptr) // made once: a closure a call would be garbage
	end  bool
}

func newProbe(c *net.TCPConn, secure bool) (*probe, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &probe{raw: raw}
	p.peek = func(fd uintptr) { p.end = ended(int(fd), secure) }
	return p, nil
}

// ended looks whether the other end has closed the connection of a descriptor.
func ended(fd int, secure bool) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return (n == 0 || secure) && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
}

// closed reports that the other end has closed or reset the connection, or sent
// nothing and it is closed here.
func (p *probe) closed() bool {
	p.end = true
	if err := p.raw.Control(p.peek); err != nil {
		return true
	}
	return p.end
}
