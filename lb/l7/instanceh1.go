package l7

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
)

// bufferSize is the size of the buffers that each connection reads through; it
// holds most heads, and most small bodies with them.
const bufferSize = 4 << 10

// goneEvery is how often, while an instance is silent, the client is asked
// whether it is still there.
const goneEvery = time.Second

// again says to whom a request may be sent again after a failure.
type again uint8

const (
	againNever again = iota
	againSame        // to the same instance: the connection was to blame
	againSafe        // to another, if the request is repeatable
	againAny         // to another: no byte of it was sent
)

// failure is a try that brought no response.
type failure struct {
	result dispatch.Result
	again  again
	unsent bool // not a byte of the request was sent
	status int  // what to answer when it was the last try
	why    string
}

// answer is a response that has begun to come from an instance, its head in
// exchange.resp.
type answer interface {
	replyBody
	// finish ends it; what it came through is used again if it can be.
	finish()
	// failed is what went wrong with the body; nil: nothing.
	failed() error
}

// askHTTP1 sends the request to an instance over HTTP/1.1 and reads the head of
// its response into x.resp.
func (p *Proxy) askHTTP1(ctx context.Context, x *exchange, c dispatch.Choice, fresh bool) (answer, *failure) {
	q := x.target.backend.peerOf(c)
	conn := (*instanceConn)(nil)
	if !fresh {
		conn = q.take()
		if conn != nil && !x.repeatable() && conn.closed() {
			conn.close()
			conn = nil
		}
	}
	reused := conn != nil
	if !reused {
		var err error
		if conn, err = q.dial(ctx, x.alpn()); err != nil {
			switch {
			case x.to.gone():
				return nil, &failure{status: statusGone, why: "the client has left"}
			case ctx.Err() != nil:
				return nil, &failure{status: 503, why: "the proxy is stopping"}
			}
			return nil, &failure{result: dispatch.Unreachable, again: againAny, status: 502, why: "no connection to the instance could be made: " + reason(err)}
		}
	}
	if conn == nil { // the instance agreed to HTTP/2
		return p.askHTTP2(ctx, x, c, true)
	}
	if x.repeatable() {
		conn.state.Store(stateWaiting)
	} else {
		conn.state.Store(stateSteady)
	}
	a := &x.answer
	*a = answerHTTP1{instanceConn: conn, x: x, choice: c, begun: time.Now()}
	if len(x.head) == 0 {
		x.appendHead()
	}
	f := a.givenUp()
	if !q.down.Load() || !x.repeatable() { // or it was marked down before the state could tell
		f = a.ask(a.begun, reused)
	}
	if f == nil {
		return a, nil
	}
	a.stopSending()
	conn.close()
	return nil, f
}

// answerHTTP1 is a response over HTTP/1.1.
type answerHTTP1 struct {
	*instanceConn
	x       *exchange
	sending *sender // nil: the request is sent
	choice  dispatch.Choice
	begun   time.Time // the try
	silent  bool      // the instance's silence was told
}

// ask writes the request and reads the response's head.
func (a *answerHTTP1) ask(begun time.Time, reused bool) *failure {
	x, c := a.x, a.instanceConn
	until := x.deadline(begun)
	c.stalls = minTime(until, begun.Add(goneEvery))
	c.c.SetReadDeadline(c.stalls)
	if c.writes.Sub(begun) < x.target.timeout {
		// Now and then, since it is there for who reads nothing at all.
		c.writes = begun.Add(stallSlack * x.target.timeout)
		c.c.SetWriteDeadline(c.writes)
	}
	n, err := c.c.Write(x.head)
	if err == nil && x.payload.stream == nil && x.separate() {
		_, err = c.c.Write(x.payload.small)
	}
	if err != nil && n == 0 {
		f := &failure{result: dispatch.Failed, again: againAny, unsent: true, status: 502, why: "the connection to the instance was lost: " + reason(err)}
		if reused { // closed while it was idle, as servers do: RFC 9112 section 9.3.1
			f.result, f.again = dispatch.Unjudged, againSame
		}
		return f
	}
	if x.payload.stream != nil {
		x.streaming = true
		a.sending = &sender{x: x, c: c.c, done: make(chan struct{})}
		c.writes = time.Time{}                                // the sender's from here on
		go a.sending.run(x.target.backend.p.cfg.Limits.Stall) // ends before the exchange does: stopSending
	}
	return a.readHead(until, reused)
}

// readHead reads the head of the final response; informational ones are passed
// on.
func (a *answerHTTP1) readHead(until time.Time, reused bool) *failure {
	x, c := a.x, a.instanceConn
	limit := x.target.backend.p.cfg.Limits.HeadBytes
	for some := false; ; {
		n, err := c.rd.Scan(limit)
		if err != nil {
			return &failure{result: dispatch.Failed, again: againSafe, status: 502, why: "the instance's response is malformed: " + err.Error()}
		}
		if n > 0 {
			if !c.state.CompareAndSwap(stateWaiting, stateSteady) && c.state.Load() == stateGivenUp {
				return a.givenUp()
			}
			if err := x.resp.ParseResponse(c.rd.Head(n), x.req.Method); err != nil {
				return &failure{result: dispatch.Failed, again: againSafe, status: 502, why: "the instance's response is malformed: " + err.Error()}
			}
			if final, f := a.noteHead(); f != nil || final {
				return f
			}
			some = true
			continue
		}
		if err := c.rd.Fill(); err != nil {
			if f := a.readFailed(err, until, reused && !some && len(c.rd.Buffered()) == 0); f != nil {
				return f
			}
			continue
		}
		some = true
	}
}

// noteHead looks at a head that was parsed; final is false for one that is
// informational.
func (a *answerHTTP1) noteHead() (final bool, _ *failure) {
	x := a.x
	switch {
	case x.resp.Status == 101 && x.req.Upgrade == "":
		return false, &failure{result: dispatch.Failed, again: againNever, status: 502, why: "the instance switches protocols unasked"}
	case x.resp.Status >= 200 || x.resp.Status == 101:
		a.peer.answered()
		a.body.Reset(&a.rd, x.resp.Framing, x.resp.Length)
		return true, nil
	case x.resp.Status == 100:
		return false, nil // the proxy says so itself when it reads the body
	}
	x.resp.Fields = x.responseFields()
	if err := x.to.inform(x.resp.Status, x.resp.Fields); err != nil {
		return false, &failure{status: statusGone, why: "the client has left"}
	}
	return false, nil
}

// readFailed says what an error of reading the head means; nil: go on waiting.
func (a *answerHTTP1) readFailed(err error, until time.Time, untouched bool) *failure {
	if a.state.Load() == stateGivenUp {
		return a.givenUp()
	}
	if a.sending != nil {
		if f := a.sending.failure(); f != nil {
			return f
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		if untouched {
			// Closed while it was idle, as servers do: RFC 9112 section 9.3.1.
			return &failure{result: dispatch.Unjudged, again: againSame, status: 502, why: "the instance closed the connection"}
		}
		if alerted(err) {
			a.peer.troubled(err)
		}
		return &failure{result: dispatch.Failed, again: againSafe, status: 502, why: "the instance closed the connection before a response: " + reason(err)}
	}
	now := time.Now()
	switch {
	case !now.Before(until):
		return &failure{result: dispatch.TimedOut, again: againSafe, status: 504, why: "the instance did not answer in time"}
	case a.x.to.gone():
		return &failure{status: statusGone, why: "the client has left"}
	}
	if !a.silent {
		a.silent = a.choice.Silent(a.waited(now), now)
	}
	a.stalls = minTime(until, now.Add(goneEvery))
	a.c.SetReadDeadline(a.stalls)
	if a.state.Load() == stateGivenUp { // meanwhile: the deadline that was to tell is gone
		return a.givenUp()
	}
	return nil
}

// waited is how long the instance alone has been waited for.
func (a *answerHTTP1) waited(now time.Time) time.Duration {
	if a.sending == nil {
		return now.Sub(a.begun)
	}
	return a.sending.awaits.since(now)
}

// awaits is since when the instance alone has been waited for while a request's
// body is sent, ns since 1970; 0: it is the client that is waited for.
type awaits struct{ atomic.Int64 }

func (w *awaits) begin(now time.Time) { w.Store(now.UnixNano()) }

func (w *awaits) since(now time.Time) time.Duration {
	if at := w.Load(); at != 0 {
		return time.Duration(now.UnixNano() - at)
	}
	return 0
}

func (a *answerHTTP1) givenUp() *failure {
	return &failure{result: dispatch.Unjudged, again: againSafe, status: 502, why: "the instance was marked down before it answered"}
}

// statusGone is the status of a request whose client has left, in the log
// alone. nginx made it known.
const statusGone = 499

// deadline is until when a try that begins now may take.
func (x *exchange) deadline(now time.Time) time.Time {
	until := x.begun.Add(x.target.timeout)
	if x.target.tryTimeout > 0 {
		until = minTime(until, now.Add(x.target.tryTimeout))
	}
	return until
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// stallSlack is the part of a stall's limit by which it may last longer, so
// that deadlines need not be set for each read.
const stallSlack = 2

// Read reads from the body, whose deadline it puts off as long as there is
// progress.
func (a *answerHTTP1) Read(b []byte) (int, error) {
	if !a.body.Ready() {
		a.extend()
	}
	return a.body.Read(b)
}

// extend puts the deadline of reading off.
func (a *answerHTTP1) extend() {
	stall := a.peer.b.p.cfg.Limits.Stall
	if now := time.Now(); a.stalls.Sub(now) < stall/stallSlack {
		a.stalls = now.Add(stall)
		a.c.SetReadDeadline(a.stalls)
	}
}

func (a *answerHTTP1) trailers() []http1.Field { return a.body.Trailers }

func (a *answerHTTP1) failed() error { return a.body.Err() }

// finish keeps the connection if the response was read to its end and the
// request sent to its.
func (a *answerHTTP1) finish() {
	sent := a.stopSending()
	if sent && a.body.Done() && a.x.resp.KeepAlive && len(a.rd.Buffered()) == 0 && a.x.keeps() {
		a.put(time.Now())
		return
	}
	a.close()
}

// stopSending ends the sending of the request; true: it was sent whole.
func (a *answerHTTP1) stopSending() bool {
	s := a.sending
	if s == nil {
		return true
	}
	select {
	case <-s.done:
	default:
		a.x.payload.abort()
		a.c.SetWriteDeadline(past)
		<-s.done
	}
	a.x.received = s.sent
	a.x.streaming = s.err == nil
	return s.err == nil
}

// sender sends a request's body while its response is awaited and read.
type sender struct {
	x      *exchange
	c      net.Conn
	done   chan struct{}
	err    error // once done
	sent   int64 // bytes of the body
	client bool  // err is the client's doing
	awaits awaits
}

// run copies the body to the instance.
func (s *sender) run(stall time.Duration) {
	defer close(s.done)
	s.err = s.copy(stall)
	if s.err != nil && s.client {
		s.c.SetReadDeadline(past) // who waits for the response is to learn of it
	}
}

func (s *sender) copy(stall time.Duration) error {
	payload := &s.x.payload
	if payload.await != nil {
		if err := payload.await(); err != nil {
			s.client = true
			return err
		}
	}
	payload.begun = true
	buffers := &s.x.target.backend.p.buffers
	buf := buffers.get()
	defer buffers.put(buf)
	chunked := payload.length < 0
	for until := (time.Time{}); ; {
		n, err := payload.stream.Read((*buf)[chunkRoom : len(*buf)-2])
		if n > 0 {
			now := time.Now()
			if until.Sub(now) < stall/stallSlack {
				until = now.Add(stall)
				s.c.SetWriteDeadline(until)
			}
			s.awaits.begin(now)
			out := (*buf)[chunkRoom : chunkRoom+n]
			if chunked {
				out = frameChunk(*buf, n)
			}
			if _, err := s.c.Write(out); err != nil {
				return err
			}
			s.sent += int64(n)
		}
		switch {
		case err == nil:
			s.awaits.Store(0)
		case errors.Is(err, io.EOF):
			s.awaits.begin(time.Now())
			if chunked {
				_, err = s.c.Write(appendLastChunk((*buf)[:0], payload.trailers()))
				return err
			}
			return nil
		default:
			s.client = true
			return err
		}
	}
}

// failure is what the sender's end means for the request; nil: nothing.
func (s *sender) failure() *failure {
	select {
	case <-s.done:
	default:
		return nil
	}
	if !s.client || s.err == nil {
		return nil
	}
	var bad *http1.Error
	switch {
	case errors.Is(s.err, errTooLarge):
		return &failure{status: 413, why: "the body is larger than the route allows"}
	case errors.As(s.err, &bad):
		return &failure{status: bad.Status, why: "the request's body is malformed: " + bad.Reason}
	case errors.Is(s.err, os.ErrDeadlineExceeded):
		return &failure{status: 408, why: "the client did not send its body in time"}
	default:
		return &failure{status: statusGone, why: "the client has left"}
	}
}

// reason is an error in words for clients: without addresses, which are nobody
// else's business.
func reason(err error) string {
	if fault := certificateFault(err); fault != "" {
		return fault
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() {
			return "timeout"
		}
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "end of the connection"
	}
	return err.Error()
}
