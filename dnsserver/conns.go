package dnsserver

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
)

// evictScan bounds the search for a connection to evict, so that an accept is
// cheap even when every connection is busy.
const evictScan = 64

// connTable holds the TCP connections and keeps their number, by client and
// together, within its limits. Its lock is taken when a connection comes and
// when it goes, never for a query.
//
// Each connection stands in two lists, its client's and that of all, the least
// recently active first, or nearly so: a connection that was active since it was
// put in its place is moved to the end when the search for one to evict meets it.
type connTable struct {
	max, maxPerIP int

	mu   sync.Mutex
	all  *list.List
	byIP map[netip.Addr]*list.List

	tcp, tls     counters // of the queries of all connections
	accepted     atomic.Uint64
	evicted      atomic.Uint64
	refused      atomic.Uint64
	timedOut     atomic.Uint64
	acceptErrors atomic.Uint64
}

// place is a connection's place in one list.
type place struct {
	elem *list.Element
	seen uint64 // the connection's activity when it was put there
}

func newConnTable(limit, limitPerIP int) *connTable {
	return &connTable{max: limit, maxPerIP: limitPerIP, all: list.New(), byIP: make(map[netip.Addr]*list.List)}
}

// ClientKey is what a client is counted by: its IPv4 address, or the /64 that an
// IPv6 client has all of.
func ClientKey(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

func (t *connTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.Len()
}

// admit takes c in, evicting the connection idle longest at a limit; false when
// none is idle.
func (t *connTable) admit(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.byIP[c.key]
	if mine != nil && mine.Len() >= t.maxPerIP && !t.evict(mine, func(c *conn) *place { return &c.inIP }) ||
		t.all.Len() >= t.max && !t.evictAny() {
		t.refused.Add(1)
		return false
	}
	if mine = t.byIP[c.key]; mine == nil { // evicting may have emptied it
		mine = list.New()
		t.byIP[c.key] = mine
	}
	c.inAll.elem, c.inIP.elem = t.all.PushBack(c), mine.PushBack(c)
	t.accepted.Add(1)
	return true
}

func (t *connTable) evictAny() bool {
	return t.evict(t.all, func(c *conn) *place { return &c.inAll })
}

// evictIdle makes room when the system has no file descriptors left.
func (t *connTable) evictIdle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evictAny()
}

// evict closes the connection of l that has been inactive longest and is not at
// work, or the first such one when all that it looks at have been active since
// they were put in their places. t.mu is held.
func (t *connTable) evict(l *list.List, at func(*conn) *place) bool {
	var victim *conn
	for range min(2*l.Len(), evictScan) { // twice: the first round may only move them
		front := l.Front()
		c, ok := front.Value.(*conn)
		if !ok {
			panic("dnsserver: a list of connections holds something else")
		}
		p, seen, working := at(c), c.activity.Load(), c.working.Load() > 0
		if seen == p.seen && !working {
			victim = c
			break
		}
		if victim == nil && !working {
			victim = c
		}
		p.seen = seen
		l.MoveToBack(front)
	}
	if victim == nil {
		return false
	}
	t.removeLocked(victim)
	victim.raw.Close() // its goroutine sees that, and ends; TLS would say farewell first
	t.evicted.Add(1)
	return true
}

// remove forgets c; it may have been evicted before.
func (t *connTable) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(c)
}

func (t *connTable) removeLocked(c *conn) {
	if c.inAll.elem == nil {
		return
	}
	t.all.Remove(c.inAll.elem)
	mine := t.byIP[c.key]
	mine.Remove(c.inIP.elem)
	if mine.Len() == 0 {
		delete(t.byIP, c.key)
	}
	c.inAll.elem, c.inIP.elem = nil, nil
}

// each calls f for every connection.
func (t *connTable) each(f func(*conn)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.all.Front(); e != nil; e = e.Next() {
		if c, ok := e.Value.(*conn); ok {
			f(c)
		}
	}
}

// wakeAll ends every connection's wait for input when its linger time is over.
func (t *connTable) wakeAll() {
	t.each(func(c *conn) { _ = c.nc.SetReadDeadline(c.lingerUntil()) }) // fails only once closed
}

func (t *connTable) closeAll() { t.each(func(c *conn) { c.raw.Close() }) }
