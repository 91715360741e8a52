// Package push tells clients of changes when they happen: DNS Push Notifications (RFC
// 8765) over DNS Stateful Operations (RFC 8490), on connections over TLS.
//
// A client subscribes to the records of a name and type, or of all its types but RRSIG
// (ANY). It gets all that are there, and from then on what comes and goes: of a service all
// instances that may be answered, without picking. What wakes a session is a change of the view; nothing is asked again
// and again, and nothing is done while nothing changes. A change costs each session a
// lookup of what it subscribes to.
package push

import (
	"cmp"
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Limits.
const (
	SessionsMax      = 4096
	SubscriptionsMax = 256 // of a session
	// MemoryMax bounds what is kept of all subscriptions together, in octets: 64 MiB is
	// 100,000 of them to services of five instances.
	MemoryMax = 64 << 20
)

// What a subscription and a record that its client was told cost beside RDATA, in octets.
const (
	subscriptionCost = 512
	recordCost       = 64
)

// timeouts are told to clients that ask (RFC 8490 section 7.1), in milliseconds: how
// long a session without subscriptions is kept, and how often a client is to send
// something, so that either side knows of the other and the network between does not
// forget the connection. Of the latter clients get what they ask for within bounds: ten
// seconds is the least that may be told, and an hour what is recommended (section 6.5.2).
const (
	inactivity       = 15_000
	keepaliveMin     = 10_000
	keepaliveMax     = 3_600_000
	keepaliveDefault = 15_000 // until one is asked for: section 6.2
)

// For how long a client stays away that is sent away, in milliseconds: for want of memory
// what is recommended (RFC 8490 section 6.6.1), and from a server that stops what the next
// process or another server has taken over in.
const (
	retryDelay   = 10_000
	restartDelay = 1_000
)

// gather is for how long changes that follow one another are put into one message.
const gather = 10 * time.Millisecond

// Config is what a Hub needs.
type Config struct {
	Tree func() *zones.Tree
	// Changed returns a channel that is closed when what the tree answers has next
	// changed.
	Changed func() <-chan struct{}
	// Allow reports whether a client may ask for a name.
	Allow func(name *wire.Name, client netip.Addr) bool
	// MemoryMax bounds what is kept, in octets; 0: the constant of that name.
	MemoryMax int64
}

// Hub has the sessions. It is safe for concurrent use.
type Hub struct {
	cfg Config

	mu       sync.Mutex
	sessions map[*Session]struct{}
	stopped  chan struct{} // closed when Run ends

	subscriptions   atomic.Int64
	memory          atomic.Int64 // octets
	refused, pushed atomic.Uint64
}

var _ dnsserver.SessionHandler = (*Hub)(nil)

// New returns a Hub; Run runs it.
func New(cfg Config) *Hub {
	cfg.MemoryMax = cmp.Or(cfg.MemoryMax, MemoryMax)
	return &Hub{cfg: cfg, sessions: map[*Session]struct{}{}, stopped: make(chan struct{})}
}

// Run wakes sessions when something has changed, until ctx ends; then every client is told
// to go (RFC 8490 section 7.2.1). The first change after a pause is told at once. It is
// called once.
func (h *Hub) Run(ctx context.Context) error {
	defer close(h.stopped)
	for {
		changed := h.cfg.Changed()
		h.Wake()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gather):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Wake has every session look at what it subscribes to: something has changed that
// Config.Changed does not tell.
func (h *Hub) Wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sessions {
		s.wake()
	}
}

// reserve takes octets of the memory, or gives some back; false: there are not so many.
func (h *Hub) reserve(octets int64) bool {
	if h.memory.Add(octets) <= h.cfg.MemoryMax || octets <= 0 {
		return true
	}
	h.memory.Add(-octets)
	h.refused.Add(1)
	return false
}

// Memory is how many octets are kept of subscriptions, by reckoning.
func (h *Hub) Memory() int64 { return h.memory.Load() }

// Subscriptions is how many there are, Refused how many sessions and subscriptions found
// no room, then or later, Pushed how many messages were sent.
func (h *Hub) Subscriptions() int64 { return h.subscriptions.Load() }
func (h *Hub) Refused() uint64      { return h.refused.Load() } //nolint:revive // see Subscriptions
func (h *Hub) Pushed() uint64       { return h.pushed.Load() }  //nolint:revive // see Subscriptions

// Open implements dnsserver.SessionHandler.
func (h *Hub) Open(w dnsserver.SessionWriter, from dnsserver.Client) dnsserver.Session {
	s := &Session{
		hub: h, w: w, client: from.Addr.Addr(), keepalive: keepaliveDefault * time.Millisecond,
		subs: map[uint16]*subscription{}, woken: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{}),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sessions) >= SessionsMax {
		h.refused.Add(1)
		return nil
	}
	h.sessions[s] = struct{}{}
	go s.run()
	return s
}

// Session is one client's.
type Session struct {
	hub    *Hub
	w      dnsserver.SessionWriter
	client netip.Addr
	// keepalive is within what time the client sends something; of Message.
	keepalive time.Duration

	mu    sync.Mutex
	subs  map[uint16]*subscription // by the id of the message that asked
	woken chan struct{}            // 1-slot
	ended chan struct{}
	done  chan struct{}
}

// subscription is one name and type, ANY for all, and what the client knows of it.
type subscription struct {
	name wire.Name
	typ  wire.Type
	told map[string]struct{} // type and RDATA
	kept int64               // octets of the Hub's memory
}

// Message implements dnsserver.Session.
func (s *Session) Message(msg []byte) (ok bool) {
	r, ok := parse(msg)
	switch {
	case !ok && r.id != 0 && !r.response:
		return s.reply(r.id, codeFormErr, nil)
	case !ok:
		return false
	case r.response:
		return false // we ask nothing: an answer to no request is a fatal error
	case r.id == 0:
		return s.oneWay(r)
	}
	switch r.typ {
	case typeKeepalive:
		return s.grant(r)
	case typeSubscribe:
		return s.subscribe(r)
	}
	return s.reply(r.id, codeDSOType, nil)
}

// oneWay takes a message that wants no answer. One that is not known ends the session
// (RFC 8490 section 5.1.2).
func (s *Session) oneWay(r request) bool {
	switch r.typ {
	case typeUnsubscribe:
		if len(r.data) != 2 {
			return false
		}
		s.forget(binary.BigEndian.Uint16(r.data))
		return true
	case typeReconfirm:
		return true // what we push is what we know
	}
	return false // KEEPALIVE of a client is a request: RFC 8490 section 7.1
}

// grant answers KEEPALIVE: RFC 8490 section 7.1.
func (s *Session) grant(r request) bool {
	if len(r.data) != 8 {
		return s.reply(r.id, codeFormErr, nil)
	}
	interval := min(max(binary.BigEndian.Uint32(r.data[4:]), keepaliveMin), keepaliveMax)
	s.keepalive = time.Duration(interval) * time.Millisecond
	s.keep()
	data := binary.BigEndian.AppendUint32(nil, inactivity)
	return s.reply(r.id, codeOK, appendTLV(nil, typeKeepalive, binary.BigEndian.AppendUint32(data, interval)))
}

// keep has the connection kept while there is a subscription and the client says now and
// then that it is there: a silence of twice the interval ends it (RFC 8490 section 6.5.1).
func (s *Session) keep() {
	s.mu.Lock()
	n := len(s.subs)
	s.mu.Unlock()
	if n == 0 {
		s.w.Keep(0)
		return
	}
	s.w.Keep(2 * s.keepalive)
}

// reply answers a request.
func (s *Session) reply(id, code uint16, tlv []byte) bool {
	return s.w.WriteMsg(append(header(id, true, code), tlv...)) == nil
}

// subscribe answers SUBSCRIBE (RFC 8765 section 6.2).
func (s *Session) subscribe(r request) bool {
	sub := &subscription{told: map[string]struct{}{}}
	end := nameEnd(r.data)
	if end == 0 || len(r.data) != end+4 || !sub.name.Set(r.data[:end]) {
		return s.reply(r.id, codeFormErr, nil)
	}
	sub.typ = wire.Type(binary.BigEndian.Uint16(r.data[end:]))
	if class := wire.Class(binary.BigEndian.Uint16(r.data[end+2:])); class != wire.ClassIN && class != wire.ClassANY {
		return s.reply(r.id, codeNotImp, nil)
	}
	switch {
	case s.hub.cfg.Tree().Above(&sub.name) == nil:
		return s.reply(r.id, codeNotAuth, nil)
	case !s.hub.cfg.Allow(&sub.name, s.client):
		return s.reply(r.id, codeRefused, nil)
	}
	s.mu.Lock()
	again, full := s.has(r.id, sub), len(s.subs) >= SubscriptionsMax
	s.mu.Unlock()
	switch {
	case again: // a fatal error: RFC 8765 section 6.2.1
		return false
	case full:
		s.hub.refused.Add(1)
		return s.reply(r.id, codeServFail, nil)
	}
	sub.kept = subscriptionCost
	if now, known := sub.records(s.hub.cfg.Tree()); known {
		sub.kept += cost(now)
	}
	if !s.hub.reserve(sub.kept) {
		return s.reply(r.id, codeServFail, nil)
	}
	if !s.reply(r.id, codeOK, nil) { // before anything is pushed: section 6.3
		s.hub.reserve(-sub.kept)
		return false
	}
	s.mu.Lock()
	s.subs[r.id] = sub
	s.mu.Unlock()
	s.keep()
	s.hub.subscriptions.Add(1)
	s.wake()
	return true
}

// has reports whether there is a subscription of this id, or to the same.
func (s *Session) has(id uint16, like *subscription) bool {
	if s.subs[id] != nil {
		return true
	}
	for _, sub := range s.subs {
		if sub.typ == like.typ && sub.name.Equal(&like.name) {
			return true
		}
	}
	return false
}

// nameEnd is where the uncompressed name ends that data begins with; 0: there is none.
func nameEnd(data []byte) int {
	for i := 0; i < len(data) && data[i] < 64; i += 1 + int(data[i]) {
		if data[i] == 0 {
			return i + 1
		}
	}
	return 0
}

// forget ends a subscription.
func (s *Session) forget(id uint16) {
	s.mu.Lock()
	sub := s.subs[id]
	delete(s.subs, id)
	s.mu.Unlock()
	if sub == nil {
		return
	}
	s.hub.reserve(-sub.kept) // before it is counted: who sees that finds it free
	s.hub.subscriptions.Add(-1)
	s.keep()
}

// Close implements dnsserver.Session.
func (s *Session) Close() {
	s.hub.mu.Lock()
	delete(s.hub.sessions, s)
	s.hub.mu.Unlock()
	close(s.ended)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subs {
		s.hub.reserve(-sub.kept)
	}
	s.hub.subscriptions.Add(-int64(len(s.subs)))
}

func (s *Session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// run pushes what has changed whenever the session is woken. What changes while a slow
// client is written to is the next message.
func (s *Session) run() {
	defer close(s.done)
	for {
		select {
		case <-s.ended:
			return
		case <-s.hub.stopped:
			s.leave(codeOK, restartDelay)
			return
		case <-s.woken:
		}
		if !s.push() {
			return
		}
	}
}

// push sends what the client does not know yet; false: the session ends, as the client
// cannot be written to, or what it subscribes to has grown beyond what there is memory for.
func (s *Session) push() bool {
	s.mu.Lock()
	var r round
	tree, room := s.hub.cfg.Tree(), true
	for _, sub := range s.subs {
		if sub.typ == wire.TypeANY && len(s.subs) > 1 {
			r.told = map[string]struct{}{}
			break
		}
	}
	for _, sub := range s.subs {
		if room = sub.changes(&r, tree, s.hub); !room {
			break
		}
	}
	s.mu.Unlock()
	changes := r.octets
	if !room {
		s.leave(codeServFail, retryDelay)
		return false
	}
	for len(changes) > 0 {
		part := cut(changes, messageMax-headSize-tlvSize)
		s.hub.pushed.Add(1) // before writing: who has a message finds it counted
		if s.w.WriteMsg(appendTLV(header(0, false, 0), typePush, changes[:part])) != nil {
			s.w.End()
			return false
		}
		changes = changes[part:]
	}
	return true
}

// leave tells the client to go, why, and for how long (RFC 8490 section 7.2.1).
func (s *Session) leave(code uint16, delay uint32) {
	s.w.Leave(appendTLV(header(0, false, code), typeRetryDelay, binary.BigEndian.AppendUint32(nil, delay)))
}
