package dnsserver

import (
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/dnsserver/wire"
)

// responder turns messages into replies, one at a time: the path that all
// transports share, and so one set of rules. One goroutine uses it.
type responder struct {
	srv     *Server
	handler Handler
	query   *wire.Query
	builder wire.Builder
	client  Client        // Addr, Transport and Now are set by the transport
	tally   tally         // of what has not been published yet
	parsed  bool          // query holds the message at hand
	cookie  cookie.State  // of the query at hand, when it has a cookie
	session *tsig.Session // of the query at hand, when it is signed
}

// replyLimit is the greatest reply that the client of q takes.
func replyLimit(q *wire.Query, t Transport) int {
	switch {
	case t != UDP:
		return wire.MaxMessage
	case q.EDNS:
		return min(int(q.UDPSize), wire.MaxPayload)
	}
	return wire.MinPayload // RFC 1035 section 2.3.4
}

// respond answers msg in buf, which has room for the greatest reply of its
// transport. reply is what is to be sent; nil if nothing is. With the verdict
// Defer, the query is for the slow pool.
func (r *responder) respond(msg, buf []byte) (reply []byte, v Verdict) {
	r.parsed = false
	return r.answer(wire.ParseQuery(msg, r.query), buf)
}

// answer is respond to the message that query was parsed from.
func (r *responder) answer(d wire.Disposition, buf []byte) (reply []byte, v Verdict) {
	r.parsed = d != wire.Ignore
	r.tally.n[received]++
	r.forget()
	if !r.parsed {
		r.tally.n[ignored]++
		return nil, Drop
	}
	if d == wire.BadKey {
		d = r.verify()
	}
	r.meet(r.query)
	switch d {
	case wire.Proceed:
	case wire.CookieQuery:
		return r.answerCookie(buf), Send
	default:
		return r.reject(buf, d), Send
	}
	r.client.Rand = rand.Uint64()
	r.client.Start(&r.builder, buf, r.query, r.limit())
	switch r.handler.ServeDNS(&r.builder, r.query, &r.client) {
	case Send:
		return r.finish(buf), Send
	case Defer:
		r.tally.n[deferred]++
		return nil, Defer
	case Drop:
	}
	r.tally.n[dropped]++
	return nil, Drop
}

// finish ends the response that has been built in buf, and counts it.
func (r *responder) finish(buf []byte) []byte {
	reply := r.builder.Finish()
	r.tally.reply(reply, r.builder.RCode())
	return r.sign(reply, buf)
}

// reject is the reply to what ParseQuery does not let proceed.
func (r *responder) reject(buf []byte, d wire.Disposition) []byte {
	r.tally.n[rejected]++
	return r.refuse(buf, d.RCode())
}

// fail is the reply SERVFAIL to the message at hand; nil when that was not
// parsed.
func (r *responder) fail(buf []byte) []byte {
	if !r.parsed {
		return nil
	}
	return r.refuse(buf, wire.RCodeServFail)
}

// refuse is a reply to the message at hand that says only that it failed.
func (r *responder) refuse(buf []byte, c wire.RCode) []byte {
	r.client.Start(&r.builder, buf, r.query, wire.MinPayload)
	reply := r.builder.Fail(c)
	r.tally.reply(reply, c)
	return r.sign(reply, buf)
}

// panicLog logs panics of handlers, one a minute so that a query that makes one
// cannot fill the disk.
type panicLog struct {
	logger *slog.Logger
	next   atomic.Int64 // when the next may be logged, nanoseconds since 1970
}

const panicLogInterval = time.Minute

// log is called by the deferred function that has recovered v.
func (p *panicLog) log(where string, v any) {
	now, next := time.Now().UnixNano(), p.next.Load()
	if now < next || !p.next.CompareAndSwap(next, now+int64(panicLogInterval)) {
		return
	}
	p.logger.Error("panic while answering", slog.String("where", where), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}
