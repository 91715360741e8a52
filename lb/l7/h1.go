package l7

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb/l7/http1"
)

// preface is what an HTTP/2 connection in cleartext begins with (RFC 9113
// section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// outMax is how large a buffer for writing is kept for the next request.
const outMax = 4 * bufferSize

// clientConn is a client's connection that speaks HTTP/1.1. One goroutine
// serves it; only a streamed body is read by another, while the first does not
// read.
type clientConn struct {
	p     *Proxy
	l     *listener
	c     net.Conn
	sock  *net.TCPConn // what c is, or is over
	tcp   *net.TCPConn // sock; nil: c is TLS
	under *underTLS    // sock below TLS; nil: cleartext
	probe *probe       // of the TCP connection
	rd    http1.Reader
	body  http1.Body
	out   []byte // what is being written
	x     *exchange
	hop   *hop
	// scratch holds the buffers and the exchange; nil while it rests or is parked.
	scratch *scratch
	rest    rest

	first         bool        // no request has come yet
	asked         atomic.Bool // the head of one has, at least
	idle          atomic.Bool // a request has come, and none is under way: it may be closed
	reads, writes time.Time   // until when they may take, as it was told
	close         bool        // after the response
	streamed      bool        // the request's body is or was read through body
	aborted       atomic.Bool // nobody is to read it any more
}

// serve serves requests until the connection ends, or is to be parked. It
// returns the bytes read so far when the client speaks HTTP/2.
func (k *clientConn) serve(ctx context.Context) (h2 []byte, parked bool) {
	k.l.awake.Add(1)
	defer k.l.awake.Add(-1)
	limits := &k.p.cfg.Limits
	k.equip()
	for ; ; k.first = false {
		k.idle.Store(!k.first)
		n, err := k.readHead(limits, k.first)
		if errors.Is(err, errPark) {
			k.first = false
			return nil, true
		}
		if err != nil {
			if bad, ok := errors.AsType[*http1.Error](err); ok {
				k.idle.Store(false)
				k.refuse(bad)
			}
			return nil, false
		}
		if k.first && n == 0 {
			return bytes.Clone(k.rd.Buffered()), false
		}
		x := k.x
		x.reset()
		x.begun = time.Now()
		k.p.counts.requests.Add(1)
		k.close = false
		if err := x.req.ParseRequest(k.rd.Head(n)); err != nil {
			if bad, ok := errors.AsType[*http1.Error](err); ok {
				k.refuse(bad)
			}
			return nil, false
		}
		k.prepare(limits.Stall)
		err = k.p.handle(ctx, x)
		unread := k.streamed && !k.body.Done()
		if err == nil && unread {
			k.linger()
		}
		if err != nil || unread || k.close {
			return nil, false
		}
		if k.streamed {
			k.reads = time.Time{} // whatever the deadline is now, it was the body's
		}
		if cap(k.out) > outMax {
			k.out = make([]byte, 0, bufferSize)
		}
	}
}

// readHead waits for a request and returns the length of its head; 0 when the
// client speaks HTTP/2.
func (k *clientConn) readHead(limits *Limits, first bool) (int, error) {
	var until time.Time // of this head
	for {
		if first && k.tcp != nil && len(k.rd.Buffered()) > 0 {
			if b := k.rd.Buffered(); bytes.HasPrefix(b, []byte(preface)[:min(len(b), len(preface))]) {
				if len(b) >= len(preface) {
					return 0, nil
				}
				if err := k.fill(limits, &until, true); err != nil {
					return 0, err
				}
				continue
			}
		}
		k.rd.SkipEmptyLine()
		n, err := k.rd.Scan(limits.HeadBytes)
		if n > 0 || err != nil {
			k.asked.Store(true)
			k.idle.Store(false)
			return n, err
		}
		if err := k.fill(limits, &until, first); err != nil {
			return 0, err
		}
	}
}

// fill reads more of a head, which is to be there whole by until.
func (k *clientConn) fill(limits *Limits, until *time.Time, first bool) error {
	some := len(k.rd.Buffered()) > 0
	switch {
	case !until.IsZero():
	case some || first:
		// From its first byte a head may take so long and no longer, however
		// often another byte comes.
		*until = time.Now().Add(limits.ReadHead)
		if k.p.stopping.Load() && !some {
			*until = time.Now().Add(min(stopLinger, limits.ReadHead))
		}
		k.reads = *until
		k.c.SetReadDeadline(k.reads)
	case k.l.ending():
		k.reads = k.l.ends()
		k.c.SetReadDeadline(k.reads)
	default:
		wait := limits.Idle
		if parks {
			wait = min(wait, k.l.patience())
		}
		if now := time.Now(); k.reads.Sub(now) < wait || k.reads.Sub(now) > stallSlack*wait {
			k.reads = now.Add(stallSlack * wait)
			k.c.SetReadDeadline(k.reads)
		}
	}
	var err error
	if some {
		err = k.rd.Fill()
	} else {
		err = k.rest.wait(k)
	}
	if err != nil && isTimeout(err) && !some && until.IsZero() {
		switch {
		case k.l.ending() && time.Now().Before(k.l.ends()): // drain came meanwhile
			return nil
		case k.l.ending():
			return k.rest.last(k)
		case parks && k.scratch != nil:
			return nil // the time was over before the first look
		case parks:
			return errPark
		}
	}
	if err != nil && isTimeout(err) && some {
		k.p.counts.slow.Add(1)
		k.idle.Store(false)
		return &http1.Error{Status: 408, Reason: "the head did not come in time"}
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// prepare makes the exchange of a head that was parsed.
func (k *clientConn) prepare(stall time.Duration) {
	x := k.x
	k.close, k.streamed = !x.req.KeepAlive, false
	if x.req.Minor == 0 {
		x.version = "HTTP/1.0"
	} else {
		x.version = "HTTP/1.1"
	}
	if x.req.Framing == http1.NoBody {
		return
	}
	b := &x.payload
	b.length = -1
	if x.req.Framing == http1.Length {
		b.length = x.req.Length
		if buffered := k.rd.Buffered(); b.length <= int64(len(buffered)) && b.length <= replayMax {
			// Nothing else is read into the buffer while the exchange lasts.
			b.small = buffered[:b.length:b.length]
			k.rd.Discard(int(b.length))
			return
		}
	}
	k.body.Reset(&k.rd, x.req.Framing, x.req.Length)
	b.stream = (*clientBody)(k)
	b.trailers = func() []http1.Field { return k.body.Trailers }
	k.streamed = true
	k.aborted.Store(false)
	b.abort = func() {
		k.aborted.Store(true)
		k.c.SetReadDeadline(past)
	}
	if x.req.Continue {
		b.await = func() error {
			_, err := k.c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
			return err
		}
	}
	k.reads = x.begun.Add(stall)
	k.c.SetReadDeadline(k.reads)
}

// clientBody is a client's streamed body.
type clientBody clientConn

// Read reads from the body, whose deadline it puts off as long as there is
// progress.
func (b *clientBody) Read(p []byte) (int, error) {
	stall := b.p.cfg.Limits.Stall
	if now := time.Now(); b.reads.Sub(now) < stall/stallSlack {
		b.reads = now.Add(stall)
		b.c.SetReadDeadline(b.reads)
	}
	if b.aborted.Load() { // perhaps before the deadline that was set here
		b.c.SetReadDeadline(past)
	}
	return b.body.Read(p)
}

// refuse answers a head that cannot be taken, after which nothing can be known
// of what follows.
func (k *clientConn) refuse(bad *http1.Error) {
	x := k.x
	x.reset()
	x.begun = time.Now()
	k.p.counts.malformed.Add(1)
	k.close = true
	x.req = http1.Request{Fields: x.req.Fields[:0], Method: "GET", Minor: 1}
	x.client = x.hop.addr
	if k.p.refuse(x, &failure{status: bad.Status, why: bad.Reason}) == nil {
		k.p.done(x)
		k.linger()
	}
}

// lingerMax bounds how long, and how many bytes, a connection that is closed
// while the client may still be sending is read from: closed at once it would
// be reset, and the client might never see the response (RFC 9112 section 9.6).
const (
	lingerMax      = time.Second
	lingerBytesMax = 256 << 10
)

func (k *clientConn) linger() {
	if k.under != nil {
		_ = k.under.secure.CloseWrite() // without this word a client would take the response for cut off
	}
	if k.sock.CloseWrite() != nil {
		return
	}
	_ = k.sock.SetReadDeadline(time.Now().Add(lingerMax))
	buf := k.p.buffers.get()
	defer k.p.buffers.put(buf)
	for total := 0; total < lingerBytesMax; {
		n, err := k.sock.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// gone reports whether the client has closed the connection.
func (k *clientConn) gone() bool {
	return k.x.payload.stream == nil && k.probe.closed() // one who sends more is there
}

// stop has the connection end at a time if nothing is asked before.
func (k *clientConn) stop(at time.Time) {
	if k.idle.Load() || !k.asked.Load() {
		k.c.SetReadDeadline(at)
	}
}

// stopLinger is how long a connection on which nothing is under way may stay when the
// proxy stops: a request may be on its way, and who makes one knows nothing of the end.
const stopLinger = 1500 * time.Millisecond
