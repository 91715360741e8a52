package dnstest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/doh"
	"github.com/musterdns/muster/dnsserver/doq"
)

// Transports are all transports by name, as dnsserver.Transport has them.
func Transports() []string { return []string{"udp", "tcp", "tls", "https", "quic"} }

// Everywhere is a server that answers over every transport.
type Everywhere struct {
	*Server
	TLS, HTTPS, QUIC netip.AddrPort
	Roots            *x509.CertPool // of the certificate, which is for dns.test
	DoQ              *doq.Server
	test             testing.TB
}

// StartEverywhere is Start, over every transport. editQUIC, if not nil, changes the
// configuration of that.
func StartEverywhere(t testing.TB, h dnsserver.Handler, editQUIC func(*doq.Config), edit ...func(*dnsserver.Config)) *Everywhere {
	t.Helper()
	cert, roots := Certificate(t)
	certificate := shown(cert)
	free := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	s := Start(t, h, append(edit, func(c *dnsserver.Config) { c.TLS, c.Certificate = free, certificate })...)
	web, err := doh.New(doh.Config{Listen: free, Exchanger: s.Server, Certificate: certificate})
	if err != nil {
		t.Fatal(err)
	}
	cfg := doq.Config{Listen: free, Exchanger: s.Server, Certificate: certificate}
	if editQUIC != nil {
		editQUIC(&cfg)
	}
	quick, err := doq.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []interface {
		Listen() error
		Run(ctx context.Context) error
	}{web, quick} {
		if err := other.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- other.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return &Everywhere{s, s.Server.TLSAddrs()[0], web.Addrs()[0], quick.Addrs()[0], roots, quick, t}
}

// shown has every client shown one certificate.
func shown(cert *tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
}

// Carrier carries messages of one goroutine over one transport. It connects when it has
// to, and again when the server has closed the connection.
type Carrier struct {
	e    *Everywhere
	name string
	conn net.Conn    // UDP, TCP and TLS; nil: none
	quic *quic.Conn  // QUIC; nil: none
	http http.Client // HTTPS
}

// Carrier makes a carrier of a transport by its name. It ends with the test.
func (e *Everywhere) Carrier(name string) *Carrier {
	c := &Carrier{e: e, name: name}
	if name == "https" {
		c.http.Transport = &http.Transport{TLSClientConfig: e.ClientTLS(), ForceAttemptHTTP2: true}
		c.http.Timeout = patience
	}
	e.test.Cleanup(c.Close)
	return c
}

// ClientTLS is how a client speaks TLS with the server, without a protocol (ALPN).
func (e *Everywhere) ClientTLS() *tls.Config {
	return &tls.Config{RootCAs: e.Roots, ServerName: "dns.test", MinVersion: tls.VersionTLS12}
}

// Close ends the connection.
func (c *Carrier) Close() {
	if c.conn != nil {
		c.conn.Close()
	}
	if c.quic != nil {
		_ = c.quic.CloseWithError(0, "")
	}
	c.http.CloseIdleConnections()
	c.conn, c.quic = nil, nil
}

// Exchange sends a message as it is, and returns what answers it; nil: nothing does,
// or the connection is closed for it. Answers must come at once, not be deferred. Over
// QUIC a query has id 0 (RFC 9250 section 4.2.1). An error is the test's, or says that
// the server does not answer any more.
func (c *Carrier) Exchange(ctx context.Context, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch c.name {
	case "https":
		return c.post(ctx, msg)
	case "quic":
		return c.stream(ctx, msg)
	}
	return c.inOrder(ctx, msg)
}

// inOrder sends a query behind the message that has an answer in any case: it comes
// after the message's, so that a message without one costs no waiting.
func (c *Carrier) inOrder(ctx context.Context, msg []byte) ([]byte, error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	last := []byte("\xff\xff\x78\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01") // opcode 15: NOTIMP
	if bytes.HasPrefix(msg, last[:2]) {
		last[0] = 0
	}
	if c.name == "udp" {
		return c.datagrams(msg, last)
	}
	both := append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	both = append(binary.BigEndian.AppendUint16(both, uint16(len(last))), last...)
	_, err := c.conn.Write(both)
	var reply []byte
	for err == nil {
		var got []byte
		if got, err = ReadMsg(c.conn); err == nil && bytes.HasPrefix(got, last[:2]) {
			return reply, nil
		}
		reply = got
	}
	c.Close()
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return nil, fmt.Errorf("%s: no answer and no end: %w", c.name, err)
	}
	return nil, nil // closed, in whichever way
}

func (c *Carrier) datagrams(msg, last []byte) ([]byte, error) {
	for _, m := range [][]byte{msg, last} {
		if _, err := c.conn.Write(m); err != nil {
			return nil, err
		}
	}
	var reply []byte
	buf := make([]byte, 65535)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(buf[:n], last[:2]) {
			return reply, nil
		}
		reply = bytes.Clone(buf[:n])
	}
}

func (c *Carrier) dial(ctx context.Context) (err error) {
	var d net.Dialer
	switch c.name {
	case "udp", "tcp":
		c.conn, err = d.DialContext(ctx, c.name, c.e.Addr.String())
	case "tls":
		config := c.e.ClientTLS()
		config.NextProtos = []string{"dot"}
		c.conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", c.e.TLS.String())
	default:
		err = fmt.Errorf("no transport %q", c.name)
	}
	return err
}

// post sends a message as the content of a request (RFC 8484 section 4.1).
func (c *Carrier) post(ctx context.Context, msg []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.e.HTTPS.String()+doh.Path, bytes.NewReader(msg))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/dns-message")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, err
	}
	return body, nil
}

// DialQUIC makes a connection, which is the caller's to close.
func (e *Everywhere) DialQUIC(ctx context.Context) (*quic.Conn, error) {
	config := e.ClientTLS()
	config.NextProtos = []string{"doq"}
	return quic.DialAddr(ctx, e.QUIC.String(), config, nil)
}

// stream sends a message on a stream of its own (RFC 9250 section 4.2).
func (c *Carrier) stream(ctx context.Context, msg []byte) ([]byte, error) {
	if c.quic == nil || c.quic.Context().Err() != nil {
		conn, err := c.e.DialQUIC(ctx)
		if err != nil {
			return nil, err
		}
		c.quic = conn
	}
	st, err := c.quic.OpenStreamSync(ctx)
	if err != nil {
		return nil, ctx.Err() // closed for the message before: what the next connection shows
	}
	if err := st.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := st.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return nil, ctx.Err()
	}
	st.Close()
	reply, err := io.ReadAll(st)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout() && c.quic.Context().Err() == nil:
		return nil, fmt.Errorf("quic: no answer and no end: %w", err)
	case err != nil || len(reply) == 0:
		return nil, nil // reset, or the connection is closed
	case len(reply) < 2 || int(binary.BigEndian.Uint16(reply)) != len(reply)-2:
		return nil, fmt.Errorf("quic: not one message behind its length: %x", reply)
	}
	return reply[2:], nil
}
