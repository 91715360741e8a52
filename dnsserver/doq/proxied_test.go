package doq_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doq"
	"github.com/musterdns/muster/lb/proxyproto"
)

// heading is a socket that puts a header before every datagram, as a proxy does.
type heading struct {
	net.PacketConn
	header []byte
}

func (h *heading) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := h.PacketConn.WriteTo(append(append([]byte(nil), h.header...), b...), to)
	return n - len(h.header), err
}

// A proxy that is trusted says whose datagrams it passes on; what is answered goes to it.
func TestServer_ProxyFrom(t *testing.T) {
	trusted := func(c *doq.Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	e := dnstest.StartEverywhere(t, dnstest.Echo{}, trusted)
	client := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.7:1234"), Dest: netip.MustParseAddrPort("192.0.2.53:853"), Datagram: true}.AppendV2(nil)
	for _, tt := range []struct {
		what   string
		header []byte
		from   string
		want   string
	}{
		{"a client", client, "127.0.0.1:0", "192.0.2.7"},
		{"another of the same proxy", proxyproto.Header{}.AppendV2(nil), "127.0.0.1:0", "127.0.0.1"},
		{"who is no proxy", nil, "127.0.0.2:0", "127.0.0.2"},
	} {
		udp, err := net.ListenPacket("udp4", tt.from)
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: &heading{udp, tt.header}}
		t.Cleanup(func() { tr.Close(); udp.Close() })
		config := e.ClientTLS()
		config.NextProtos, config.MinVersion = []string{"doq"}, tls.VersionTLS13
		c, err := tr.Dial(t.Context(), net.UDPAddrFromAddrPort(e.QUIC), config, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		got, err := ask(t, c, framed(t, 0), true)
		if err != nil || len(got) < 2 {
			t.Fatalf("%s: %x, %v", tt.what, got, err)
		}
		if m := dnstest.Unpack(t, got[2:]); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != tt.want {
			t.Errorf("%s: %v, want the client %s", tt.what, m, tt.want)
		}
		_ = c.CloseWithError(0, "")
	}
	if n := e.DoQ.BadHeaders(); n != 0 {
		t.Errorf("%d headers bad", n)
	}
	udp, err := net.Dial("udp4", e.QUIC.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := udp.Write(make([]byte, 1200)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); e.DoQ.BadHeaders() != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d headers bad, want 1", e.DoQ.BadHeaders())
		}
		runtime.Gosched()
	}
}
