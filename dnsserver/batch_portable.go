//go:build unix && (!linux || portable)

package dnsserver

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/dnsserver/wire"
)

const (
	batchSize   = 1    // datagrams a system call
	queryOctets = 2048 // a longer datagram is cut, and answered with FORMERR
)

// batch receives and sends datagrams where there is no recvmmsg: one with a
// system call, at three to five times the cost. It is for development, and knows
// no control messages: a socket that is bound to no address answers from the one
// that routing chooses.
//
// Tests run it on Linux with the build tag portable.
type batch struct {
	wildcard bool
	replies  int // waiting to be sent: 0 or 1
	n, flags int // of the datagram received
	size     int // of the reply
	from     unix.Sockaddr
	query    [queryOctets]byte
	reply    [wire.MaxPayload]byte
}

func newBatch(netip.Addr) *batch { return new(batch) }

// receive takes a datagram without waiting; 0 with EAGAIN when there is none.
func (b *batch) receive(fd uintptr) (int, syscall.Errno) {
	var err error
	b.n, _, b.flags, b.from, err = unix.Recvmsg(int(fd), b.query[:], nil, unix.MSG_DONTWAIT)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return 0, errno
	}
	return 1, 0
}

func (b *batch) message(int) (msg []byte, cut bool) {
	return b.query[:b.n], b.flags&unix.MSG_TRUNC != 0
}

func (b *batch) source(int) netip.AddrPort {
	switch from := b.from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port))
	}
	return netip.AddrPort{}
}

func (b *batch) scope(int) uint32 {
	if from, ok := b.from.(*unix.SockaddrInet6); ok {
		return from.ZoneId
	}
	return 0
}

func (b *batch) detect(uintptr) {}

func (b *batch) buffer() []byte { return b.reply[:] }

func (b *batch) push(_, n int) { b.size, b.replies = n, 1 }

func (b *batch) sourceControl(int) []byte { return nil }

// send sends the reply, if there is one and it has not been sent; with full set,
// it must be called again when the socket takes more.
func (b *batch) send(fd uintptr, sent int) (next, failed int, full bool) {
	if sent == b.replies {
		return sent, 0, false
	}
	err := unix.Sendto(int(fd), b.reply[:b.size], unix.MSG_DONTWAIT, b.from)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return sent, 0, true
	case err != nil:
		return 1, 1, false
	}
	return 1, 0, false
}

func (b *batch) unsent(sent int) int { return b.replies - sent }

func (b *batch) reset() { b.replies = 0 }
