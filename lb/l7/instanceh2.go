package l7

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
)

// dialError marks an error of connecting: no byte of a request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// transport returns the peer's HTTP/2 connections: over TLS, or in cleartext and
// with prior knowledge (RFC 9113 section 3.3).
func (q *peer) transport() *http.Transport {
	q.b.mu.Lock()
	defer q.b.mu.Unlock()
	if q.h2 != nil {
		return q.h2
	}
	limits := &q.b.p.cfg.Limits
	t := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true, IdleConnTimeout: limits.PoolIdle,
		MaxResponseHeaderBytes: int64(limits.HeadBytes),
		// What is silent for so long is asked whether it is there.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return q.dialHTTP2(ctx) }
	if q.b.tls != nil {
		t.DialTLSContext = dial
		t.Protocols.SetHTTP2(true)
	} else {
		t.DialContext = dial
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	q.h2 = t
	return t
}

// answerHTTP2 is a response over HTTP/2.
type answerHTTP2 struct {
	x     *exchange
	fresh bool // the protocol was found out for this try
	q     *peer
	resp  *http.Response
	call  call
	ended error // of the body, but io.EOF
	stall *time.Timer
	stop  func() bool // the watch of the client's side
	body  *outbound
}

// outbound is a request's body as net/http reads it. Close waits for a Read
// that is under way, so that nobody reads the client's side once the exchange
// is over.
type outbound struct {
	x    *exchange
	mu   sync.Mutex
	done bool
	n    int64
	// err is what reading failed with; nil: nothing yet. Without mu, which a Read
	// that waits for the client holds.
	err             atomic.Pointer[error]
	reading, closed atomic.Bool

	awaits awaits

	trailer http.Header // the request's; nil: none are announced
}

// Read reads from the client.
func (o *outbound) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return 0, http.ErrBodyReadAfterClose
	}
	payload := &o.x.payload
	o.reading.Store(true)
	defer o.reading.Store(false)
	if o.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if !o.x.grpc { // whose clients wait for answers to what they have said so far
		o.awaits.Store(0)
	}
	defer func() { o.awaits.begin(time.Now()) }()
	if !payload.begun {
		payload.begun = true
		if payload.await != nil {
			if err := payload.await(); err != nil {
				return 0, err
			}
		}
	}
	n, err := payload.stream.Read(p)
	o.n += int64(n)
	if errors.Is(err, io.EOF) && o.trailer != nil {
		for _, f := range payload.trailers() {
			if _, announced := o.trailer[http.CanonicalHeaderKey(f.Name)]; announced {
				o.trailer.Add(f.Name, f.Value)
			}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) && !o.closed.Load() {
		o.err.Store(&err)
	}
	return n, err
}

// Close is called by net/http when it needs no more. A Read that waits for the
// client is to end then: net/http waits for it before it tells of a connection
// that was lost. For the rest the exchange itself ends the reading with end.
func (o *outbound) Close() error {
	o.closed.Store(true)
	if o.reading.Load() {
		o.x.payload.abort()
	}
	return nil
}

// end unblocks a Read and lets none begin.
func (o *outbound) end() {
	o.x.payload.abort()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done = true
	o.x.received = o.n
}

// askHTTP2 sends the request to an instance over HTTP/2 and notes the head of
// its response in x.resp.
func (p *Proxy) askHTTP2(ctx context.Context, x *exchange, c dispatch.Choice, fresh bool) (answer, *failure) {
	q := x.target.backend.peerOf(c)
	ctx, cancel := context.WithCancel(ctx)
	a := &answerHTTP2{x: x, q: q, fresh: fresh}
	a.call.cancel, a.call.choice = cancel, c
	if x.repeatable() {
		a.call.state.Store(stateWaiting)
	}
	req := x.outgoing(ctx, a)
	now := time.Now()
	a.call.begun = now
	if a.body != nil {
		a.call.body = &a.body.awaits
		a.body.awaits.begin(now)
	}
	q.track(&a.call)
	if q.down.Load() && x.repeatable() { // before it could be told
		a.call.state.Store(stateGivenUp)
		cancel()
	}
	a.stop = x.to.watch(cancel)
	until := x.deadline(now)
	timer := time.AfterFunc(until.Sub(now), cancel)
	resp, err := q.transport().RoundTrip(req) //nolint:bodyclose // release closes it
	timer.Stop()
	q.untrack(&a.call)
	if err == nil && (a.call.state.CompareAndSwap(stateWaiting, stateSteady) || a.call.state.Load() == stateSteady) {
		a.resp = resp
		q.answered()
		a.noteHead()
		a.stall = time.AfterFunc(p.cfg.Limits.Stall, cancel)
		return a, nil
	}
	f := a.failure(err, until)
	a.release()
	return nil, f
}

// track notes a call, so that it is given up when the instance is marked down.
func (q *peer) track(c *call) {
	q.b.mu.Lock()
	defer q.b.mu.Unlock()
	q.calls[c] = struct{}{}
}

// silent tells of the instance's silence.
func (c *call) silent(now time.Time) {
	waited := now.Sub(c.begun)
	if c.body != nil {
		waited = c.body.since(now)
	}
	c.told = c.told || c.choice.Silent(waited, now)
}

func (q *peer) untrack(c *call) {
	q.b.mu.Lock()
	defer q.b.mu.Unlock()
	delete(q.calls, c)
}

// outgoing makes the request that net/http sends.
func (x *exchange) outgoing(ctx context.Context, a *answerHTTP2) *http.Request {
	req := (&http.Request{
		Method: x.req.Method, URL: instanceURL(x), Host: x.host(), Header: make(http.Header, len(x.req.Fields)+1),
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}).WithContext(ctx)
	for _, f := range x.req.Fields {
		req.Header.Add(f.Name, f.Value)
	}
	if x.grpc {
		req.Header.Set("Te", "trailers") // what every gRPC client says
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // or net/http names itself
	}
	switch {
	case x.payload.stream != nil:
		x.streaming = true
		a.body = &outbound{x: x}
		req.Body, req.ContentLength = a.body, x.payload.length
		for _, name := range x.payload.announced {
			if req.Trailer == nil {
				req.Trailer = http.Header{}
			}
			req.Trailer[http.CanonicalHeaderKey(name)] = nil // the values come with the body's end
		}
		a.body.trailer = req.Trailer
	case len(x.payload.small) > 0:
		setBody(req, x.payload.small)
	}
	return req
}

// instanceURL is the URL of a request to an instance.
func instanceURL(x *exchange) *url.URL {
	scheme := "http"
	if x.target.backend.tls != nil {
		scheme = "https"
	}
	u := &url.URL{Scheme: scheme, Host: x.host(), RawQuery: x.req.Query}
	if x.path == "*" {
		u.Opaque = "*"
		return u
	}
	// Opaque goes out as it is, so that no escape is written in another way.
	u.Opaque = "//" + u.Host + x.path
	return u
}

// setBody gives a request a body that can be sent again.
func setBody(req *http.Request, small []byte) {
	req.ContentLength = int64(len(small))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(small)), nil }
	req.Body, _ = req.GetBody() // never fails
}

// failure says what an error of the call means.
func (a *answerHTTP2) failure(err error, until time.Time) *failure {
	var dial *dialError
	var bad *http1.Error
	var client error
	if a.body != nil {
		if failed := a.body.err.Load(); failed != nil {
			client = *failed
		}
	}
	switch {
	case a.call.state.Load() == stateGivenUp:
		return &failure{again: againSafe, status: 502, why: "the instance was marked down before it answered"}
	case errors.Is(err, errNoHTTP2) && a.x.target.protocol == protocolALPN && !a.x.grpc && !a.fresh:
		return &failure{again: againSame, unsent: true, status: 502, why: err.Error()} // it did before
	case errors.As(err, &dial):
		return &failure{result: dispatch.Unreachable, again: againAny, status: 502, why: "no connection to the instance could be made: " + reason(err)}
	case errors.Is(client, errTooLarge):
		return &failure{status: 413, why: "the body is larger than the route allows"}
	case errors.As(client, &bad):
		return &failure{status: bad.Status, why: "the request's body is malformed: " + bad.Reason}
	case client != nil || a.x.to.gone():
		return &failure{status: statusGone, why: "the client has left"}
	case !time.Now().Before(until):
		return &failure{result: dispatch.TimedOut, again: againSafe, status: 504, why: "the instance did not answer in time"}
	default:
		if alerted(err) {
			a.q.troubled(err)
		}
		return &failure{result: dispatch.Failed, again: againSafe, status: 502, why: "the connection to the instance was lost: " + reason(err)}
	}
}

// noteHead puts the response's head into x.resp.
func (a *answerHTTP2) noteHead() {
	r := &a.x.resp
	*r = http1.Response{Status: a.resp.StatusCode, Fields: r.Fields[:0], Minor: 1, KeepAlive: true, Framing: http1.ToClose}
	for name, list := range a.resp.Header {
		for _, value := range list {
			r.Fields = append(r.Fields, http1.NewField(name, value))
		}
	}
	switch {
	case a.x.req.Method == http.MethodHead || r.Status == 204 || r.Status == 304 || a.resp.ContentLength == 0:
		r.Framing, r.Length = http1.NoBody, a.resp.ContentLength
	case a.resp.ContentLength > 0:
		r.Framing, r.Length = http1.Length, a.resp.ContentLength
	}
}

// Read reads from the body.
func (a *answerHTTP2) Read(p []byte) (int, error) {
	a.stall.Reset(a.q.b.p.cfg.Limits.Stall)
	n, err := a.resp.Body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.ended = err
	}
	return n, err
}

func (a *answerHTTP2) trailers() (fields []http1.Field) {
	for name, list := range a.resp.Trailer {
		for _, value := range list {
			fields = append(fields, http1.NewField(name, value))
		}
	}
	return fields
}

func (a *answerHTTP2) failed() error { return a.ended }

func (a *answerHTTP2) finish() {
	a.stall.Stop()
	a.release()
}

// release ends the call.
func (a *answerHTTP2) release() {
	a.stop()
	if a.body != nil {
		a.body.end()
	}
	if a.resp != nil {
		a.resp.Body.Close()
	}
	a.call.cancel()
}
