package l7

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
)

// replayMax is the largest body of a request that is kept to be sent again.
// Larger ones, and those whose length is not said, are streamed.
const replayMax = 64 << 10

// responder is the side of an exchange that faces the client: one of HTTP/1.1
// and one of HTTP/2. Its methods are called from the goroutine that serves the
// exchange.
type responder interface {
	// inform sends an informational response (RFC 9110 section 15.2).
	inform(status int, fields []http1.Field) error
	// respond sends a response with its whole body. The error is of the
	// client's side; what went wrong with the body itself r.body says.
	respond(x *exchange, r *reply) error
	// gone reports whether the client has left, as far as is known.
	gone() bool
	// watch has f called when the client leaves, where that is told.
	watch(f func()) (stop func() bool)
	// hijack hands over the connection of a request that asks for an upgrade,
	// and what was read from it beyond the request; nil where there is none.
	hijack() (net.Conn, []byte)
}

// exchange is one request on its way and what becomes of it.
type exchange struct {
	req      http1.Request
	version  string // of the client's side, as "HTTP/2.0"
	client   netip.AddrPort
	hop      *hop
	listener *listener
	begun    time.Time
	payload  payload
	to       responder

	target    *target // of its route
	path      string  // to be sent to the instance
	grpc      bool
	sticky    string // id of the instance that the client's cookie names
	tried     dispatch.Tried
	tries     int
	streaming bool   // the payload's stream is being read
	head      []byte // the request's head as it is sent, once it is made
	id        string // the request's id, once one is asked for

	// What became of it, for the log and the counters.
	status   int
	sent     int64 // bytes of the response's body
	received int64 // bytes of the request's body that was streamed
	instance string
	why      string // what went wrong

	resp   http1.Response // of the try that is being answered
	answer answerHTTP1
	reply  reply
}

// reset makes an exchange ready for another request.
func (x *exchange) reset() {
	*x = exchange{
		version: x.version, client: x.client, hop: x.hop, listener: x.listener, to: x.to,
		req: http1.Request{Fields: x.req.Fields}, head: x.head[:0], resp: http1.Response{Fields: x.resp.Fields},
	}
}

// payload is a request's body.
type payload struct {
	length int64  // -1: not known
	small  []byte // the whole of it, when stream is nil
	stream io.Reader
	// announced are the names of the trailers that may follow the stream, and
	// trailers those that did once it has ended.
	announced []string
	trailers  func() []http1.Field
	// abort unblocks a Read of the stream, whose exchange is over.
	abort func()
	// await sends 100 (Continue) where the client waits for it; may be nil.
	await func() error
	begun bool // some of the stream was read: it cannot be sent again
}

// errTooLarge is what reading a payload beyond its route's limit fails with.
var errTooLarge = errors.New("the body is larger than the route allows")

// bounded is a stream of at most left bytes.
type bounded struct {
	r    io.Reader
	left int64
}

// Read fails with errTooLarge beyond the limit.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// reply is a response on its way to the client.
type reply struct {
	status int
	reason string
	fields []http1.Field
	length int64 // of the body; -1: not known
	body   replyBody
	// bodyless says that no body follows whatever length says: HEAD, 204, 304.
	bodyless bool
	text     []byte // a body that is in memory, when body is nil
}

// replyBody is the body of an instance's response.
type replyBody interface {
	io.Reader
	// trailers are those of the body once Read has returned io.EOF.
	trailers() []http1.Field
}
