package l7

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/musterdns/muster/lb/l7/http1"
)

// h2Server serves the connections of one listener that speak HTTP/2.
type h2Server struct {
	l     *listener
	http  http.Server
	conns handed

	mu   sync.Mutex                // guards open
	open map[net.Conn]*net.TCPConn // what each is, or is over
}

// clientKey is the context key of a connection's h2Client.
type clientKey struct{}

// h2Client is what is known of an HTTP/2 connection.
type h2Client struct {
	addr  netip.AddrPort
	begun time.Time
}

func newH2Server(l *listener) *h2Server {
	s := &h2Server{l: l, conns: handed{c: make(chan net.Conn), closed: make(chan struct{})}, open: map[net.Conn]*net.TCPConn{}}
	limits := &l.p.cfg.Limits
	s.http = http.Server{
		Handler: s, Protocols: new(http.Protocols), MaxHeaderBytes: limits.HeadBytes,
		IdleTimeout: limits.Idle, ReadHeaderTimeout: limits.ReadHead,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: limits.Streams, WriteByteTimeout: limits.Stall,
			MaxReadFrameSize: 16 << 10, // what every client may send, and no more: RFC 9113 section 4.2
			SendPingTimeout:  limits.Idle, PingTimeout: 15 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), ConnState: s.noteState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			addr, _ := netip.ParseAddrPort(c.RemoteAddr().String())
			return context.WithValue(ctx, clientKey{}, &h2Client{addr: addr, begun: time.Now()})
		},
	}
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// handed is a net.Listener of connections that were accepted by another.
type handed struct {
	c      chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.c:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (*handed) Addr() net.Addr { return &net.TCPAddr{} }

// adopt has net/http serve a connection, which is tcp or over it, until it ends.
func (s *h2Server) adopt(c net.Conn, tcp *net.TCPConn) {
	s.l.running.Add(1)
	s.mu.Lock()
	s.open[c] = tcp
	s.mu.Unlock()
	select {
	case s.conns.c <- c:
	case <-s.conns.closed:
		c.Close()
		s.noteState(c, http.StateClosed)
	}
}

// noteState learns from net/http that a connection has ended.
func (s *h2Server) noteState(c net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	s.mu.Lock()
	tcp, ok := s.open[c]
	delete(s.open, c)
	s.mu.Unlock()
	if ok {
		s.l.remove(tcp)
		s.l.running.Done()
	}
}

// drain tells every client to open no more streams.
func (s *h2Server) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what is in flight is waited for by Proxy.Run
	_ = s.http.Shutdown(ctx)
}

// begunConn is a connection of which some bytes were read already.
type begunConn struct {
	net.Conn
	begun []byte
}

// Read returns those bytes first.
func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.begun) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.begun)
	c.begun = c.begun[n:]
	return n, nil
}

// ServeHTTP serves one request.
func (s *h2Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := s.l.p
	defer func() {
		if r := recover(); r != nil {
			if r != http.ErrAbortHandler { //nolint:errorlint // it is what panic was given, never wrapped
				p.notePanic(r)
			}
			panic(http.ErrAbortHandler)
		}
	}()
	client, ok := r.Context().Value(clientKey{}).(*h2Client)
	if !ok {
		panic("l7: invariant broken: a request without its connection")
	}
	p.counts.requests.Add(1)
	if p.stopping.Load() || time.Since(client.begun) > p.cfg.Limits.ConnAge {
		// net/http turns it into GOAWAY: the client connects anew, and where a
		// balancer of connections is before it, perhaps elsewhere.
		w.Header().Set("Connection", "close")
	}
	e := &h2Exchange{w: w, r: r, flush: http.NewResponseController(w)}
	e.x = exchange{version: r.Proto, hop: newHop(s.l, client.addr), listener: s.l, begun: time.Now(), to: e}
	x := &e.x
	x.req = http1.Request{Method: r.Method, Target: r.RequestURI, Host: r.Host, Minor: 1, KeepAlive: true}
	for name, list := range r.Header {
		for _, value := range list {
			x.req.Fields = append(x.req.Fields, http1.NewField(name, value))
		}
	}
	e.payload(r)
	err := x.req.Adopt()
	if bad, ok := errors.AsType[*http1.Error](err); ok {
		p.counts.malformed.Add(1)
		x.client = x.hop.addr
		err = p.refuse(x, &failure{status: bad.Status, why: bad.Reason})
		p.done(x)
	} else {
		err = p.handle(r.Context(), x)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // resets the stream: the response is not whole
	}
}

// h2Exchange is the responder of one HTTP/2 stream.
type h2Exchange struct {
	x     exchange
	w     http.ResponseWriter
	r     *http.Request
	flush *http.ResponseController
}

// payload notes the request's body.
func (e *h2Exchange) payload(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	e.x.req.Framing = http1.Chunked
	b := &e.x.payload
	b.length, b.stream = r.ContentLength, r.Body
	if b.length > 0 {
		e.x.req.Framing, e.x.req.Length = http1.Length, b.length
	}
	b.announced = slices.Collect(maps.Keys(r.Trailer))
	b.abort = func() { r.Body.Close() }
	b.trailers = func() (fields []http1.Field) {
		for name, list := range r.Trailer {
			for _, value := range list {
				if f := http1.NewField(name, value); f.Known.Trails() {
					fields = append(fields, f)
				}
			}
		}
		return fields
	}
}

// inform sends an informational response.
func (e *h2Exchange) inform(status int, fields []http1.Field) error {
	h := e.w.Header()
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	e.w.WriteHeader(status)
	for _, f := range fields {
		h.Del(f.Name)
	}
	return nil
}

// respond sends a response, each part of its body as it comes.
func (e *h2Exchange) respond(x *exchange, r *reply) error {
	h := e.w.Header()
	for _, f := range r.fields {
		h.Add(f.Name, f.Value)
	}
	if r.length > 0 || r.length == 0 && r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.FormatInt(r.length, 10)}
	}
	if _, typed := h["Content-Type"]; !typed {
		h["Content-Type"] = nil // or net/http guesses one
	}
	e.w.WriteHeader(r.status)
	switch {
	case r.bodyless:
		return nil
	case r.body == nil:
		n, err := e.w.Write(r.text)
		x.sent = int64(n)
		return err
	}
	p := x.listener.p
	buf := p.buffers.get()
	defer p.buffers.put(buf)
	if r.length != 0 {
		if err := e.flush.Flush(); err != nil { // the head, before the body has come
			return err
		}
	}
	for {
		n, err := r.body.Read(*buf)
		if n > 0 {
			x.sent += int64(n)
			if _, err := e.w.Write((*buf)[:n]); err != nil {
				return err
			}
			if x.sent != r.length {
				if err := e.flush.Flush(); err != nil {
					return err
				}
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			for _, f := range r.body.trailers() {
				h.Add(http.TrailerPrefix+f.Name, f.Value)
			}
			return nil
		default:
			return err
		}
	}
}

// gone reports whether the client has reset the stream or left.
func (e *h2Exchange) gone() bool { return e.r.Context().Err() != nil }

// watch has f called when the client leaves.
func (e *h2Exchange) watch(f func()) (stop func() bool) { return context.AfterFunc(e.r.Context(), f) }

// hijack has nothing to hand over: HTTP/2 has no upgrades (RFC 9113 section
// 8.2.2), and none is asked for.
func (*h2Exchange) hijack() (net.Conn, []byte) { return nil, nil }
