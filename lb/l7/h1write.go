package l7

import (
	"io"
	"net"
	"strconv"
	"time"

	"github.com/musterdns/muster/lb/l7/http1"
)

// inform sends an informational response.
func (k *clientConn) inform(status int, fields []http1.Field) error {
	if k.x.req.Minor == 0 {
		return nil // RFC 9110 section 15.2: HTTP/1.0 has none
	}
	k.out = appendStatus(k.out[:0], status, "")
	k.out = append(appendFields(k.out, fields), "\r\n"...)
	return k.flush()
}

func appendStatus(b []byte, status int, reason string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// flush writes what is gathered. A client that does not read is given up after
// Limits.Stall, or twice as long.
func (k *clientConn) flush() error {
	k.allowWrite()
	_, err := k.c.Write(k.out)
	k.out = k.out[:0]
	return err
}

func (k *clientConn) allowWrite() {
	stall := k.p.cfg.Limits.Stall
	if now := time.Now(); k.writes.Sub(now) < stall {
		k.writes = now.Add(stallSlack * stall)
		k.c.SetWriteDeadline(k.writes)
	}
}

// respond sends a response: in one call when its body is there already, else as
// it comes.
func (k *clientConn) respond(x *exchange, r *reply) error {
	k.out = appendStatus(k.out[:0], r.status, r.reason)
	k.out = appendFields(k.out, r.fields)
	chunked := false
	switch {
	case r.bodyless || r.status == 204:
		if r.length > 0 || r.length == 0 && r.status != 204 && r.status != 304 {
			k.out = appendLength(k.out, r.length)
		}
	case r.length >= 0:
		k.out = appendLength(k.out, r.length)
	case x.req.Minor == 0:
		k.close = true // it ends with the connection
	default:
		chunked = true
		k.out = append(k.out, "Transfer-Encoding: chunked\r\n"...)
	}
	if k.unread() || k.p.stopping.Load() {
		k.close = true
	}
	switch {
	case k.close:
		k.out = append(k.out, "Connection: close\r\n"...)
	case x.req.Minor == 0:
		k.out = append(k.out, "Connection: keep-alive\r\n"...)
	}
	k.out = append(k.out, "\r\n"...)
	switch {
	case r.bodyless:
		return k.flush()
	case r.body == nil:
		k.out = append(k.out, r.text...)
		x.sent = int64(len(r.text))
		return k.flush()
	}
	if err := k.copyBody(x, r, chunked); err != nil {
		k.close = true
		return err
	}
	return nil
}

// unread reports whether the response comes before the end of a body that
// nobody is going to read.
func (k *clientConn) unread() bool {
	return k.streamed && !k.body.Done() && !k.x.streaming
}

// copyBody sends the body after the head that is gathered.
func (k *clientConn) copyBody(x *exchange, r *reply, chunked bool) error {
	a, own := r.body.(*answerHTTP1)
	if own && r.length >= 0 && int64(len(a.rd.Buffered())) >= r.length && r.length <= copySize {
		n := int(r.length)
		k.out = append(k.out, a.rd.Buffered()[:n]...)
		a.rd.Discard(n)
		if n > 0 {
			a.body.Skip(int64(n))
		}
		x.sent = r.length
		return k.flush()
	}
	buf := k.p.buffers.get()
	defer k.p.buffers.put(buf)
	// What is there goes with the head; then each part goes as it comes, so
	// that events and messages of streams are not held up.
	for {
		if len(k.out) > 0 && (!own || !a.body.Ready() || len(k.out) > bufferSize) {
			if err := k.flush(); err != nil {
				return err
			}
		}
		if own && a.plain() && !chunked && k.tcp != nil && a.body.Left() >= spliceMin && len(a.rd.Buffered()) == 0 {
			return k.splice(x, a)
		}
		n, err := r.body.Read((*buf)[chunkRoom : len(*buf)-2])
		if n > 0 {
			x.sent += int64(n)
			data := (*buf)[chunkRoom : chunkRoom+n]
			if chunked {
				data = frameChunk(*buf, n)
			}
			if err := k.send(data); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		if err != io.EOF { //nolint:errorlint // a body's own end
			_ = k.flush() // the client is told by the connection's end alone
			return err
		}
		if chunked {
			k.out = appendLastChunk(k.out, r.body.trailers())
		}
		if len(k.out) > 0 {
			return k.flush()
		}
		return nil
	}
}

// send writes a part of a body, with what is gathered before it.
func (k *clientConn) send(data []byte) error {
	if len(data) <= bufferSize {
		k.out = append(k.out, data...)
		return nil
	}
	k.allowWrite()
	parts := net.Buffers{k.out, data}
	_, err := parts.WriteTo(k.c)
	k.out = k.out[:0]
	return err
}

const (
	// spliceMin is the rest of a body from which on it is spliced: below it the
	// pair of pipes costs more than the copying (measured for TCP: equal at 64
	// KiB, a third less at 1 MiB).
	spliceMin = 64 << 10
	// splicePiece is how much is spliced before the deadlines are put off: a
	// body of which so little does not come within Limits.Stall is given up.
	splicePiece = 256 << 10
)

// splice moves the rest of a body from the instance to the client within the
// kernel.
func (k *clientConn) splice(x *exchange, a *answerHTTP1) error {
	for {
		left := a.body.Left()
		if left == 0 {
			return nil
		}
		a.extend()
		k.allowWrite()
		n, err := io.CopyN(k.tcp, a.c, min(left, splicePiece))
		a.body.Skip(n)
		x.sent += n
		if err != nil {
			return err
		}
	}
}

// hijack hands the connection over, with what was read from it and not used.
func (k *clientConn) hijack() (net.Conn, []byte) {
	k.close = true
	return k.c, k.rd.Buffered()
}

// watch tells nothing: who has left is found by gone.
func (*clientConn) watch(func()) (stop func() bool) { return func() bool { return true } }
