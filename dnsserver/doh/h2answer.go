package doh

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// serve answers a request that has come in whole: a plain question at once or when its
// answer is there, and whatever else as HTTP/1.1 does.
func (s *h2Stream) serve() error {
	query, ok := s.query()
	if !ok {
		s.c.srv.conns.Go(s.handle)
		return nil
	}
	now := &inline{s: s}
	answered, waits, err := s.c.srv.cfg.Exchanger.Begin(s.c.ctx, query, s.c.from, dnsserver.HTTPS, now, &s.later, s.finishLater)
	switch {
	case waits:
		return nil
	case err != nil:
		return err
	case !answered || !s.replied:
		return s.error(http.StatusBadRequest, noQuery)
	}
	return nil
}

// noQuery is what is said to what is no query.
const noQuery = "the message is no DNS query"

// query is the message of a plain question.
func (s *h2Stream) query() ([]byte, bool) {
	if s.method == http.MethodPost {
		return s.body, s.path == Path && s.typ == typeMessage
	}
	param, ok := strings.CutPrefix(s.path, Path+"?dns=")
	if !ok || s.method != http.MethodGet || len(s.body) > 0 || strings.ContainsAny(param, "&%+;#") {
		return nil, false
	}
	query, err := base64.RawURLEncoding.DecodeString(param)
	return query, err == nil && len(query) > 0
}

// inline writes an answer that is there at once; the lock is held.
type inline struct{ s *h2Stream }

// WriteMsg implements dnsserver.Writer.
func (w *inline) WriteMsg(msg []byte) error {
	if w.s.replied {
		return errTwice
	}
	return w.s.message(msg)
}

// Limit implements dnsserver.Writer.
func (*inline) Limit() int { return wire.MaxMessage }

// finishLater sends the answer that had to be waited for.
func (s *h2Stream) finishLater() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.streams[s.id] != s {
		return // the client has gone
	}
	var err error
	if s.later.msg == nil {
		err = s.error(http.StatusBadRequest, noQuery)
	} else {
		err = s.message(s.later.msg)
	}
	s.c.flushed(err)
}

// flushed writes what there is, and ends the connection when that, or what was before,
// fails. The lock is held.
func (c *h2Conn) flushed(err error) {
	if errors.Join(err, c.flush()) != nil {
		_ = c.nc.SetReadDeadline(time.Now()) // fails only once closed
	}
}

// message sends a response with a message.
func (s *h2Stream) message(msg []byte) error {
	return s.respond(http.StatusOK, msg, hpack.HeaderField{Name: "content-type", Value: typeMessage}, hpack.HeaderField{Name: "cache-control", Value: cacheControl(msg)})
}

// error sends a response that says what is wrong.
func (s *h2Stream) error(status int, reason string) error {
	return s.respond(status, []byte(reason+"\n"), hpack.HeaderField{Name: "content-type", Value: "text/plain; charset=utf-8"})
}

// respond sends a response, as far as the client takes it.
func (s *h2Stream) respond(status int, body []byte, fields ...hpack.HeaderField) error {
	c := s.c
	s.replied = true
	c.block.Reset()
	write := func(name, value string) {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a buffer takes all
	}
	write(":status", strconv.Itoa(status))
	for _, f := range fields {
		write(f.Name, f.Value)
	}
	write("content-length", strconv.Itoa(len(body)))
	write("date", c.now())
	if s.method == http.MethodHead {
		body = nil
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: len(body) == 0})
	switch {
	case err != nil:
		return err
	case len(body) == 0:
		return s.finish()
	case s.room(len(body)) < len(body):
		body = bytes.Clone(body) // it is the caller's
	}
	s.out = body
	return c.pump(s)
}

// now is the time as HTTP has it (RFC 9110 section 5.6.7).
func (c *h2Conn) now() string {
	if now := time.Now(); now.Unix() != c.dateOf {
		c.date, c.dateOf = now.UTC().Format(http.TimeFormat), now.Unix()
	}
	return c.date
}

// room is how many of n octets may be sent in one frame.
func (s *h2Stream) room(n int) int {
	return int(max(0, min(int64(n), int64(s.c.frame), s.window, s.c.window)))
}

// pump sends what the client takes of an answer.
func (c *h2Conn) pump(s *h2Stream) error {
	for len(s.out) > 0 {
		n := s.room(len(s.out))
		if n == 0 {
			return nil
		}
		if err := c.framer.WriteData(s.id, n == len(s.out), s.out[:n]); err != nil {
			return err
		}
		s.window, c.window = s.window-int64(n), c.window-int64(n)
		c.progress = time.Now()
		if s.out = s.out[n:]; len(s.out) == 0 {
			return s.finish()
		}
	}
	return nil
}

// pumpAll sends what the client takes of all answers.
func (c *h2Conn) pumpAll() error {
	for _, s := range c.streams {
		if err := c.pump(s); err != nil {
			return err
		}
	}
	return nil
}

// finish ends a stream whose answer is sent; the client need not send the rest of its
// request (RFC 9113 section 8.1).
func (s *h2Stream) finish() error {
	if !s.ended {
		return s.c.reset(s.id, http2.ErrCodeNo)
	}
	s.c.forget(s.id)
	return nil
}

// handle answers what is no plain question.
func (s *h2Stream) handle() {
	defer func() {
		if v := recover(); v != nil {
			s.c.srv.cfg.Logger.Error("a request over HTTPS made the server panic", "error", v, "stack", string(debug.Stack()))
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			s.c.flushed(s.c.reset(s.id, http2.ErrCodeInternal))
		}
	}()
	r, err := s.httpRequest()
	w := &recorder{header: http.Header{}}
	if err != nil {
		http.Error(w, "the path is none: "+err.Error(), http.StatusBadRequest)
	} else {
		s.c.handler.ServeHTTP(w, r)
	}
	var fields []hpack.HeaderField
	for name, values := range w.header {
		if name = strings.ToLower(name); name == "content-length" {
			continue
		}
		for _, v := range values {
			fields = append(fields, hpack.HeaderField{Name: name, Value: v})
		}
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.streams[s.id] == s {
		s.c.flushed(s.respond(max(w.status, http.StatusOK), w.body.Bytes(), fields...))
	}
}

// httpRequest is the request as net/http has it.
func (s *h2Stream) httpRequest() (*http.Request, error) {
	target, err := url.ParseRequestURI(s.path)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: s.method, URL: target, RequestURI: s.path, Proto: "HTTP/2.0", ProtoMajor: 2, Host: s.host, RemoteAddr: s.c.from.String(), TLS: &s.c.tls,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(s.body)), ContentLength: int64(len(s.body)),
	}
	for _, f := range s.fields {
		if f.Name == "host" && r.Host == "" {
			r.Host = f.Value
		}
		r.Header.Add(f.Name, f.Value)
	}
	return r.WithContext(s.c.ctx), nil
}

// recorder keeps a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
