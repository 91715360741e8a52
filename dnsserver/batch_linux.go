//go:build linux && !portable

package dnsserver

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/dnsserver/wire"
)

const (
	batchSize = 32 // datagrams a system call; 64 gain nothing measurable
	// A longer datagram is cut, and answered with FORMERR. Not a power of two:
	// the beginnings of all queries would fall into the same few sets of the cache.
	queryOctets   = 2048 + 64
	controlOctets = 64 // holds one IP_PKTINFO or IPV6_PKTINFO, and one UDP_SEGMENT
)

// mmsghdr is the kernel's struct of that name, which x/sys lacks.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// batch receives and sends datagrams on one socket, up to batchSize with a
// system call. Its memory is set up once, the kernel's headers pointing into
// it, and touched by one goroutine.
type batch struct {
	in, out       [batchSize]mmsghdr
	inIov, outIov [batchSize]unix.Iovec
	from          [batchSize]unix.RawSockaddrInet6 // room for either family
	control       [batchSize][controlOctets]byte
	query         [batchSize][queryOctets]byte
	reply         [batchSize][wire.MaxPayload]byte
	ipv6          bool
	wildcard      bool // the socket is bound to no address: replies must say theirs
	replies       int  // waiting to be sent
	messages      int  // as many as they are sent as: see join
	first         int  // the datagram that the last message answers first
	size          int  // octets of the reply to that; 0: the message is complete
	segments      bool // the kernel knows UDP_SEGMENT
}

func newBatch(local netip.Addr) *batch {
	b := &batch{ipv6: local.Is6(), wildcard: local.IsUnspecified()}
	for i := range batchSize {
		b.inIov[i].Base = &b.query[i][0]
		b.inIov[i].SetLen(queryOctets)
		b.outIov[i].Base = &b.reply[i][0]
		in, out := &b.in[i].hdr, &b.out[i].hdr
		in.Iov, out.Iov = &b.inIov[i], &b.outIov[i]
		in.SetIovlen(1)
		out.SetIovlen(1)
		in.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		in.Namelen = unix.SizeofSockaddrInet4
		if b.ipv6 {
			in.Namelen = unix.SizeofSockaddrInet6
		}
		out.Namelen = in.Namelen // the kernel writes the same back
		if b.wildcard {
			in.Control = &b.control[i][0]
		}
	}
	return b
}

// receive takes up to batchSize datagrams without waiting; 0 with EAGAIN when
// there are none. The call is not told to the scheduler: it never blocks, and a
// stop of the world waits for one batch at most.
func (b *batch) receive(fd uintptr) (int, syscall.Errno) {
	if b.wildcard {
		for i := range b.in {
			b.in[i].hdr.SetControllen(controlOctets)
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// message is the i-th datagram received, and whether its end was cut off.
func (b *batch) message(i int) (msg []byte, cut bool) {
	m := &b.in[i]
	return b.query[i][:m.len], m.hdr.Flags&unix.MSG_TRUNC != 0
}

// source is where the i-th datagram came from.
func (b *batch) source(i int) netip.AddrPort {
	from := &b.from[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&from.Port))[:])
	if b.ipv6 {
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(from)).Addr), port)
}

// scope is the interface that the i-th datagram's link-local source is on.
func (b *batch) scope(i int) uint32 {
	if !b.ipv6 {
		return 0
	}
	return b.from[i].Scope_id
}

// detect finds out what the kernel knows.
func (b *batch) detect(fd uintptr) {
	_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
	b.segments = err == nil
}

// buffer is where the next reply goes.
func (b *batch) buffer() []byte { return b.reply[b.replies][:] }

// push queues the first n octets of buffer as the reply to datagram i.
func (b *batch) push(i, n int) {
	b.outIov[b.replies].SetLen(n)
	if !b.join(i, n) {
		out := &b.out[b.messages].hdr
		out.Iov = &b.outIov[b.replies]
		out.SetIovlen(1)
		out.Name = b.in[i].hdr.Name
		out.Control = &b.control[i][0]
		out.SetControllen(len(b.sourceControl(i)))
		b.first, b.size = i, n
		b.messages++
	}
	b.replies++
}

// join makes the reply to datagram i a part of the last message, if that goes the same
// way: the kernel takes it through its layers as one and cuts it into datagrams at the
// end, all as long as the first but for the last (UDP_SEGMENT). That halves the cost of
// an answer to who asks much from one port, as forwarders and balancers do.
func (b *batch) join(i, n int) bool {
	if !b.segments || n > b.size || b.from[i] != b.from[b.first] {
		return false
	}
	out, control := &b.out[b.messages-1].hdr, b.sourceControl(i)
	if !bytes.Equal(control, b.control[b.first][:len(control)]) {
		return false
	}
	if out.Iovlen == 1 {
		c := b.control[b.first][len(control):]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(c[unix.CmsgLen(0):], uint16(b.size))
		out.SetControllen(len(control) + unix.CmsgSpace(2))
	}
	out.Iovlen++
	if n < b.size {
		b.size = 0
	}
	return true
}

// sourceControl is the control message that sends a reply from the address that
// datagram i was sent to: what the kernel said about it, without the interface,
// so that routing decides that. Empty when the address can be no source.
func (b *batch) sourceControl(i int) []byte {
	if !b.wildcard {
		return nil
	}
	c := b.control[i][:min(int(b.in[i].hdr.Controllen), controlOctets)]
	data := unix.CmsgLen(0)
	switch {
	case len(c) >= unix.CmsgSpace(unix.SizeofInet4Pktinfo) && !b.ipv6:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c[data]))
		info.Ifindex = 0 // Spec_dst stays: the local address
	case len(c) >= unix.CmsgSpace(unix.SizeofInet6Pktinfo) && b.ipv6:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c[data]))
		addr := netip.AddrFrom16(info.Addr)
		if addr.IsMulticast() {
			return nil
		}
		if !addr.IsLinkLocalUnicast() {
			info.Ifindex = 0
		}
	default:
		return nil
	}
	return c
}

// send sends the queued messages, or as many as the socket takes without
// waiting; with full set, it must be called again when it takes more. failed
// counts replies that the kernel refused.
func (b *batch) send(fd uintptr, sent int) (next, failed int, full bool) {
	for sent < b.messages {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[sent])), uintptr(b.messages-sent), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			sent += int(n)
		case unix.EAGAIN, unix.ENOBUFS:
			return sent, failed, errno == unix.EAGAIN
		case unix.EINTR:
		default: // about the first of them: a source port of 0, no route, a firewall
			failed += b.sendApart(fd, sent)
			sent++
		}
	}
	runtime.KeepAlive(b)
	return sent, failed, false
}

// sendApart sends the replies of a message that the kernel refused one by one, if there are
// several: it may be only together that it does not take them, where something on the way
// can compute no checksum for it. It returns how many it refused again.
func (b *batch) sendApart(fd uintptr, message int) (failed int) {
	hdr := b.out[message].hdr
	if hdr.Iovlen == 1 {
		return 1
	}
	parts := unsafe.Slice(hdr.Iov, hdr.Iovlen)
	hdr.SetIovlen(1)
	hdr.SetControllen(int(hdr.Controllen) - unix.CmsgSpace(2))
	for i := range parts {
		hdr.Iov = &parts[i]
		if _, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdr)), unix.MSG_DONTWAIT); errno != 0 {
			failed++
		}
	}
	return failed
}

// unsent is how many replies are in the messages from sent on.
func (b *batch) unsent(sent int) (n int) {
	for i := range b.out[sent:b.messages] {
		n += int(b.out[sent+i].hdr.Iovlen)
	}
	return n
}

// reset forgets the messages.
func (b *batch) reset() { b.replies, b.messages, b.size = 0, 0, 0 }
