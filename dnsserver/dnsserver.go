// Package dnsserver has the sockets and the life of a request: it receives,
// parses, admits, hands the query to a Handler and sends what that built, over
// UDP and TCP alike.
package dnsserver

import (
	"context"
	"net/netip"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Transport is how a query came. Zero is unknown.
type Transport uint8

// The transports.
const (
	TransportUnknown Transport = iota
	UDP
	TCP
)

// Client is who asks, and the moment and luck of the asking, read once a batch
// so that the handler needs neither a clock nor a source of randomness.
type Client struct {
	Addr      netip.AddrPort // the source; 4-in-6 unmapped
	Transport Transport
	Now       int64  // wall clock, nanoseconds since 1970
	Rand      uint64 // one random word, new for each query
}

// Verdict is what becomes of a query.
type Verdict uint8

// The verdicts.
const (
	Drop  Verdict = iota // nothing is sent
	Send                 // b.Finish() is sent
	Defer                // ServeSlow is called with a copy of the query
)

// Handler answers on the socket's goroutine: it must not block, keep q or b,
// or allocate. from is valid during the call.
type Handler interface {
	ServeDNS(b *wire.Builder, q *wire.Query, from *Client) Verdict
}

// SlowHandler answers what may wait (forwarding), on a bounded pool; when the
// pool is full the server answers SERVFAIL and counts it.
type SlowHandler interface {
	ServeSlow(ctx context.Context, query []byte, from Client, w Writer) error
}

// Writer sends responses to one deferred query. Safe for one goroutine.
type Writer interface {
	// WriteMsg sends one whole message; it may be called again on streams.
	WriteMsg(msg []byte) error
	// Limit is the greatest message the client takes over this transport.
	Limit() int
}
