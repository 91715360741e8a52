package doq_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doq"
	"github.com/musterdns/muster/dnsserver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type handler struct{}

func (handler) ServeDNS(b *wire.Builder, _ *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	if from.Transport == dnsserver.QUIC {
		b.SetAA(true)
		b.A(wire.Answer, wire.RefQName, 7, [4]byte{192, 0, 2, 1})
	}
	return dnsserver.Send
}

// start runs a server until the test ends, and connects.
func start(t *testing.T) (*quic.Conn, *doq.Server) {
	t.Helper()
	cert, roots := dnstest.Certificate(t)
	d := dnstest.Start(t, handler{})
	s, err := doq.New(doq.Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Exchanger: d.Server, MaxConnsPerIP: 1,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := quic.DialAddr(t.Context(), s.Addrs()[0].String(), &tls.Config{RootCAs: roots, ServerName: "dns.test", NextProtos: []string{"doq"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.CloseWithError(0, "")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c, s
}

// framed is a query with an id behind its length.
func framed(t *testing.T, id uint16) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("www.example.", dns.TypeA)
	m.Id = id
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// ask opens a stream, sends octets, ends it if fin is set, and reads what comes.
func ask(t *testing.T, c *quic.Conn, octets []byte, fin bool) ([]byte, error) {
	t.Helper()
	st, err := c.OpenStreamSync(t.Context())
	if err != nil {
		return nil, err
	}
	if err := st.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(octets); err != nil {
		return nil, err
	}
	if fin {
		st.Close()
	}
	return io.ReadAll(st)
}

func TestServer(t *testing.T) {
	c, _ := start(t)
	for range 3 { // one connection, many streams
		got, err := ask(t, c, framed(t, 0), true)
		if err != nil || len(got) < 2 || int(binary.BigEndian.Uint16(got)) != len(got)-2 {
			t.Fatalf("%x, %v", got, err)
		}
		if m := dnstest.Unpack(t, got[2:]); m.Id != 0 || len(m.Answer) != 1 || !m.Authoritative {
			t.Errorf("%v", m)
		}
	}
}

// RFC 9250 section 4.3.3: what breaks the protocol ends the connection.
func TestServer_ProtocolErrors(t *testing.T) {
	for what, octets := range map[string][]byte{
		"an id that is not 0":     framed(t, 7),
		"two queries in a stream": append(framed(t, 0), framed(t, 0)...),
		"half a query":            framed(t, 0)[:20],
		"no query at all":         nil,
		"a response":              {0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(what, func(t *testing.T) {
			c, _ := start(t)
			got, _ := ask(t, c, octets, true)
			if len(got) != 0 {
				t.Errorf("it is answered: %x", got)
			}
			var app *quic.ApplicationError
			<-c.Context().Done()
			if err := context.Cause(c.Context()); !errors.As(err, &app) || app.ErrorCode != 2 {
				t.Errorf("the connection ends with %v, want DOQ_PROTOCOL_ERROR", err)
			}
		})
	}
}

func TestServer_BoundsConnections(t *testing.T) {
	c, s := start(t)
	if _, err := ask(t, c, framed(t, 0), true); err != nil { // the server has it counted now
		t.Fatal(err)
	}
	second, err := quic.DialAddr(t.Context(), s.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"doq"}}, nil)
	if err == nil {
		<-second.Context().Done()
	}
	if s.Refused() != 1 {
		t.Errorf("%d connections refused, want 1", s.Refused())
	}
	if _, err := ask(t, c, framed(t, 0), true); err != nil {
		t.Errorf("the first is disturbed: %v", err)
	}
}
