package dnsserver

import (
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver/wire"
)

// The counters of a worker, or of all of TCP.
const (
	received = iota
	ignored
	rejected
	dropped
	deferred
	truncated
	panicked
	sendFailed
	batches
	cookiesNew // in the order of cookie.State
	cookiesInvalid
	cookiesValid
	rcodes       // and as many as there are codes with a counter
	counterCount = rcodes + int(wire.RCodeBadCookie) + 1
)

// cacheLine is two lines of 64 octets: the prefetcher fetches pairs.
const cacheLine = 128

// tally is counts that one goroutine has made and not yet published.
type tally struct{ n [counterCount]uint32 }

// reply counts a reply with its response code; one above those that have a
// counter counts by its low bits.
func (t *tally) reply(msg []byte, code wire.RCode) {
	if code > wire.RCodeBadCookie {
		code &= 15
	}
	t.n[rcodes+int(code)]++
	if msg[2]&2 != 0 {
		t.n[truncated]++
	}
}

// counters is published counts. A UDP worker has its own, on cache lines that
// nothing else lies on.
type counters struct {
	_ [cacheLine]byte
	n [counterCount]atomic.Uint64
	_ [cacheLine]byte
}

// add publishes t and empties it.
func (c *counters) add(t *tally) {
	for i, n := range t.n {
		if n != 0 {
			c.n[i].Add(uint64(n))
			t.n[i] = 0
		}
	}
}

// TransportStats counts what has happened on one transport since the start.
type TransportStats struct {
	Received   uint64 // messages
	Ignored    uint64 // of those, no query at all: too short, or a response
	Rejected   uint64 // answered with FORMERR, NOTIMP or the like, before the handler
	Dropped    uint64 // by the handler
	Deferred   uint64 // to the slow pool
	Truncated  uint64 // replies with TC
	Panics     uint64 // of the handler, answered with SERVFAIL
	SendFailed uint64 // replies that the kernel did not take, or a client did not read
	Batches    uint64 // system calls that received something

	// Queries with a DNS cookie (RFC 7873): of the client alone, with a server
	// cookie that is not good (any more), and with one that is.
	CookiesNew, CookiesInvalid, CookiesValid uint64

	RCodes [wire.RCodeBadCookie + 1]uint64 // replies by response code; without those of the slow pool
}

func (t *TransportStats) add(c *counters) {
	for i, to := range []*uint64{&t.Received, &t.Ignored, &t.Rejected, &t.Dropped, &t.Deferred, &t.Truncated, &t.Panics, &t.SendFailed, &t.Batches, &t.CookiesNew, &t.CookiesInvalid, &t.CookiesValid} {
		*to += c.n[i].Load()
	}
	for i := range t.RCodes {
		t.RCodes[i] += c.n[rcodes+i].Load()
	}
}

// Stats is what a Server has counted since its start, and a few present values.
type Stats struct {
	UDP, TCP, TLS, HTTPS, QUIC TransportStats
	// UDPOverflow counts datagrams that the kernel dropped as a socket's receive
	// buffer was full.
	UDPOverflow uint64

	Conns         uint64 // over TCP and TLS, now
	ConnsAccepted uint64
	ConnsEvicted  uint64 // closed to make room for another
	ConnsRefused  uint64 // closed at once: at the limit, and nothing idle
	ConnsTimedOut uint64
	BadHeaders    uint64 // datagrams and connections of proxies that began with no PROXY header
	AcceptErrors  uint64 // as when there are no file descriptors left

	Slow       uint64 // deferred queries, now
	SlowFull   uint64 // deferred queries that found the pool full: SERVFAIL
	SlowFailed uint64 // those whose handler failed without an answer: SERVFAIL
	SlowPanics uint64
}

// Stats sums the counters up. It may be called at any time, from any goroutine;
// the counts of a batch appear just before its answers are sent.
func (s *Server) Stats() Stats {
	var st Stats
	for _, w := range s.udp {
		st.UDP.add(&w.counters)
		st.UDPOverflow += w.overflow()
	}
	t := s.conns
	st.TCP.add(&t.tcp)
	st.TLS.add(&t.tls)
	st.HTTPS.add(&s.exchanged[HTTPS])
	st.QUIC.add(&s.exchanged[QUIC])
	st.Conns = uint64(t.len())
	st.ConnsAccepted, st.ConnsEvicted, st.ConnsRefused = t.accepted.Load(), t.evicted.Load(), t.refused.Load()
	st.ConnsTimedOut, st.AcceptErrors = t.timedOut.Load(), t.acceptErrors.Load()
	st.BadHeaders = s.badHeaders.Load()
	st.Slow, st.SlowFull = uint64(len(s.slow.slots)), s.slow.full.Load()
	st.SlowFailed, st.SlowPanics = s.slow.failed.Load(), s.slow.panics.Load()
	return st
}
