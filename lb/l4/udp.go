//go:build linux

package l4

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/dispatch"
)

// batchesMax is how many batches are received from one socket before others
// have their turn.
const batchesMax = 16

// udpStopWait is how long a flow waits for one more answer after the order to
// stop, when no more is taken from its client.
const udpStopWait = int64(time.Second)

// udpKey tells flows apart: the client, and on a listener for all addresses the
// one that it sent to.
type udpKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// udpListener receives the datagrams of clients. It belongs to a loop.
type udpListener struct {
	l        *loop
	fd       int
	wildcard bool
	flows    map[udpKey]*udpFlow
	batch    *batch
}

// newUDPListener sets a bound socket up for a loop, which owns neither.
func newUDPListener(l *loop, fd int) (*udpListener, error) {
	u := &udpListener{l: l, fd: fd, flows: map[udpKey]*udpFlow{}, batch: newBatch()}
	at := localAddr(fd).Addr()
	u.wildcard = at.IsUnspecified()
	if !u.wildcard {
		return u, nil
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if at.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return nil, fmt.Errorf("asking for the destination's address: %w", err)
	}
	return u, nil
}

// receive passes on what clients sent. The listener stays ready if there is more.
func (u *udpListener) receive() {
	for range batchesMax {
		n, errno := u.batch.receive(u.fd, true)
		if errno != 0 {
			return // EAGAIN, or what the next datagram will end
		}
		u.l.counts.datagrams.Add(uint64(n))
		for i := range n {
			f := u.flow(i)
			if f == nil || !f.forward(u.batch.datagram(i)) {
				u.l.counts.dropped.Add(1)
			}
		}
		if n < batchSize {
			return
		}
	}
}

// stop has the flows end as soon as no more answers come.
func (u *udpListener) stop() {
	for _, f := range u.flows {
		u.l.wheel.set(&f.timer, f.deadline())
	}
}

// flow finds or begins the flow of datagram i; nil: it may not be.
func (u *udpListener) flow(i int) *udpFlow {
	key := udpKey{client: u.batch.source(i)}
	var control []byte
	if u.wildcard {
		key.local, control = u.batch.dest(i)
	}
	if f := u.flows[key]; f != nil {
		return f
	}
	l := u.l
	if l.p.active.Add(1) > int64(l.p.cfg.ConnsMax) {
		l.p.active.Add(-1)
		l.counts.refusedMax.Add(1)
		return nil
	}
	if !l.p.clients.enter(key.client.Addr()) {
		l.p.active.Add(-1)
		l.counts.refusedOne.Add(1)
		return nil
	}
	l.counts.accepted.Add(1)
	l.conns.Add(1)
	f := &udpFlow{u: u, key: key, to: u.batch.from[i], control: control, fd: -1, last: l.now}
	f.to.size = unix.SizeofSockaddrInet4
	if f.to.raw.Family == unix.AF_INET6 {
		f.to.size = unix.SizeofSockaddrInet6
	}
	f.timer.owner = f
	f.ref = l.enter(f)
	u.flows[key] = f
	l.wheel.set(&f.timer, f.deadline())
	return f
}

// udpFlow is what one client sends and gets, through a socket of its own that is
// connected to an instance: so the kernel sorts the answers, takes none from
// others, and tells when nobody listens there (ICMP port unreachable).
type udpFlow struct {
	u       *udpListener
	ref     ref
	timer   timer
	key     udpKey
	to      sockaddr // the client
	control []byte   // to answer from the address that it sent to; nil: there is one

	fd      int // -1: no instance chosen
	choice  dispatch.Choice
	attempt uint32
	tried   *dispatch.Tried // since an instance answered; nil: none
	stopEnd func()
	replied bool // by this instance
	queued  bool

	last    int64
	drainBy int64 // 0: no limit
}

// forward sends a datagram to the flow's instance, choosing another while there
// is none or nobody listens there; false: it could not be.
func (f *udpFlow) forward(b []byte) bool {
	for {
		if f.fd < 0 && !f.choose() {
			return false
		}
		_, errno := send(f.fd, b)
		switch errno {
		case 0:
			f.last = f.u.l.now
			f.u.l.counts.bytesIn.Add(uint64(len(b)))
			f.choice.AddBytes(int64(len(b)), 0)
			return true
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
			if !f.unreachable() {
				return false
			}
		default:
			return false // a full buffer, or a datagram longer than its path takes
		}
	}
}

// unreachable gives the instance up, as nobody listens there; false: enough
// were tried, and the flow has ended.
func (f *udpFlow) unreachable() bool {
	l := f.u.l
	l.counts.unreachable.Add(1)
	if f.tried == nil || f.replied {
		f.tried = &dispatch.Tried{}
	}
	f.tried.Add(f.choice)
	f.leave(dispatch.Outcome{Result: dispatch.Unreachable})
	if f.tried.Len() > max(l.p.cfg.Retries, 0) {
		f.finish()
		return false
	}
	l.counts.retried.Add(1)
	return true
}

// choose connects the flow to an instance; false: there is none, and the flow
// has ended.
func (f *udpFlow) choose() bool {
	l := f.u.l
	r := dispatch.Request{Hash: dispatch.HashAddr(f.key.client.Addr()), Client: f.key.client.Addr(), ActiveMax: l.p.cfg.InstanceMax}
	choice, err := l.p.routes.fallback.Choose(r, f.tried)
	if err != nil {
		l.counts.unserved.Add(1)
		f.finish()
		return false
	}
	f.choice = choice
	f.attempt++
	if !f.connect() {
		l.counts.localFailed.Add(1)
		f.finish()
		return false
	}
	l.counts.connected.Add(1)
	to, attempt := f.ref, f.attempt
	f.stopEnd = choice.OnEnd(func(e dispatch.End) { l.post(message{to: to, attempt: attempt, end: e}) })
	return true
}

// connect makes the flow's socket.
func (f *udpFlow) connect() bool {
	fd, err := newSocket(unix.SOCK_DGRAM, f.choice.Addr(), netip.AddrPort{})
	if err != nil {
		return false
	}
	if connect(fd, f.choice.Addr()) != 0 {
		_ = unix.Close(fd)
		return false
	}
	f.fd = fd
	return f.u.l.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLET, int32(f.ref.index)<<1, f.ref.generation) == nil
}

// event passes answers on, and learns that nobody listens.
func (f *udpFlow) event(int, uint32) { f.again() }

// again passes on what the instance sent, a few batches a turn.
func (f *udpFlow) again() {
	f.queued = false
	l := f.u.l
	for range batchesMax {
		if f.fd < 0 {
			return
		}
		n, errno := f.u.batch.receive(f.fd, false)
		switch errno {
		case 0:
			f.reply(n)
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
			f.unreachable() // the client's next datagram chooses
			return
		default:
			return
		}
	}
	if !f.queued {
		f.queued = true
		l.turn = append(l.turn, f.ref)
	}
}

// reply sends n datagrams of the batch to the client, from the address that it
// sent to.
func (f *udpFlow) reply(n int) {
	l := f.u.l
	var octets int64
	for i := range n {
		octets += int64(len(f.u.batch.datagram(i)))
	}
	sent := f.u.batch.send(f.u.fd, n, &f.to, f.control)
	l.counts.replies.Add(uint64(sent))
	l.counts.dropped.Add(uint64(n - sent))
	l.counts.bytesOut.Add(uint64(octets))
	f.choice.AddBytes(0, octets)
	if f.last = l.now; !f.replied {
		f.replied = true
		f.choice.Answered()
	}
}

// deadline is when the flow ends if nothing comes.
func (f *udpFlow) deadline() int64 {
	silence := int64(f.u.l.p.cfg.IdleTimeout)
	if f.u.l.stopping {
		silence = min(silence, udpStopWait)
	}
	at := f.last + silence
	if f.drainBy > 0 {
		at = min(at, f.drainBy)
	}
	return at
}

// expire ends the flow if its deadline has come.
func (f *udpFlow) expire(now int64) int64 {
	if at := f.deadline(); at > now {
		return at
	}
	if f.drainBy > 0 && f.drainBy <= now {
		f.kill(&f.u.l.counts.drained)
	} else {
		f.kill(&f.u.l.counts.idle)
	}
	return 0
}

// ended has the next datagram choose again if the instance is down or gone: no
// stream is cut by that, and nobody may be there to answer. A drained one keeps
// its flows.
func (f *udpFlow) ended(attempt uint32, e dispatch.End) {
	if attempt != f.attempt || f.fd < 0 {
		return
	}
	cfg := &f.u.l.p.cfg
	switch {
	case e == dispatch.EndGone, e == dispatch.EndDown && cfg.OnDown == DownReset:
		f.u.l.counts.down.Add(1)
		f.leave(f.outcome())
	case cfg.DrainTimeout > 0 && f.drainBy == 0:
		f.drainBy = f.u.l.now + int64(cfg.DrainTimeout)
		f.u.l.wheel.set(&f.timer, f.deadline())
	}
}

// outcome is what the flow says of its instance. Silence says nothing: not
// every protocol answers.
func (f *udpFlow) outcome() dispatch.Outcome {
	if f.replied {
		return dispatch.Outcome{Result: dispatch.OK}
	}
	return dispatch.Outcome{}
}

// leave gives the instance back.
func (f *udpFlow) leave(o dispatch.Outcome) {
	if f.stopEnd != nil {
		f.stopEnd()
		f.stopEnd = nil
	}
	if f.choice.Valid() {
		f.choice.Done(o)
		f.choice = dispatch.Choice{}
	}
	if f.fd >= 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
	f.replied, f.drainBy = false, 0
}

// kill ends the flow and counts why.
func (f *udpFlow) kill(why *atomic.Uint64) {
	why.Add(1)
	f.finish()
}

// finish forgets the flow.
func (f *udpFlow) finish() {
	l := f.u.l
	f.leave(f.outcome())
	delete(f.u.flows, f.key)
	l.p.clients.leave(f.key.client.Addr())
	l.wheel.remove(&f.timer)
	l.leave(f.ref)
	l.conns.Add(-1)
	l.p.active.Add(-1)
}
