// Package doh answers DNS over HTTPS (RFC 8484): messages in GET and POST over
// HTTP/2 and HTTP/1.1, and the JSON form that browsers' scripts and curl like.
//
// A message is answered by the rules of all transports (dnsserver.Server.Exchange);
// this package has HTTP's own: methods, types, sizes, how long an answer may be kept.
package doh

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// Path is where questions are answered (RFC 8484 section 4.1: by convention).
const Path = "/dns-query"

// The media types.
const (
	typeMessage = "application/dns-message" // RFC 8484 section 6
	typeJSON    = "application/dns-json"
)

// Limits of a connection.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 5 * time.Second
	writeTimeout   = 10 * time.Second
	idleTimeout    = 30 * time.Second
	headersMax     = 16 << 10
	stopTimeout    = 2 * time.Second
)

// Exchanger answers messages: dnsserver.Server.
type Exchanger interface {
	Exchange(ctx context.Context, msg []byte, from netip.AddrPort, t dnsserver.Transport, w dnsserver.Writer) (answered bool, err error)
	Begin(ctx context.Context, msg []byte, from netip.AddrPort, t dnsserver.Transport, w, later dnsserver.Writer, done func()) (answered, waits bool, err error)
}

// Config is what a Server needs.
type Config struct {
	Listen    []netip.AddrPort
	Exchanger Exchanger
	// Certificate chooses the certificate for a client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ProxyFrom are dnsserver.Config's: connections of these proxies begin, before TLS, with
	// a header of the PROXY protocol.
	ProxyFrom []netip.Prefix
	// MaxConns and MaxConnsPerIP bound the connections; 0: 2048 and 256. Those that a proxy
	// passes on count to the client that it names.
	MaxConns, MaxConnsPerIP int
	// StopTimeout is how long requests may take to finish when the server stops; 0: 2 s.
	StopTimeout time.Duration
	// Inherited is dnsserver.Config's.
	Inherited func(name string) *os.File
	Logger    *slog.Logger // nil: none
}

// Server listens and answers. Listen, then Run, once each.
type Server struct {
	cfg       Config
	http      *http.Server
	listeners []*limited
	buffers   sync.Pool      // of *[wire.MaxMessage]byte
	conns     sync.WaitGroup // of HTTP/2, and what they began

	mu       sync.Mutex // guards open and stopping
	open     map[*h2Conn]struct{}
	stopping bool
}

// New checks cfg. It binds nothing.
func New(cfg Config) (*Server, error) {
	if len(cfg.Listen) == 0 || cfg.Exchanger == nil || cfg.Certificate == nil {
		return nil, errors.New("doh: Listen, Exchanger and Certificate must be set")
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 2048
	}
	if cfg.MaxConnsPerIP == 0 {
		cfg.MaxConnsPerIP = 256
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = stopTimeout
	}
	if cfg.Inherited == nil {
		cfg.Inherited = func(string) *os.File { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, open: map[*h2Conn]struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc(Path, s.serve)
	s.http = &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{GetCertificate: cfg.Certificate, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12},
		ErrorLog:  slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug), // handshakes of scanners

		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headersMax, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.serveHTTP2},
	}
	return s, nil
}

// socketName is what the listener of an address is handed over as.
func socketName(listen netip.AddrPort) string { return "dns https " + listen.String() }

// Listen binds every address or none.
func (s *Server) Listen() error {
	for _, want := range s.cfg.Listen {
		ln, err := dnsserver.ListenTCP(want, s.cfg.Inherited(socketName(want)))
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			s.listeners = nil
			return fmt.Errorf("doh: listening on %s: %w", want, err)
		}
		s.listeners = append(s.listeners, newLimited(ln, s.cfg.MaxConns, s.cfg.MaxConnsPerIP, s.cfg.ProxyFrom))
	}
	return nil
}

// Addrs are the addresses bound.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range s.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			out = append(out, a.AddrPort())
		}
	}
	return out
}

// Sockets are the bound sockets by name, for a process to follow this one.
func (s *Server) Sockets() map[string]syscall.Conn {
	out := map[string]syscall.Conn{}
	for i, l := range s.listeners {
		if c, ok := l.Listener.(syscall.Conn); ok {
			out[socketName(s.cfg.Listen[i])] = c
		}
	}
	return out
}

// Refused is how many connections were closed at once, at a limit.
func (s *Server) Refused() uint64 {
	var n uint64
	for _, l := range s.listeners {
		n += l.refused.Load()
	}
	return n
}

// BadHeaders is how many connections of proxies began with no PROXY header.
func (s *Server) BadHeaders() uint64 {
	var n uint64
	for _, l := range s.listeners {
		n += l.badHeaders.Load()
	}
	return n
}

// Run answers until ctx ends; it then lets requests finish, for StopTimeout at most.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { ended <- s.http.ServeTLS(l, "", "") }()
	}
	var err error
	left := len(s.listeners)
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
	defer cancel()
	s.retire()
	if s.http.Shutdown(stopping) != nil {
		_ = s.http.Close() // what is left is cut
	}
	for range left {
		err = errors.Join(err, <-ended)
	}
	s.conns.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("doh: %w", err)
	}
	return nil
}

// track notes that a connection of HTTP/2 begins or ends; false: it may not begin.
func (s *Server) track(c *h2Conn, begins bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !begins {
		delete(s.open, c)
		s.conns.Done()
		return true
	}
	if s.stopping {
		return false
	}
	s.open[c] = struct{}{}
	s.conns.Add(1)
	return true
}

// retire has the connections of HTTP/2 end with the requests that are under way.
func (s *Server) retire() {
	s.mu.Lock()
	s.stopping = true
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range open {
		c.retire()
	}
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Has("name"):
		s.serveJSON(w, r)
		return
	case r.Method == http.MethodGet, r.Method == http.MethodHead, r.Method == http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		fail(w, r, "use GET or POST (RFC 8484 section 4.1)", http.StatusMethodNotAllowed)
		return
	}
	buf := s.buffer()
	defer s.buffers.Put(buf)
	query, status, reason := readQuery(r, buf[:0])
	if status != 0 {
		fail(w, r, reason, status)
		return
	}
	reply, ok := s.exchange(r, query)
	if !ok {
		fail(w, r, noQuery, http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", typeMessage)
	h.Set("Content-Length", strconv.Itoa(len(reply)))
	h.Set("Cache-Control", cacheControl(reply))
	_, _ = w.Write(reply) // the client may have gone
}

// fail answers with an error, once the request's content has come: until then it may
// turn out to be malformed (RFC 9113 section 8.1.1).
func fail(w http.ResponseWriter, r *http.Request, reason string, status int) {
	_, _ = io.CopyN(io.Discard, r.Body, wire.MaxMessage)
	http.Error(w, reason, status)
}

func (s *Server) buffer() *[wire.MaxMessage]byte {
	if b, ok := s.buffers.Get().(*[wire.MaxMessage]byte); ok {
		return b
	}
	return new([wire.MaxMessage]byte)
}

// readQuery takes the query out of a request into buf; a status other than 0 says
// what is wrong.
func readQuery(r *http.Request, buf []byte) (query []byte, status int, reason string) {
	if r.Method != http.MethodPost {
		param := r.URL.Query().Get("dns")
		if param == "" {
			return nil, http.StatusBadRequest, "the parameter dns is missing: a message in base64url (RFC 8484 section 4.1), or name and type for JSON"
		}
		query, err := base64.RawURLEncoding.AppendDecode(buf, []byte(param))
		if err != nil || len(query) > wire.MaxMessage {
			return nil, http.StatusBadRequest, "the parameter dns is no message in base64url without padding (RFC 8484 section 6)"
		}
		return query, 0, ""
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != typeMessage {
		return nil, http.StatusUnsupportedMediaType, "the type must be " + typeMessage
	}
	n, err := io.ReadFull(r.Body, buf[:cap(buf)])
	switch {
	case err == nil: // as long as a message can be, or longer
		if extra, _ := r.Body.Read(make([]byte, 1)); extra > 0 {
			return nil, http.StatusRequestEntityTooLarge, "a message has 65535 octets at most"
		}
	case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		return nil, http.StatusBadRequest, "the message was cut off"
	}
	return buf[:n], 0, ""
}

// exchange answers a message of a request's client.
func (s *Server) exchange(r *http.Request, query []byte) (reply []byte, ok bool) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, false
	}
	var out once
	answered, err := s.cfg.Exchanger.Exchange(r.Context(), query, from, dnsserver.HTTPS, &out)
	return out.msg, answered && err == nil && out.msg != nil
}

// once keeps the one message that answers a request.
type once struct{ msg []byte }

var errTwice = errors.New("doh: a request has one message for an answer")

// WriteMsg implements dnsserver.Writer.
func (o *once) WriteMsg(msg []byte) error {
	if o.msg != nil {
		return errTwice
	}
	o.msg = append([]byte(nil), msg...)
	return nil
}

// Limit implements dnsserver.Writer.
func (o *once) Limit() int { return wire.MaxMessage }

// cacheControl says how long a response may be kept: as long as the least of its
// records (RFC 8484 section 5.1).
func cacheControl(reply []byte) string {
	ttl, ok := wire.LeastTTL(reply)
	if !ok {
		return "no-store"
	}
	return "max-age=" + strconv.FormatUint(uint64(ttl), 10)
}
