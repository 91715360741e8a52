// Package doq answers DNS over QUIC (RFC 9250): a stream a query, by the rules of all
// transports (dnsserver.Server.Exchange).
//
// Connections and streams have limits, each client's and those of all, beyond which they
// are refused and counted; a stream that stalls costs a goroutine for five seconds. The
// library allocates for each: this transport alone is none that allocates nothing.
package doq

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// The error codes (RFC 9250 section 4.3).
const (
	codeNoError       = 0x0
	codeInternal      = 0x1
	codeProtocol      = 0x2
	codeCancelled     = 0x3
	codeExcessiveLoad = 0x4
)

// Limits of a connection.
const (
	idleTimeout   = 30 * time.Second
	streamTimeout = 5 * time.Second // for a query to come whole, and for a message to be taken
	streamsMax    = 128             // at once
)

// Exchanger answers messages: dnsserver.Server.
type Exchanger interface {
	Exchange(ctx context.Context, msg []byte, from netip.AddrPort, t dnsserver.Transport, w dnsserver.Writer) (answered bool, err error)
}

// Config is what a Server needs.
type Config struct {
	Listen    []netip.AddrPort
	Exchanger Exchanger
	// Certificate chooses the certificate for a client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ProxyFrom are dnsserver.Config's: each datagram of these proxies begins with a header of
	// the PROXY protocol; what is answered has none.
	ProxyFrom []netip.Prefix
	// MaxConns and MaxConnsPerIP bound the connections; 0: 2048 and 256. Beyond half of
	// MaxConns clients must first prove their addresses (RFC 9000 section 8.1.2).
	MaxConns, MaxConnsPerIP int
	// MaxStreams bounds the streams of all connections together, each of which has a
	// goroutine; 0: 16384. Those beyond are reset with DOQ_EXCESSIVE_LOAD.
	MaxStreams int
	// Inherited is dnsserver.Config's.
	Inherited func(name string) *os.File
}

// Server listens and answers. Listen, then Run, once each.
type Server struct {
	cfg     Config
	sockets []*net.UDPConn
	refused atomic.Uint64
	badHead atomic.Uint64
	busy    chan struct{} // has an element for each stream at work

	mu   sync.Mutex
	all  int
	byIP map[netip.Addr]int
}

// New checks cfg. It binds nothing.
func New(cfg Config) (*Server, error) {
	if len(cfg.Listen) == 0 || cfg.Exchanger == nil || cfg.Certificate == nil {
		return nil, errors.New("doq: Listen, Exchanger and Certificate must be set")
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 2048
	}
	if cfg.MaxConnsPerIP == 0 {
		cfg.MaxConnsPerIP = 256
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 16384
	}
	if cfg.Inherited == nil {
		cfg.Inherited = func(string) *os.File { return nil }
	}
	return &Server{cfg: cfg, byIP: map[netip.Addr]int{}, busy: make(chan struct{}, cfg.MaxStreams)}, nil
}

// socketName is what the socket of an address is handed over as.
func socketName(listen netip.AddrPort) string { return "dns quic " + listen.String() }

// Listen binds every address or none.
func (s *Server) Listen() error {
	for _, want := range s.cfg.Listen {
		c, err := dnsserver.ListenUDP(want, s.cfg.Inherited(socketName(want)), nil)
		if err != nil {
			for _, c := range s.sockets {
				c.Close()
			}
			s.sockets = nil
			return fmt.Errorf("doq: listening on %s: %w", want, err)
		}
		s.sockets = append(s.sockets, c)
	}
	return nil
}

// Addrs are the addresses bound.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, c := range s.sockets {
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			out = append(out, a.AddrPort())
		}
	}
	return out
}

// Sockets are the bound sockets by name, for a process to follow this one.
func (s *Server) Sockets() map[string]syscall.Conn {
	out := map[string]syscall.Conn{}
	for i, c := range s.sockets {
		out[socketName(s.cfg.Listen[i])] = c
	}
	return out
}

// Refused is how many connections and streams were closed at once, at a limit.
func (s *Server) Refused() uint64 { return s.refused.Load() }

// BadHeaders is how many datagrams of proxies began with no PROXY header.
func (s *Server) BadHeaders() uint64 { return s.badHead.Load() }

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, c := range s.sockets {
		running.Go(func() {
			if err := s.serve(ctx, c); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serve accepts connections on one socket.
func (s *Server) serve(ctx context.Context, c *net.UDPConn) error {
	tr := &quic.Transport{Conn: s.unwrapping(c), VerifySourceAddress: func(net.Addr) bool { return s.crowded() }}
	defer c.Close()
	defer tr.Close()
	ln, err := tr.Listen(
		&tls.Config{GetCertificate: s.cfg.Certificate, NextProtos: []string{"doq"}, MinVersion: tls.VersionTLS13}, // RFC 9250 section 4.1.1
		&quic.Config{
			MaxIdleTimeout: idleTimeout, HandshakeIdleTimeout: streamTimeout,
			MaxIncomingStreams: streamsMax, MaxIncomingUniStreams: -1, // RFC 9250 section 4.2: there are none
			InitialStreamReceiveWindow: wire.MaxMessage + 2, MaxStreamReceiveWindow: wire.MaxMessage + 2,
			// No 0-RTT: a query in it could be sent again by anyone (section 7.1).
		})
	if err != nil {
		return fmt.Errorf("doq: %w", err)
	}
	defer ln.Close()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := ln.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("doq: accepting on %s: %w", c.LocalAddr(), err)
		}
		from, ok := s.admit(conn)
		if !ok {
			s.refused.Add(1)
			_ = conn.CloseWithError(codeExcessiveLoad, "too many connections")
			continue
		}
		conns.Go(func() {
			defer s.leave(from)
			s.answer(ctx, conn, from)
		})
	}
}

func (s *Server) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all > s.cfg.MaxConns/2
}

func (s *Server) admit(conn *quic.Conn) (from netip.AddrPort, ok bool) {
	switch a := conn.RemoteAddr().(type) {
	case *net.UDPAddr:
		from = netip.AddrPortFrom(a.AddrPort().Addr().Unmap().WithZone(""), a.AddrPort().Port())
	case *through:
		from = a.client
	default:
		return netip.AddrPort{}, false
	}
	ip := dnsserver.ClientKey(from.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.cfg.MaxConns || s.byIP[ip] >= s.cfg.MaxConnsPerIP {
		return netip.AddrPort{}, false
	}
	s.all++
	s.byIP[ip]++
	return from, true
}

func (s *Server) leave(from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	ip := dnsserver.ClientKey(from.Addr())
	if s.byIP[ip]--; s.byIP[ip] == 0 {
		delete(s.byIP, ip)
	}
}

// answer answers the streams of one connection until it ends.
func (s *Server) answer(ctx context.Context, conn *quic.Conn, from netip.AddrPort) {
	var streams sync.WaitGroup
	defer streams.Wait()
	defer func() { _ = conn.CloseWithError(codeNoError, "") }() // it may have ended
	for {
		st, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		select {
		case s.busy <- struct{}{}:
		default:
			s.refused.Add(1)
			st.CancelRead(codeExcessiveLoad)
			st.CancelWrite(codeExcessiveLoad)
			continue
		}
		streams.Go(func() {
			defer func() { <-s.busy }()
			if !s.exchange(ctx, st, from) {
				_ = conn.CloseWithError(codeProtocol, "no DNS query of RFC 9250")
			}
		})
	}
}

// exchange answers the query of one stream; false: it is none, which ends the
// connection (RFC 9250 section 4.3.3).
func (s *Server) exchange(ctx context.Context, st *quic.Stream, from netip.AddrPort) bool {
	_ = st.SetReadDeadline(time.Now().Add(streamTimeout)) // fails only once closed
	query, err := read(st)
	if err != nil {
		st.CancelRead(codeCancelled)
		st.CancelWrite(codeCancelled)
		return !errors.Is(err, errProtocol)
	}
	answered, err := s.cfg.Exchanger.Exchange(ctx, query, from, dnsserver.QUIC, &writer{st})
	if !answered || err != nil {
		st.CancelWrite(codeInternal)
		return answered
	}
	_ = st.Close()
	return true
}

var errProtocol = errors.New("a stream is one query behind its length, with id 0, and ends")

// read reads the query of a stream (RFC 9250 sections 4.2 and 4.2.1).
func read(st io.Reader) ([]byte, error) {
	var prefix [2]byte
	if _, err := io.ReadFull(st, prefix[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errProtocol
		}
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(prefix[:]))
	switch _, err := io.ReadFull(st, msg); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errProtocol
	case err != nil:
		return nil, err
	}
	if n, err := st.Read(prefix[:1]); n > 0 || err == nil {
		return nil, errProtocol // more than one query
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(msg) < wire.HeaderSize || msg[0] != 0 || msg[1] != 0 {
		return nil, errProtocol
	}
	return msg, nil
}

// writer writes the responses of one stream.
type writer struct{ st *quic.Stream }

// WriteMsg implements dnsserver.Writer.
func (w *writer) WriteMsg(msg []byte) error {
	if len(msg) > wire.MaxMessage {
		return fmt.Errorf("message of %d octets: a stream takes %d", len(msg), wire.MaxMessage)
	}
	if err := w.st.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	_, err := w.st.Write(append(framed, msg...))
	return err
}

// Limit implements dnsserver.Writer.
func (w *writer) Limit() int { return wire.MaxMessage }
