//go:build linux

package l4

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize      = 32       // datagrams a system call
	datagramOctets = 64 << 10 // more than any has
	controlOctets  = 64       // holds one IP_PKTINFO or IPV6_PKTINFO
)

// mmsghdr is the kernel's struct of that name, which x/sys lacks.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// batch receives datagrams and sends them on, up to batchSize with a system
// call. The kernel's headers point into its memory, which is set up once.
type batch struct {
	msgs    [batchSize]mmsghdr
	iovs    [batchSize]unix.Iovec
	from    [batchSize]sockaddr
	control [batchSize][controlOctets]byte
	data    []byte // touched, and so taken, as far as datagrams are long
}

func newBatch() *batch {
	b := &batch{data: make([]byte, batchSize*datagramOctets)}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*datagramOctets]
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// receive takes what has come, without waiting. named: who sent it and to which
// address is told, too.
func (b *batch) receive(fd int, named bool) (int, syscall.Errno) {
	for i := range b.msgs {
		b.iovs[i].SetLen(datagramOctets)
		h := &b.msgs[i].hdr
		h.Name, h.Namelen, h.Control = nil, 0, nil
		h.SetControllen(0)
		if named {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.from[i].raw)), unix.SizeofSockaddrInet6
			h.Control = &b.control[i][0]
			h.SetControllen(controlOctets)
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// datagram is what was received as number i.
func (b *batch) datagram(i int) []byte {
	return b.data[i*datagramOctets:][:min(int(b.msgs[i].n), datagramOctets)]
}

// source is who sent number i.
func (b *batch) source(i int) netip.AddrPort { return b.from[i].addrPort() }

// dest is the address that number i was sent to, and the header to answer from
// it; invalid where the socket was not asked to tell.
func (b *batch) dest(i int) (netip.Addr, []byte) {
	n := int(b.msgs[i].hdr.Controllen)
	header, data, _, err := unix.ParseOneSocketControlMessage(b.control[i][:min(n, controlOctets)])
	switch {
	case err != nil:
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		// The address that it came to, also if sent to another: a broadcast cannot
		// be answered from.
		return netip.AddrFrom4(info.Spec_dst), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: info.Spec_dst})
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		return netip.AddrFrom16(info.Addr), unix.PktInfo6(info)
	}
	return netip.Addr{}, nil
}

// send sends the first n datagrams to one address. sent is how many went.
func (b *batch) send(fd, n int, to *sockaddr, control []byte) (sent int) {
	for i := range n {
		b.iovs[i].SetLen(int(b.msgs[i].n))
		h := &b.msgs[i].hdr
		h.Name, h.Namelen, h.Control = (*byte)(unsafe.Pointer(&to.raw)), to.size, unsafe.SliceData(control)
		h.SetControllen(len(control))
	}
	for from := 0; from < n; {
		got, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[from])), uintptr(n-from), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EAGAIN {
			return sent // the link is full: datagrams may be lost
		}
		if errno != 0 {
			from++ // the first could not go
			continue
		}
		sent, from = sent+int(got), from+int(got)
	}
	return sent
}
