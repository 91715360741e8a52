package dnsserver

import (
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

// responder turns messages into replies, one at a time: the path that all
// transports share, and so one set of rules. One goroutine uses it.
type responder struct {
	handler Handler
	query   wire.Query
	builder wire.Builder
	client  Client // Addr, Transport and Now are set by the transport
	tally   tally  // of what has not been published yet
	parsed  bool   // query holds the message at hand
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
	r.tally.n[received]++
	d := wire.ParseQuery(msg, &r.query)
	if d == wire.Ignore {
		r.tally.n[ignored]++
		return nil, Drop
	}
	r.parsed = true
	if d != wire.Proceed {
		return r.reject(buf, d), Send
	}
	r.client.Rand = rand.Uint64()
	r.builder.Start(buf, &r.query, replyLimit(&r.query, r.client.Transport))
	switch r.handler.ServeDNS(&r.builder, &r.query, &r.client) {
	case Send:
		reply = r.builder.Finish()
		r.tally.reply(reply)
		return reply, Send
	case Defer:
		r.tally.n[deferred]++
		return nil, Defer
	case Drop:
	}
	r.tally.n[dropped]++
	return nil, Drop
}

// reject is the reply to what ParseQuery does not let proceed.
func (r *responder) reject(buf []byte, d wire.Disposition) []byte {
	reply := r.builder.Error(buf, &r.query, d.RCode())
	r.tally.n[rejected]++
	r.tally.reply(reply)
	if d == wire.BadVers {
		r.tally.n[rcodes]-- // its low bits say NOERROR
		r.tally.n[rcodes+int(wire.RCodeBadVers)]++
	}
	return reply
}

// fail is the reply SERVFAIL to the message at hand; nil when that was not
// parsed.
func (r *responder) fail(buf []byte) []byte {
	if !r.parsed {
		return nil
	}
	reply := r.builder.Error(buf, &r.query, wire.RCodeServFail)
	r.tally.reply(reply)
	return reply
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
