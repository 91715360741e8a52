package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/musterdns/muster/lb/dispatch"
)

// dial connects to the peer. Over TLS it may agree to HTTP/2, which then is
// what is spoken to the peer: the connection is the transport's, and nil is
// returned.
func (q *peer) dial(ctx context.Context, protocols []string) (*instanceConn, error) {
	conn, tcp, err := q.connect(ctx, protocols)
	if err != nil {
		return nil, err
	}
	secure, isTLS := conn.(*tls.Conn)
	if isTLS && secure.ConnectionState().NegotiatedProtocol == alpnHTTP2 {
		q.learned(secure)
		return nil, nil
	}
	c := &instanceConn{c: conn, tcp: tcp, peer: q}
	c.probe, err = newProbe(tcp, isTLS)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	c.rd.Reset(conn, make([]byte, bufferSize))
	q.b.mu.Lock()
	q.link(c)
	q.b.mu.Unlock()
	return c, nil
}

// connect makes a connection to the peer, for at most Limits.Connect. With TLS
// the peer's certificate has been verified, and one of the protocols may have
// been agreed on.
func (q *peer) connect(ctx context.Context, protocols []string) (net.Conn, *net.TCPConn, error) {
	b := q.b
	if b.tls != nil {
		limited, cancel := context.WithTimeout(ctx, b.p.cfg.Limits.Connect)
		defer cancel()
		ctx = limited
	}
	conn, err := b.p.dialer.DialContext(ctx, "tcp", q.addr.String())
	if err != nil {
		return nil, nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return nil, nil, fmt.Errorf("a connection to %s is no TCP connection", q.addr)
	}
	b.p.counts.dials.Add(1)
	if b.tls == nil {
		return tcp, tcp, nil
	}
	secure := tls.Client(tcp, b.tls.client(b.name, protocols))
	if err := secure.HandshakeContext(ctx); err != nil {
		tcp.Close()
		err = &handshakeError{err}
		if !errors.Is(err, context.Canceled) { // who asked has left
			q.troubled(err)
		}
		return nil, nil, err
	}
	return secure, tcp, nil
}

// handshakeError is why a connection that was made came to no TLS.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// troubled logs that TLS to the peer fails, once until it works again or fails
// for another reason.
func (q *peer) troubled(err error) {
	why := reason(err) // without what differs each time, as the time of day
	if before := q.trouble.Swap(&why); before != nil && *before == why {
		return
	}
	q.b.p.cfg.Log.Warn("an instance cannot be spoken to over TLS", "service", q.b.ref.Service, "instance", q.id, "address", q.addr, "error", err)
}

// answered notes that the peer has answered, which ends a trouble with TLS.
func (q *peer) answered() {
	if q.trouble.Load() == nil || q.trouble.Swap(nil) == nil {
		return
	}
	q.b.p.cfg.Log.Info("an instance can be spoken to over TLS again", "service", q.b.ref.Service, "instance", q.id, "address", q.addr)
}

// alerted reports whether an error is the instance's word that it takes no TLS
// with the proxy. Of the proxy's certificate it comes after the handshake, in
// place of a response (RFC 8446 section 4.4.2.4).
func alerted(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// learned notes that the peer speaks HTTP/2, and keeps the connection by which
// that was found out for its transport.
func (q *peer) learned(c *tls.Conn) {
	q.speaksH2.Store(true)
	b := q.b
	b.mu.Lock()
	keep := q.spare == nil && q.end == dispatch.EndNone && !b.closed
	if keep {
		q.spare = c
	}
	b.mu.Unlock()
	if !keep {
		c.Close()
	}
}

// takeSpare returns the connection that learned kept; nil: there is none. b.mu
// is not held.
func (q *peer) takeSpare() *tls.Conn {
	q.b.mu.Lock()
	defer q.b.mu.Unlock()
	c := q.spare
	q.spare = nil
	return c
}

// dialHTTP2 connects to the peer for its transport.
func (q *peer) dialHTTP2(ctx context.Context) (net.Conn, error) {
	if c := q.takeSpare(); c != nil {
		return c, nil
	}
	conn, _, err := q.connect(ctx, []string{alpnHTTP2, alpnHTTP1})
	if err != nil {
		return nil, &dialError{err}
	}
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != alpnHTTP2 {
		q.speaksH2.Store(false)
		conn.Close()
		return nil, &dialError{errNoHTTP2}
	}
	return conn, nil
}
