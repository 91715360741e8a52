package l7

import "sync/atomic"

// counters are a Proxy's.
type counters struct {
	accepted, acceptErrors, overflow, handshakes, slow, malformed          atomic.Uint64
	requests, grpc, limited, forgotten, refused, retries, stale, exhausted atomic.Uint64
	dials, sent, received, panics                                          atomic.Uint64
	classes                                                                [6]atomic.Uint64
	tunnels                                                                atomic.Int64
}

// Stats are figures of a Proxy: counts since the start, and what is now.
type Stats struct {
	Accepted     uint64 // connections of clients
	AcceptErrors uint64
	Overflow     uint64 // closed, since there were Limits.Connections
	Handshakes   uint64 // of TLS that failed
	SlowHeads    uint64 // that did not come within Limits.ReadHead
	Malformed    uint64 // heads that were refused
	Requests     uint64
	GRPC         uint64
	Responses    [6]uint64 // by the first digit of the status; 0: the client had left
	Limited      uint64    // refused by a route's limit
	Forgotten    uint64    // clients that a limit forgot for others
	Refused      uint64    // answered by the proxy itself
	Retries      uint64    // requests sent to another instance
	Stale        uint64    // kept connections that the instance had closed
	Exhausted    uint64    // retries that the budget did not allow
	Dials        uint64    // connections to instances
	BytesOut     uint64    // bodies of responses
	BytesIn      uint64    // bodies of requests
	Panics       uint64    // connections and streams given up, since an invariant was broken
	Dropped      uint64    // lines of the access log that were not written

	Connections int   // of clients, now
	Parked      int   // of those, without a goroutine
	Tunnels     int64 // upgraded connections, now
	InFlight    int64 // requests at instances, now
	Pooled      int   // idle connections to instances, now
}

// Stats returns the present figures.
func (p *Proxy) Stats() Stats {
	c := &p.counts
	s := Stats{
		Accepted: c.accepted.Load(), AcceptErrors: c.acceptErrors.Load(), Overflow: c.overflow.Load(), Handshakes: c.handshakes.Load(),
		SlowHeads: c.slow.Load(), Malformed: c.malformed.Load(), Requests: c.requests.Load(), GRPC: c.grpc.Load(),
		Limited: c.limited.Load(), Forgotten: c.forgotten.Load(), Refused: c.refused.Load(), Retries: c.retries.Load(), Stale: c.stale.Load(),
		Exhausted: c.exhausted.Load(), Dials: c.dials.Load(), Panics: c.panics.Load(), BytesOut: c.sent.Load(), BytesIn: c.received.Load(), Tunnels: c.tunnels.Load(),
	}
	for i := range s.Responses {
		s.Responses[i] = c.classes[i].Load()
	}
	if p.access != nil {
		s.Dropped = p.access.dropped.Load()
	}
	for _, l := range p.listeners {
		l.mu.Lock()
		s.Connections += len(l.conns)
		l.mu.Unlock()
		all, bare := l.park.size()
		s.Parked += all
		s.Connections += bare
	}
	for _, b := range p.all() {
		s.InFlight += b.inUse.Load()
		b.mu.Lock()
		for _, q := range b.peers {
			s.Pooled += len(q.idle)
		}
		b.mu.Unlock()
	}
	return s
}

// done counts an exchange that is over, and logs it.
func (p *Proxy) done(x *exchange) {
	class := x.status / 100
	if class > 5 || x.status == statusGone {
		class = 0
	}
	p.counts.classes[class].Add(1)
	if x.sent > 0 {
		p.counts.sent.Add(uint64(x.sent))
	}
	if in := int64(len(x.payload.small)) + x.received; in > 0 {
		p.counts.received.Add(uint64(in))
	}
	if p.access != nil {
		p.access.note(p, x)
	}
}
