package probe

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unique"

	"github.com/musterdns/muster/health"
)

// young reports whether a connection has not lasted for a FastInterval. The
// monitor is told of an end at once, except of a young one that took the place of
// one which had ended young: a server that closes each connection sooner would
// be checked as fast as it closes.
func (l *link) young() bool {
	fast := l.key.spec.Value().FastInterval
	return time.Since(l.made) < cmp.Or(max(fast, 0), health.FastIntervalDefault)
}

// linkKey identifies a target in few octets, as the monitor does: what targets
// have in common is stored once.
type linkKey struct {
	addr netip.AddrPort
	spec unique.Handle[health.Target] // the rest
}

func keyOf(t health.Target) linkKey {
	k := linkKey{addr: t.Addr}
	t.Addr = netip.AddrPort{}
	k.spec = unique.Make(t)
	return k
}

func (k *linkKey) target() health.Target {
	t := k.spec.Value()
	t.Addr = k.addr
	return t
}

// link is a connection that is kept between checks. Between take and put it is
// the probe's, except for ended.
type link struct {
	key   linkKey
	id    uint64
	conn  net.Conn // what is spoken over: TLS, or tcp itself
	tcp   *net.TCPConn
	made  time.Time
	again bool  // it took the place of one that was brief
	brief bool  // it ended while it was young; guarded by links.mu
	idle  bool  // it is in byKey
	drain bool  // what comes unasked is thrown away, and watched
	noise int   // octets thrown away since the last probe
	ended error // why it is of no use any more; guarded by links.mu
}

// The ends of a connection that are no errors of the kernel's.
var (
	errClosed = errors.New("closed by the instance")
	errNoise  = errors.New("more is sent unasked than a held connection may: use a port that waits for requests")
)

// links are the connections that are kept: one a target, at most max.
type links struct {
	max   int
	lost  func(health.Target)
	mu    sync.Mutex
	byKey map[linkKey]*link // those between two probes
	byID  map[uint64]*link  // all, for what the poller tells
	next  uint64
	poll  *poller // nil: nobody watches, and nothing is kept
	full  uint64  // connections not kept, for want of room
}

// take hands the target's link to a probe, nil if there is none. What has ended
// is handed out once, for its reason.
func (ls *links) take(k linkKey) *link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byKey[k]
	if l == nil {
		return nil
	}
	delete(ls.byKey, k)
	l.idle, l.noise = false, 0
	return l
}

// why is the reason for which a link is of no use any more, nil while it is.
func (ls *links) why(l *link) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.ended == nil && l.drain {
		l.ended = l.look(false)
	}
	return l.ended
}

// put keeps a link for the next probe: one that take has returned, or a new
// one. It reports false, and closes the connection, when there is no room.
func (ls *links) put(l *link) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.id == 0 && !ls.enrol(l) {
		_ = l.tcp.Close()
		return false
	}
	if old := ls.byKey[l.key]; old != nil {
		ls.end(old, net.ErrClosed)
	}
	ls.byKey[l.key], l.idle = l, true
	if l.ended != nil { // meanwhile
		ls.end(l, l.ended)
	}
	return true
}

// enrol makes a new link one that is watched.
func (ls *links) enrol(l *link) bool {
	if ls.poll == nil || len(ls.byID) >= ls.max {
		ls.full++
		return false
	}
	ls.next++
	if err := ls.poll.add(l.tcp, ls.next, l.drain); err != nil {
		ls.full++
		return false
	}
	l.id = ls.next
	ls.byID[l.id] = l
	return true
}

// end closes a link's connection and notes why; the next probe is to know.
func (ls *links) end(l *link, why error) {
	delete(ls.byID, l.id)
	l.ended = why
	_ = l.tcp.Close() // nothing was left to be written
}

// drop ends a link that a probe has taken, and reports whether it was brief.
func (ls *links) drop(l *link) (brief bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.end(l, net.ErrClosed)
	return l.brief
}

// forget ends the link of a target that is not checked any more.
func (ls *links) forget(k linkKey) {
	if l := ls.take(k); l != nil {
		ls.drop(l)
	}
}

// told takes what the poller has seen of a link: its end, or octets.
func (ls *links) told(id uint64, ended bool) {
	ls.mu.Lock()
	l := ls.byID[id]
	var why error
	if l != nil {
		if why = l.look(ended); why != nil {
			l.ended, l.brief = why, l.young()
			if l.idle {
				ls.end(l, why)
			}
		}
	}
	ls.mu.Unlock()
	if why == nil {
		return
	}
	// What is held is worth telling of whatever its age: the next probe fails
	// then, and asks the instance nothing.
	if t := l.key.target(); t.Type == health.TypeHeld || !l.brief || !l.again {
		ls.lost(t)
	}
}

// look finds why a connection has ended, nil if it has not.
func (l *link) look(ended bool) (why error) {
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) {
		if errno, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil {
			why = err
		} else if errno != 0 {
			why = syscall.Errno(errno)
		}
		if why == nil && l.drain {
			why = l.discard(int(fd))
		}
	}); err != nil {
		return err
	}
	if why == nil && ended {
		why = errClosed
	}
	return why
}

// noiseMax is how many octets a held connection may bring between two probes.
const noiseMax = 64 << 10

// discard throws away what a held connection has brought: kept in the kernel,
// it would close the window, and the end could not come through.
func (l *link) discard(fd int) error {
	var scrap [4 << 10]byte
	for l.noise <= noiseMax {
		n, err := syscall.Read(fd, scrap[:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return nil
		case err != nil:
			return err
		case n == 0:
			return errClosed
		}
		l.noise += max(n, 0)
	}
	return errNoise
}

// watch tells of ends until ctx ends, and closes every link then.
func (ls *links) watch(ctx context.Context) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	ls.mu.Lock()
	ls.poll = p
	ls.mu.Unlock()
	err = p.wait(ctx, ls.told)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.poll = nil
	for _, l := range ls.byID {
		ls.end(l, net.ErrClosed)
	}
	clear(ls.byKey)
	return errors.Join(err, p.close())
}
