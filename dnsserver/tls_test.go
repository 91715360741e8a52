package dnsserver_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
)

// startTLS runs a server that answers over TLS too, and returns where, and how a
// client connects.
func startTLS(t *testing.T, h dnsserver.Handler, edit ...func(*dnsserver.Config)) (*dnstest.Server, string, *tls.Config) {
	t.Helper()
	cert, roots := dnstest.Certificate(t)
	s := dnstest.Start(t, h, append(edit, func(c *dnsserver.Config) {
		c.TLS = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		c.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	})...)
	return s, s.Server.TLSAddrs()[0].String(), &tls.Config{RootCAs: roots, ServerName: "dns.test", NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS12}
}

func TestServer_TLS(t *testing.T) {
	s, addr, config := startTLS(t, handlerFunc(address))
	t.Run("answers what is pipelined", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := c.ConnectionState().NegotiatedProtocol; p != "dot" {
			t.Errorf("ALPN %q, want dot (RFC 7858 section 3.2)", p)
		}
		var all []byte
		for id := range uint16(100) {
			all = append(all, frame(query(t, id))...)
		}
		send(t, c, all)
		for id := range uint16(100) {
			if got := readID(t, c); got != id {
				t.Fatalf("answer %d has id %d", id, got)
			}
		}
	})
	t.Run("pads when the client does", func(t *testing.T) {
		m := new(dns.Msg)
		m.SetQuestion("www.example.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 32)})
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send(t, c, frame(packed))
		if r, err := dnstest.ReadMsg(c); err != nil || len(r)%468 != 0 {
			t.Errorf("%d octets, %v: want a multiple of 468 (RFC 8467 section 4.1)", len(r), err)
		}
	})
	t.Run("is counted by itself", func(t *testing.T) {
		st := s.Server.Stats()
		if st.TLS.Received != 101 || st.TCP.Received != 0 {
			t.Errorf("%d over TLS, %d over TCP", st.TLS.Received, st.TCP.Received)
		}
	})
	t.Run("has no words for those who speak another protocol", func(t *testing.T) {
		other := config.Clone()
		other.NextProtos = []string{"h2"}
		if c, err := tls.Dial("tcp", addr, other); err == nil {
			c.Close()
			t.Error("a client that wants h2 is let in")
		}
	})
}

func TestServer_TLS_Timeouts(t *testing.T) {
	s, addr, _ := startTLS(t, handlerFunc(address), func(c *dnsserver.Config) { c.FirstByteTimeout = 200 * time.Millisecond })
	for _, sent := range []string{"", "\x16\x03\x01"} { // nothing, or the beginning of a handshake
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		send(t, c, []byte(sent))
		wantClosed(t, c)
	}
	if n := s.Server.Stats().ConnsTimedOut; n != 2 {
		t.Errorf("%d connections timed out, want 2", n)
	}
}

func TestServer_TLS_IdleMakesRoom(t *testing.T) {
	_, addr, config := startTLS(t, handlerFunc(address), func(c *dnsserver.Config) { c.MaxConns, c.IdleTimeout = 2, time.Hour })
	var first *tls.Conn
	for i := range 3 {
		c, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		send(t, c, frame(query(t, uint16(i))))
		readID(t, c)
		if i == 0 {
			first = c
		}
	}
	if err := first.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection that was idle longest is kept: %v", err)
	}
}
