// Package dnsserver has the sockets and the life of a request: it receives,
// parses, hands the query to a Handler and sends what that built, over UDP, TCP
// and TLS alike. Other transports hand it their messages (Exchange).
//
// # UDP
//
// Each address has one SO_REUSEPORT socket a worker. A worker receives up to 32
// datagrams with one recvmmsg, answers them on its own goroutine and sends the
// answers with one sendmmsg, those that follow each other to one client as one message
// that the kernel cuts up (UDP_SEGMENT). Both calls are non-blocking and hidden from the
// scheduler (RawSyscall), so that a batch costs two system calls and nothing
// else. All datagrams of a batch are read before the first is answered, so that a
// handler that is a Warmer can look at once at what it will need for all of them,
// and does not wait for memory for each. When the socket is empty, the goroutine
// waits in poll(2), since the runtime's poller would make every answer dearer (see
// socket). Everything a worker writes is its own: its buffers, its Queries and
// Builder, its counters.
//
// # TCP
//
// Each connection has a goroutine that answers what is pipelined on it in few
// writes (RFC 7766). Connections are bounded in number, by client and together,
// and in time: to the first octet, to the end of a message, idle, and to a
// client that does not read. At the bound the one that has been idle longest
// makes room.
//
// TLS is the same behind a handshake, within the same bounds.
//
// # Deferral
//
// What may wait runs in ServeSlow, on goroutines of bounded number.
//
// Invariant: the path of a query through this package takes no lock, allocates
// nothing, and makes no system call but to receive and to send.
package dnsserver

import (
	"context"
	"net/netip"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Transport is how a query came. Zero is unknown.
type Transport uint8

// The transports.
const (
	TransportUnknown Transport = iota
	UDP
	TCP
	TLS   // RFC 7858
	HTTPS // RFC 8484
	QUIC  // RFC 9250
	transports
)

// String is the transport's name in small letters.
func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case TLS:
		return "tls"
	case HTTPS:
		return "https"
	case QUIC:
		return "quic"
	case TransportUnknown, transports:
	}
	return "unknown"
}

// Client is who asks, and the moment and luck of the asking, read once a batch
// so that the handler needs neither a clock nor a source of randomness.
type Client struct {
	Addr      netip.AddrPort // the source; 4-in-6 unmapped, without an IPv6 zone
	Transport Transport
	Now       int64  // wall clock, nanoseconds since 1970
	Rand      uint64 // one random word, new for each query
	// Known says that Addr is no forgery: over a stream, or with a valid DNS
	// cookie (RFC 7873).
	Known bool
	// Key is the name of the key that the query was signed with, verified (RFC
	// 8945); empty: none. What is answered is then signed by the server.
	Key string

	reply replyOptions // see Start
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
// or allocate. It is handed only queries that wire.ParseQuery lets proceed; b
// has been started for q with the limit of the client and transport, and with
// the EDNS options that the query asks for, and the server finishes it. from is
// valid during the call. Workers call it side by side. A panic in it is answered
// with SERVFAIL, counted and logged.
type Handler interface {
	ServeDNS(b *wire.Builder, q *wire.Query, from *Client) Verdict
}

// Warmer is a Handler that can bring what it will read into the core's caches.
type Warmer interface {
	// Warm is called with the queries of a batch that ServeDNS is called with afterwards,
	// one by one; or it is not called. It is bound like ServeDNS, and changes no answer.
	Warm(queries []*wire.Query)
}

// SlowHandler answers what may wait (forwarding), on a bounded pool; when the
// pool is full the server answers SERVFAIL and counts it. query is its own to
// keep. ctx ends when the server has waited long enough for it after being told
// to stop. When it returns an error or panics without having written, the
// server answers SERVFAIL; the error is the handler's to count and to log.
type SlowHandler interface {
	ServeSlow(ctx context.Context, query []byte, from Client, w Writer) error
}

// SessionHandler has the stateful sessions of clients over TLS (DSO, RFC 8490).
type SessionHandler interface {
	// Open begins the session of a connection whose first DSO message has come; nil:
	// there is no room, and the client is told NOTIMP. w may be used until Close.
	Open(w SessionWriter, from Client) Session
}

// SessionWriter is the connection of a session. WriteMsg, Leave and End are for any
// goroutine.
type SessionWriter interface {
	Writer
	// Keep says for how long the connection is kept while nothing is sent or received; 0:
	// it is idle like any other. It is called within Session.Message alone.
	Keep(silence time.Duration)
	// Leave sends a last message, which tells the client to go: nothing more is sent, nor
	// given to Message, and the connection is closed when the client closes it, or after 5
	// seconds (RFC 8490 section 6.6.1).
	Leave(msg []byte)
	// End has the connection closed.
	End()
}

// Session is the session of one connection.
type Session interface {
	// Message takes a DSO message and answers it; false: the connection is to be closed.
	Message(msg []byte) (ok bool)
	// Close ends the session: its connection has ended.
	Close()
}

// Writer sends responses to one deferred query. Safe for one goroutine, and
// until ServeSlow returns.
type Writer interface {
	// WriteMsg sends one whole message; it may be called again on streams. It
	// waits for a client that is slow to read, for 5 seconds at most, and does
	// not keep msg. A message of more than Limit octets is an error.
	WriteMsg(msg []byte) error
	// Limit is the greatest message the client takes over this transport.
	Limit() int
}
