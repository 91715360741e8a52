//go:build linux

package l4_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/lb/proxyproto"
)

// loopback are the networks that tests trust to write PROXY headers.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/9")}

// tellEnds says what a PROXY header says, then what comes.
func tellEnds(c *net.TCPConn) {
	var b []byte
	for {
		one := make([]byte, 1)
		if _, err := c.Read(one); err != nil {
			return
		}
		b = append(b, one...)
		h, _, err := proxyproto.Parse(b)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(c, h.Source.String()+" "+h.Dest.String()+"\n") // the test sees what is missing
		echo(c)
		return
	}
}

func TestProxy_WritesProxyHeaders(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, tellEnds).Addr())
	p := e.start(func(c *l4.Config) { c.ProxyTo = true })
	c := p.dial()
	hear(t, c, c.LocalAddr().String()+" "+c.RemoteAddr().String()+"\n") // before the client says a word
	say(t, c, "hello\n")
	c = p.dial()
	if _, err := io.WriteString(c, "first\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, c, c.LocalAddr().String()+" "+c.RemoteAddr().String()+"\nfirst\n")

	wildcard := e.start(func(c *l4.Config) { c.ProxyTo, c.Listen = true, netip.MustParseAddrPort("[::]:0") })
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), wildcard.Addr().Port()).String()
	c = dialFrom(t, "127.0.0.8", to)
	hear(t, c, c.LocalAddr().String()+" "+to+"\n")
}

func TestProxy_ReadsProxyHeaders(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, tellEnds).Addr())
	p := e.start(func(c *l4.Config) { c.ProxyTo, c.ProxyFrom, c.ConnsPerClient = true, loopback, 2 })
	ends := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1234"), Dest: netip.MustParseAddrPort("198.51.100.2:80")}
	v2, local := string(ends.AppendV2(nil)), string(proxyproto.Header{}.AppendV2(nil))
	const told = "192.0.2.1:1234 198.51.100.2:80\n"
	for _, header := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\n", v2} {
		c := p.dial()
		if _, err := io.WriteString(c, header+"hello\n"); err != nil {
			t.Fatal(err)
		}
		hear(t, c, told+"hello\n")
		say(t, c, "more\n")
		c.Close()
		p.idle()
		slow := p.dial()
		for _, b := range []byte(header) {
			if _, err := slow.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		hear(t, slow, told)
		slow.Close()
		p.idle()
	}
	for _, header := range []string{"PROXY UNKNOWN\r\n", local} { // a check of the proxy before: its own ends
		c := p.dial()
		if _, err := io.WriteString(c, header); err != nil {
			t.Fatal(err)
		}
		hear(t, c, c.LocalAddr().String()+" "+c.RemoteAddr().String()+"\n")
	}
	// Counted as the client that the header names.
	for range 2 {
		c := p.dial()
		if _, err := io.WriteString(c, v2); err != nil {
			t.Fatal(err)
		}
		hear(t, c, told)
	}
	c := p.dial()
	if _, err := io.WriteString(c, v2); err != nil {
		t.Fatal(err)
	}
	wantEnding(t, c, "reset")
	p.count("refused", func(s l4.Stats) uint64 { return s.RefusedOne }, 1)
}

// TestProxy_BelievesNoHeaderFromElsewhere: it is what the client says, and
// passed on as that.
func TestProxy_BelievesNoHeaderFromElsewhere(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start(func(c *l4.Config) { c.ProxyFrom, c.ConnsPerClient = loopback, 1 })
	c := dialFrom(t, "127.200.0.1", p.Addr().String())
	say(t, c, "PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\nhello\n")
	p.refused("127.200.0.1") // counted as itself
}

func TestProxy_RefusesWhatIsNoHeader(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start(func(c *l4.Config) { c.ProxyFrom, c.HelloTimeout = loopback, patience })
	brief := e.start(func(c *l4.Config) { c.ProxyFrom, c.HelloTimeout = loopback, 300*time.Millisecond })
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 x\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c\x01\x01\x01\x01\x02\x02\x02\x02\x00\x01\x00\x02"} {
		c := p.dial()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		wantEnding(t, c, "reset")
	}
	p.count("refused", func(s l4.Stats) uint64 { return s.BadHello }, 3)
	silent, slow := brief.dial(), brief.dial()
	if _, err := io.WriteString(slow, "PROXY "); err != nil {
		t.Fatal(err)
	}
	wantEnding(t, silent, "reset")
	wantEnding(t, slow, "reset")
	brief.count("timeouts", func(s l4.Stats) uint64 { return s.HelloTimeout }, 2)
	gone := p.dial()
	gone.Close()
	for _, p := range []*proxy{p, brief} {
		p.idle()
		if s := p.Stats(); s.Connected != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

// tlsServer greets with its name.
func tlsServer(t *testing.T, name string) *backend {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return serve(t, func(c *net.TCPConn) {
		s := tls.Server(c, cfg)
		if s.Handshake() != nil {
			return // the test sees what is missing
		}
		_, _ = io.WriteString(s, name+" hears "+s.ConnectionState().ServerName+"\n")
		hold(c)
	})
}

func TestProxy_RoutesByServerName(t *testing.T) {
	e := newEnv(t)
	to := func(service string) dispatch.Ref { return dispatch.Ref{Source: 1, Service: service} }
	for _, name := range []string{"exact", "below", "deep"} {
		e.add(name+"/a", tlsServer(t, name).Addr())
	}
	e.add("web/a", serve(t, echo).Addr())
	names := []l4.NameRoute{
		{Names: []string{"Www.example.com", "other.test."}, To: to("exact")},
		{Names: []string{"*.example.com"}, To: to("below")},
		{Names: []string{"*.deep.example.com"}, To: to("deep")},
	}
	p := e.start(func(c *l4.Config) { c.Names = names })
	strict := e.start(func(c *l4.Config) { c.Names, c.Default, c.HelloTimeout = names, dispatch.Ref{}, patience })
	brief := e.start(func(c *l4.Config) { c.Names, c.Default, c.HelloTimeout = names, dispatch.Ref{}, 300*time.Millisecond })
	for name, want := range map[string]string{
		"www.example.com": "exact", "other.test": "exact", "a.example.com": "below", "a.b.example.com": "below",
		"deep.example.com": "below", "a.deep.example.com": "deep", "WWW.EXAMPLE.COM": "exact",
	} {
		for _, p := range []*proxy{p, strict} {
			if x := p.Explain(netip.MustParseAddr("127.0.0.1"), name); x.Ref.Service != want {
				t.Errorf("%s is explained as %+v, want %s", name, x, want)
			}
			c := tls.Client(p.dial(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
			greeting := want + " hears " + name + "\n"
			b := make([]byte, len(greeting))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != greeting {
				t.Errorf("%s: %q, %v; want %q", name, b, err, greeting)
			}
		}
	}
	say(t, p.dial(), "SSH-2.0-test\r\n") // no TLS: the default
	for _, text := range []string{"SSH-2.0-test\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01x", "\x16\x03\x01\x00\x00"} {
		c := strict.dial()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		wantEnding(t, c, "reset")
	}
	wantEnding(t, brief.dial(), "reset") // silent
	brief.count("timeouts", func(s l4.Stats) uint64 { return s.HelloTimeout }, 1)
	strict.count("without a route", func(s l4.Stats) uint64 { return s.Unrouted }, 1)
	strict.count("that are no TLS", func(s l4.Stats) uint64 { return s.BadHello }, 2)
	if x := strict.Explain(netip.MustParseAddr("127.0.0.1"), "nobody.test"); x.Instance != "" || x.Why == "" {
		t.Errorf("explained %+v", x)
	}
}

func TestNew_SaysWhatCannotBe(t *testing.T) {
	e := newEnv(t)
	for want, change := range map[string]func(*l4.Config){
		"l4: listener test: no Dispatcher":                                   func(c *l4.Config) { c.Dispatcher = nil },
		"l4: listener test: no address to listen on":                         func(c *l4.Config) { c.Listen = netip.AddrPort{} },
		"l4: listener test: 300 workers: must be 0 to 256":                   func(c *l4.Config) { c.Workers = 300 },
		"l4: listener test: 9 retries: must be -1 to 8":                      func(c *l4.Config) { c.Retries = 9 },
		"l4: listener test: a limit of connections is negative":              func(c *l4.Config) { c.ConnsMax = -1 },
		"l4: listener test: idle timeout -1s is negative":                    func(c *l4.Config) { c.IdleTimeout = -time.Second },
		"l4: listener test: names and PROXY headers are for TCP":             func(c *l4.Config) { c.UDP, c.ProxyTo = true, true },
		"l4: listener test: transparent mode is for TCP":                     func(c *l4.Config) { c.UDP, c.Transparent = true, true },
		"l4: listener test: keeping the port needs transparent mode":         func(c *l4.Config) { c.KeepPort = true },
		"l4: listener test: no service to forward to":                        func(c *l4.Config) { c.Default = dispatch.Ref{} },
		"l4: listener test: a service to forward to has no name":             func(c *l4.Config) { c.Default = dispatch.Ref{Source: 1} },
		`l4: listener test: name "*.*.a": want a host name or *. before one`: func(c *l4.Config) { c.Names = []l4.NameRoute{{Names: []string{"*.*.a"}, To: web}} },
		`l4: listener test: name "A.test" is routed twice`:                   func(c *l4.Config) { c.Names = []l4.NameRoute{{Names: []string{"a.test", "A.test"}, To: web}} },
	} {
		cfg := l4.Config{Name: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Dispatcher: e.dispatch, Default: web}
		change(&cfg)
		if _, err := l4.New(cfg); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	first := e.newProxy()
	defer first.Close()
	p, err := l4.New(l4.Config{Name: "second", Listen: first.Addr(), Dispatcher: e.dispatch, Default: web})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Listen(); err == nil {
		t.Errorf("two listeners have %s", first.Addr())
	}
}
