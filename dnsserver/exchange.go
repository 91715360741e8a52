package dnsserver

import (
	"context"
	"net/netip"
	"time"
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
	e, ok := s.exchanges.Get().(*exchange)
	if !ok {
		e = &exchange{}
		e.srv, e.handler = s, s.cfg.Handler
	}
	defer s.exchanges.Put(e)
	e.client.Addr = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	e.client.Transport, e.client.Now = t, time.Now().UnixNano()
	reply, v := e.guarded(msg)
	if v == Defer && !s.slow.take() {
		reply, v = e.fail(e.buf[:]), Send
	}
	s.exchanged[t].add(&e.tally)
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
