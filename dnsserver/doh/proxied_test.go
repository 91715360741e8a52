package doh_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doh"
	"github.com/musterdns/muster/lb/proxyproto"
)

// through is a client whose connections begin with a header, over one version of HTTP.
func through(t *testing.T, c *http.Client, header []byte, version int) *http.Client {
	t.Helper()
	base, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("%T", c.Transport)
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: base.TLSClientConfig.RootCAs, ServerName: base.TLSClientConfig.ServerName, MinVersion: tls.VersionTLS12},
		Protocols:       new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetHTTP2(version == 2)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err == nil {
			_, err = conn.Write(header)
		}
		return conn, err
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// A proxy that is trusted says whose connections it passes on, before TLS, over either
// version of HTTP; they count to the client that it names.
func TestServer_ProxyFrom(t *testing.T) {
	d := dnstest.Start(t, dnstest.Echo{})
	url, plain, s := start(t, func(c *doh.Config) {
		c.Exchanger, c.ProxyFrom, c.MaxConnsPerIP = d.Server, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 1
	})
	headerOf := func(client string) []byte {
		return proxyproto.Header{Source: netip.MustParseAddrPort(client), Dest: netip.MustParseAddrPort("192.0.2.53:443")}.AppendV2(nil)
	}
	for _, tt := range []struct {
		what    string
		header  []byte
		version int
		want    string
	}{
		{"a client", headerOf("192.0.2.7:1234"), 2, "192.0.2.7"},
		{"a client over HTTP/1.1", headerOf("192.0.2.8:1234"), 1, "192.0.2.8"},
		{"the proxy's own check", proxyproto.Header{}.AppendV2(nil), 2, "127.0.0.1"},
		{"version 1 of the header", []byte("PROXY TCP4 192.0.2.9 192.0.2.53 1 443\r\n"), 2, "192.0.2.9"},
		{"an IPv4 address as one of IPv6", headerOf("[::ffff:192.0.2.10]:1234"), 2, "192.0.2.10"},
	} {
		resp, body := do(t, through(t, plain, tt.header, tt.version), http.MethodPost, url, message, packed(t, "www.example."))
		if m := dnstest.Unpack(t, body); resp.ProtoMajor != tt.version || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != tt.want {
			t.Errorf("%s over %s: %v, want the client %s", tt.what, resp.Proto, m, tt.want)
		}
	}
	if _, err := through(t, plain, headerOf("192.0.2.7:4321"), 2).Get(url); err == nil || s.Refused() != 1 || s.BadHeaders() != 0 {
		t.Errorf("a client's second connection: %v, %d refused, %d headers bad; want 1 refused", err, s.Refused(), s.BadHeaders())
	}
	if _, err := plain.Get(url); err == nil || s.BadHeaders() != 1 {
		t.Errorf("no header: %v, %d headers bad; want 1", err, s.BadHeaders())
	}
	t.Run("who is not trusted is nobody else", func(t *testing.T) {
		url, plain, _ := start(t, func(c *doh.Config) { c.Exchanger = d.Server })
		_, body := do(t, plain, http.MethodPost, url, message, packed(t, "www.example."))
		if m := dnstest.Unpack(t, body); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "127.0.0.1" {
			t.Errorf("without a header: %v", m)
		}
		if _, err := through(t, plain, headerOf("192.0.2.7:1"), 2).Get(url); err == nil {
			t.Error("a header is believed")
		}
	})
}
