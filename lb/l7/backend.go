package l7

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
)

// backendKey names a backend.
type backendKey struct {
	ref dispatch.Ref
	tls *InstanceTLS // nil: cleartext
	// protocol is that over TLS, so that no connection that was made for
	// HTTP/1.1 keeps others from finding out more.
	protocol protocol
}

// backend is a dispatch.Backend and the connections to its instances. All
// routes to one Ref, in one way of speaking to instances, share it.
type backend struct {
	backendKey

	p     *Proxy
	name  string // the service's within its zone, as its instances' certificates say
	d     *dispatch.Backend
	gate  gate         // of retries
	inUse atomic.Int64 // exchanges

	mu     sync.Mutex // guards what is below, and the peers
	peers  map[netip.AddrPort]*peer
	closed bool // no route uses it any more: nothing is kept
}

// peer is one instance in one of its terms, from when it came in until it is
// marked down, drained or gone.
type peer struct {
	b    *backend
	id   string // the instance's
	addr netip.AddrPort
	end  dispatch.End
	down atomic.Bool // end is EndDown
	stop func()      // ends the watch for its end; nil: not yet

	idle  []*instanceConn // the last one used is the last
	busy  *instanceConn   // a list of those that carry a request
	calls map[*call]struct{}
	h2    *http.Transport // nil: not asked for yet
	spare *tls.Conn       // for h2: the one by which speaksH2 was found out; nil: none

	speaksH2 atomic.Bool            // it has agreed to HTTP/2
	trouble  atomic.Pointer[string] // why TLS to it fails, as was logged; nil: it does not
}

// The states of what waits for a response.
const (
	stateSteady   uint32 = iota // is not to be interrupted
	stateWaiting                // may be given up for another instance
	stateGivenUp                // was
	pooledPerPeer = 8           // idle connections that a peer's list has room for at first
)

// instanceConn is a connection to an instance.
type instanceConn struct {
	c      net.Conn // tcp, or a *tls.Conn over it
	tcp    *net.TCPConn
	rd     http1.Reader
	body   http1.Body
	peer   *peer
	since  time.Time // when it became idle
	state  atomic.Uint32
	probe  *probe
	stalls time.Time // until when reading may take, as it was told
	writes time.Time // and writing
	// The list of busy connections.
	prev, next *instanceConn
}

// call is a request to an instance over HTTP/2 that waits for its response.
type call struct {
	state  atomic.Uint32
	cancel func()
	choice dispatch.Choice
	begun  time.Time
	body   *awaits // of a body that is sent; nil: none is
	told   bool    // that the instance is silent; guarded by the backend's mu
}

// backend returns the backend of a key. p.mu is held.
func (p *Proxy) backend(key backendKey) (*backend, error) {
	if b := p.backends[key]; b != nil {
		return b, nil
	}
	d, err := p.cfg.Dispatcher.Acquire(key.ref)
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", key.ref.Service, err)
	}
	b := &backend{backendKey: key, p: p, name: key.ref.Service, d: d, peers: map[netip.AddrPort]*peer{}}
	for zone, source := range p.cfg.Zones {
		if source == key.ref.Source {
			b.name = key.ref.Service + "." + strings.TrimSuffix(zone, ".")
		}
	}
	p.backends[key] = b
	return b, nil
}

// peerOf returns the peer of a choice. A new one is watched for its end.
func (b *backend) peerOf(c dispatch.Choice) *peer {
	b.mu.Lock()
	q := b.peers[c.Addr()]
	if q != nil {
		b.mu.Unlock()
		return q
	}
	q = &peer{b: b, id: c.ID(), addr: c.Addr(), idle: make([]*instanceConn, 0, pooledPerPeer), calls: map[*call]struct{}{}}
	b.peers[c.Addr()] = q
	b.mu.Unlock()
	stop := c.OnEnd(q.ended) // without the lock: it may call at once
	b.mu.Lock()
	q.stop = stop
	closed := b.closed
	b.mu.Unlock()
	if closed {
		stop()
	}
	return q
}

// ended is called when the instance's time ends: what is idle is closed, and
// when the instance is marked down, what waits for a first byte and may be sent
// again is given up for another instance.
func (q *peer) ended(end dispatch.End) {
	b := q.b
	b.mu.Lock()
	if b.peers[q.addr] == q {
		delete(b.peers, q.addr)
	}
	q.end = end
	idle, h2, spare := q.idle, q.h2, q.spare
	q.idle, q.spare = nil, nil
	if end == dispatch.EndDown {
		q.down.Store(true)
		for c := q.busy; c != nil; c = c.next {
			if c.state.CompareAndSwap(stateWaiting, stateGivenUp) {
				c.c.SetReadDeadline(past)
			}
		}
		for c := range q.calls {
			if c.state.CompareAndSwap(stateWaiting, stateGivenUp) {
				c.cancel()
			}
		}
	}
	b.mu.Unlock()
	for _, c := range idle {
		c.c.Close()
	}
	if spare != nil {
		spare.Close()
	}
	if h2 != nil {
		h2.CloseIdleConnections()
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// take returns a connection to the peer that is idle; nil: there is none.
func (q *peer) take() *instanceConn {
	b := q.b
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(q.idle)
	if n == 0 {
		return nil
	}
	c := q.idle[n-1]
	q.idle = q.idle[:n-1]
	q.link(c)
	return c
}

// link puts a connection among the busy ones. b.mu is held.
func (q *peer) link(c *instanceConn) {
	c.prev, c.next = nil, q.busy
	if q.busy != nil {
		q.busy.prev = c
	}
	q.busy = c
}

// unlink takes it out again. b.mu is held.
func (q *peer) unlink(c *instanceConn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.busy = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}

// put keeps a connection, whose response was read to its end, for the next
// request.
func (c *instanceConn) put(now time.Time) {
	q, b := c.peer, c.peer.b
	c.since = now
	if buf := c.rd.Buffer(); len(buf) > bufferSize {
		c.rd.Reset(c.c, make([]byte, bufferSize))
	}
	b.mu.Lock()
	q.unlink(c)
	keep := q.end == dispatch.EndNone && !b.closed && len(q.idle) < b.p.cfg.Limits.Pooled
	if keep {
		q.idle = append(q.idle, c)
	}
	b.mu.Unlock()
	if !keep {
		c.c.Close()
	}
}

// close closes a busy connection, without a word of TLS: that could block.
func (c *instanceConn) close() {
	c.peer.b.mu.Lock()
	c.peer.unlink(c)
	c.peer.b.mu.Unlock()
	c.tcp.Close()
}

// closed reports that the instance has closed an idle connection, also by TLS's
// word alone, which may have been received with the response before.
func (c *instanceConn) closed() bool {
	if c.probe.closed() {
		return true
	}
	if c.plain() {
		return false
	}
	c.c.SetReadDeadline(past) // nothing is waited for, nor taken from the socket
	var b [1]byte
	_, err := c.c.Read(b[:])
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// plain reports whether the connection is in cleartext.
func (c *instanceConn) plain() bool { return c.peer.b.tls == nil }

// sweep closes what has been idle since before a time, or was closed by the
// instance, and what no transport has asked for, and tells of instances that
// are silent over HTTP/2: who waits over HTTP/1.1 wakes up and tells it itself.
func (b *backend) sweep(now, before time.Time) {
	var old []*instanceConn
	var spares []*tls.Conn
	b.mu.Lock()
	for _, q := range b.peers {
		for c := range q.calls {
			c.silent(now)
		}
		kept := q.idle[:0]
		for _, c := range q.idle {
			if c.since.Before(before) || c.probe.closed() {
				old = append(old, c)
			} else {
				kept = append(kept, c)
			}
		}
		clear(q.idle[len(kept):])
		q.idle = kept
		if q.spare != nil {
			spares = append(spares, q.spare)
			q.spare = nil
		}
	}
	b.mu.Unlock()
	for _, c := range spares {
		c.Close()
	}
	for _, c := range old {
		c.c.Close()
	}
}

// close gives the backend up. Requests under way go on.
func (b *backend) close() {
	b.mu.Lock()
	b.closed = true
	var idle []*instanceConn
	var stops []func()
	for _, q := range b.peers {
		idle = append(idle, q.idle...)
		q.idle = nil
		if q.spare != nil {
			stops = append(stops, func() { q.spare.Close() }) // nobody puts another there
		}
		if q.stop != nil {
			stops = append(stops, q.stop)
		}
		if q.h2 != nil {
			q.h2.CloseIdleConnections()
		}
	}
	b.mu.Unlock()
	for _, c := range idle {
		c.c.Close()
	}
	for _, stop := range stops {
		stop()
	}
	b.d.Release()
}
