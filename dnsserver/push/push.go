// Package push tells clients of changes when they happen: DNS Push Notifications (RFC
// 8765) over DNS Stateful Operations (RFC 8490), on connections over TLS.
//
// A client subscribes to the records of a name and type. It gets all that are there,
// and from then on what comes and goes: of a service all instances that may be answered,
// without picking. What wakes a session is a change of the view; nothing is asked again
// and again, and nothing is done while nothing changes. A change costs each session a
// lookup of what it subscribes to.
package push

import (
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
)

// timeouts are told to clients that ask (RFC 8490 section 7.1), in milliseconds: how
// long a session without subscriptions is kept, and how often a client is to send
// something so that the network between does not forget the connection.
const (
	inactivity = 15_000
	keepalive  = 60_000
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
}

// Hub has the sessions. It is safe for concurrent use.
type Hub struct {
	cfg Config

	mu       sync.Mutex
	sessions map[*Session]struct{}

	subscriptions   atomic.Int64
	refused, pushed atomic.Uint64
}

var _ dnsserver.SessionHandler = (*Hub)(nil)

// New returns a Hub; Run runs it.
func New(cfg Config) *Hub { return &Hub{cfg: cfg, sessions: map[*Session]struct{}{}} }

// Run wakes sessions when something has changed, until ctx ends. The first change after
// a pause is told at once.
func (h *Hub) Run(ctx context.Context) error {
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

// Subscriptions is how many there are, Refused how many sessions and subscriptions found
// no room, Pushed how many messages were sent.
func (h *Hub) Subscriptions() int64 { return h.subscriptions.Load() }
func (h *Hub) Refused() uint64      { return h.refused.Load() } //nolint:revive // see Subscriptions
func (h *Hub) Pushed() uint64       { return h.pushed.Load() }  //nolint:revive // see Subscriptions

// Open implements dnsserver.SessionHandler.
func (h *Hub) Open(w dnsserver.Writer, from dnsserver.Client, busy func(bool)) dnsserver.Session {
	s := &Session{
		hub: h, w: w, client: from.Addr.Addr(), busy: busy,
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
	w      dnsserver.Writer
	client netip.Addr
	busy   func(bool)

	mu    sync.Mutex
	subs  map[uint16]*subscription // by the id of the message that asked
	woken chan struct{}            // 1-slot
	ended chan struct{}
	done  chan struct{}
}

// subscription is one name and type, and what the client knows of it.
type subscription struct {
	name wire.Name
	typ  wire.Type
	told map[string]struct{} // RDATA
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
		return true // we ask nothing
	case r.id == 0:
		return s.oneWay(r)
	}
	switch r.typ {
	case typeKeepalive:
		if len(r.data) != 8 {
			return s.reply(r.id, codeFormErr, nil)
		}
		data := binary.BigEndian.AppendUint32(nil, inactivity)
		return s.reply(r.id, codeOK, appendTLV(nil, typeKeepalive, binary.BigEndian.AppendUint32(data, keepalive)))
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
	case typeReconfirm, typeKeepalive:
		return true // what we push is what we know
	}
	return false
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
	if class := wire.Class(binary.BigEndian.Uint16(r.data[end+2:])); class != wire.ClassIN && class != wire.ClassANY || sub.typ == wire.TypeANY {
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
	if !s.reply(r.id, codeOK, nil) { // before anything is pushed: section 6.3
		return false
	}
	s.mu.Lock()
	s.subs[r.id] = sub
	s.busy(true)
	s.mu.Unlock()
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
	defer s.mu.Unlock()
	if s.subs[id] == nil {
		return
	}
	delete(s.subs, id)
	s.hub.subscriptions.Add(-1)
	s.busy(len(s.subs) > 0)
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
		case <-s.woken:
		}
		if !s.push() {
			return // the connection's reader sees its end
		}
	}
}

// push sends what the client does not know yet; false: it cannot be written to.
func (s *Session) push() bool {
	s.mu.Lock()
	var changes []byte
	tree := s.hub.cfg.Tree()
	for _, sub := range s.subs {
		changes = sub.changes(changes, tree)
	}
	s.mu.Unlock()
	for len(changes) > 0 {
		part := cut(changes, messageMax-headSize-tlvSize)
		s.hub.pushed.Add(1) // before writing: who has a message finds it counted
		if s.w.WriteMsg(appendTLV(header(0, false, 0), typePush, changes[:part])) != nil {
			return false
		}
		changes = changes[part:]
	}
	return true
}
