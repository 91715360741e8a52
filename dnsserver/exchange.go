package dnsserver

import (
	"context"
	"net/netip"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

// exchange answers the messages of transports that others carry, one at a time.
type exchange struct {
	responder
	buf [outSize]byte
}

// Exchange answers one message that came over a transport of another package, HTTPS
// or QUIC, by the rules that all have: it writes the response to w, or several to a
// transfer, and returns when that is done. False: msg is no query, and has no answer.
// It may be called side by side.
func (s *Server) Exchange(ctx context.Context, msg []byte, from netip.AddrPort, t Transport, w Writer) (answered bool, err error) {
	e, reply, v := s.begin(msg, from, t)
	defer s.exchanges.Put(e)
	if v == Defer {
		done := make(chan struct{})
		s.slow.start(ctx, e.query.Msg, e.client, e.signed(w), func() { close(done) })
		<-done
		return true, nil
	}
	if reply == nil {
		return e.parsed, nil
	}
	return true, w.WriteMsg(reply)
}

// Begin is Exchange, but that it does not wait. What is answered at once is written to w
// before it returns. Else waits is true: later is written to, and done called, by
// another goroutine.
func (s *Server) Begin(ctx context.Context, msg []byte, from netip.AddrPort, t Transport, w, later Writer, done func()) (answered, waits bool, err error) {
	e, reply, v := s.begin(msg, from, t)
	defer s.exchanges.Put(e)
	switch {
	case v == Defer:
		s.slow.start(ctx, e.query.Msg, e.client, e.signed(later), done)
		return true, true, nil
	case reply == nil:
		return e.parsed, false, nil
	}
	return true, false, w.WriteMsg(reply)
}

// begin responds to a message. With Defer a slot of the slow pool is taken. The caller
// puts e back, of which reply may be a part.
func (s *Server) begin(msg []byte, from netip.AddrPort, t Transport) (e *exchange, reply []byte, v Verdict) {
	e, ok := s.exchanges.Get().(*exchange)
	if !ok {
		e = &exchange{}
		e.srv, e.handler, e.query = s, s.cfg.Handler, new(wire.Query)
	}
	e.client.Addr = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	e.client.Transport, e.client.Now = t, time.Now().UnixNano()
	reply, v = e.guarded(msg)
	if v == Defer && !s.slow.take() {
		reply, v = e.fail(e.buf[:]), Send
	}
	s.exchanged[t].add(&e.tally)
	return e, reply, v
}

// guarded responds, and with SERVFAIL when the handler panics.
func (e *exchange) guarded(msg []byte) (reply []byte, v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			e.srv.panics.log(e.client.Transport.String(), p)
			e.tally.n[panicked]++
			reply, v = e.fail(e.buf[:]), Send
		}
	}()
	return e.respond(msg, e.buf[:])
}
