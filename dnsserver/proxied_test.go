package dnsserver_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/lb/proxyproto"
)

// A proxy that is trusted says whose queries it passes on, over UDP, TCP and TLS; all
// others are taken for themselves, and what they put before a query is no query.
func TestServer_ProxyFrom(t *testing.T) {
	trusted := func(c *dnsserver.Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	s, tlsAddr, config := startTLS(t, dnstest.Echo{}, trusted)
	header := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.7:1234"), Dest: netip.MustParseAddrPort("192.0.2.53:53")}.AppendV2(nil)
	local := proxyproto.Header{}.AppendV2(nil)
	answered := func(what string, msg []byte, want string) {
		t.Helper()
		m := dnstest.Unpack(t, msg)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want {
			t.Errorf("%s: %v, want the client %s", what, m, want)
		}
	}
	for what, c := range map[string]struct {
		header []byte
		want   string
	}{"a client": {header, "192.0.2.7"}, "the proxy's own check": {local, "127.0.0.1"}, "version 1": {[]byte("PROXY TCP4 192.0.2.8 192.0.2.53 1 53\r\n"), "192.0.2.8"}} {
		answered(what+" over UDP", s.Exchange(t, "udp", append(append([]byte(nil), c.header...), query(t, 1)...)), c.want)
		for name, network := range map[string]string{"TCP": s.Addr.String(), "TLS": tlsAddr} {
			conn, err := net.Dial("tcp", network)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if name == "TCP" {
				send(t, conn, append(append([]byte(nil), c.header...), frame(query(t, 1))...))
			} else {
				send(t, conn, c.header)
				conn = tls.Client(conn, config)
				send(t, conn, frame(query(t, 1)))
			}
			msg, err := dnstest.ReadMsg(conn)
			if err != nil {
				t.Fatalf("%s over %s: %v", what, name, err)
			}
			answered(what+" over "+name, msg, c.want)
		}
	}
	s.Silent(t, "udp", query(t, 2))
	c := dial(t, s, "tcp")
	send(t, c, frame(query(t, 3)))
	wantClosed(t, c)
	eventually(t, "both are counted as without a header", func() bool { return s.Server.Stats().BadHeaders == 2 })
	t.Run("who is not trusted is nobody else", func(t *testing.T) {
		s := dnstest.Start(t, dnstest.Echo{})
		answered("without a header", s.Exchange(t, "udp", query(t, 1)), "127.0.0.1")
		m := dnstest.Unpack(t, s.Exchange(t, "udp", append(append([]byte(nil), header...), query(t, 1)...)))
		if m.Rcode == dns.RcodeSuccess {
			t.Errorf("with one: %v", m)
		}
	})
}
