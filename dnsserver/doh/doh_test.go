package doh_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doh"
	"github.com/musterdns/muster/dnsserver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// address answers questions for "no" with NODATA, and all others with an address.
type address struct{}

func (address) ServeDNS(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	b.SetAA(true)
	if from.Transport != dnsserver.HTTPS {
		b.SetRCode(wire.RCodeRefused)
		return dnsserver.Send
	}
	if string(q.Name.Label(0)) == "slow" {
		return dnsserver.Defer
	}
	if string(q.Name.Label(0)) == "no" {
		soa := append([]byte("\x02ns\x00\x04root\x00"), make([]byte, 20)...)
		soa[len(soa)-1] = 2
		b.RR(wire.Authority, wire.RefQName, wire.TypeSOA, wire.ClassIN, 60, soa)
		return dnsserver.Send
	}
	b.A(wire.Answer, wire.RefQName, 7, [4]byte{192, 0, 2, 1})
	return dnsserver.Send
}

// ServeSlow answers twice, of which the second fails.
func (address) ServeSlow(_ context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error {
	var q wire.Query
	wire.ParseQuery(query, &q)
	var b wire.Builder
	from.Start(&b, make([]byte, 512), &q, 512)
	if err := w.WriteMsg(b.Finish()); err != nil {
		return err
	}
	if w.WriteMsg(b.Finish()) == nil {
		panic("a request has two answers")
	}
	return nil
}

// start runs a server until the test ends, and returns its URL and a client.
func start(t *testing.T, edit ...func(*doh.Config)) (string, *http.Client, *doh.Server) {
	t.Helper()
	url, c, s, _ := startStop(t, edit...)
	return url, c, s
}

// startStop is start, with what stops the server before.
func startStop(t *testing.T, edit ...func(*doh.Config)) (_ string, _ *http.Client, _ *doh.Server, stop func()) {
	t.Helper()
	cert, roots := dnstest.Certificate(t)
	d := dnstest.Start(t, address{}, func(c *dnsserver.Config) { c.Slow = address{} })
	cfg := doh.Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Exchanger: d.Server,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
	}
	for _, f := range edit {
		f(&cfg)
	}
	s, err := doh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "dns.test"}, ForceAttemptHTTP2: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "https://" + s.Addrs()[0].String() + doh.Path, &http.Client{Transport: transport}, s, cancel
}

func packed(t *testing.T, name string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Id = 0
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do sends a request, and returns the response with its body read.
func do(t *testing.T, c *http.Client, method, url, contentType string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

const message = "application/dns-message"

func TestServer_Messages(t *testing.T) {
	url, c, _ := start(t)
	query := packed(t, "www.example.")
	param := "?dns=" + base64.RawURLEncoding.EncodeToString(query)
	for _, tt := range []struct {
		what, method, url, typ string
		body                   []byte
		answers                int
		cache                  string
	}{
		{"POST", http.MethodPost, url, message, query, 1, "max-age=7"},
		{"GET", http.MethodGet, url + param, "", nil, 1, "max-age=7"},
		{"a negative answer is kept as its SOA says", http.MethodPost, url, message, packed(t, "no.example."), 0, "max-age=2"},
		{"what is deferred", http.MethodPost, url, message, packed(t, "slow.example."), 0, "no-store"},
	} {
		resp, body := do(t, c, tt.method, tt.url, tt.typ, tt.body)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != message || resp.ProtoMajor != 2 {
			t.Errorf("%s: %s %s, %s", tt.what, resp.Proto, resp.Status, body)
			continue
		}
		m := dnstest.Unpack(t, body)
		if len(m.Answer) != tt.answers || resp.Header.Get("Cache-Control") != tt.cache {
			t.Errorf("%s: %q, %v", tt.what, resp.Header.Get("Cache-Control"), m)
		}
	}
	resp, body := do(t, c, http.MethodHead, url+param, "", nil)
	if resp.StatusCode != http.StatusOK || len(body) != 0 {
		t.Errorf("HEAD: %s with %d octets", resp.Status, len(body))
	}
}

func TestServer_Refuses(t *testing.T) {
	url, c, _ := start(t)
	for _, tt := range []struct {
		what, method, url, typ string
		body                   []byte
		status                 int
	}{
		{"no query", http.MethodGet, url, "", nil, http.StatusBadRequest},
		{"no base64url", http.MethodGet, url + "?dns=a/b=", "", nil, http.StatusBadRequest},
		{"no message", http.MethodGet, url + "?dns=AAAA", "", nil, http.StatusBadRequest},
		{"a response", http.MethodPost, url, message, []byte("\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00"), http.StatusBadRequest},
		{"another type", http.MethodPost, url, "text/plain", packed(t, "www.example."), http.StatusUnsupportedMediaType},
		{"too much", http.MethodPost, url, message, make([]byte, 70000), http.StatusRequestEntityTooLarge},
		{"another method", http.MethodPut, url, message, packed(t, "www.example."), http.StatusMethodNotAllowed},
		{"another path", http.MethodGet, strings.TrimSuffix(url, doh.Path) + "/", "", nil, http.StatusNotFound},
		{"a bad name", http.MethodGet, url + "?name=a..b", "", nil, http.StatusBadRequest},
		{"a bad type", http.MethodGet, url + "?name=www.example&type=NOSUCH", "", nil, http.StatusBadRequest},
	} {
		if resp, body := do(t, c, tt.method, tt.url, tt.typ, tt.body); resp.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d: %s", tt.what, resp.Status, tt.status, body)
		}
	}
	resp, _ := do(t, c, http.MethodPost, url, message, []byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	if resp.StatusCode != http.StatusOK { // a query, if a bad one: DNS has the word for that
		t.Errorf("a malformed query: %s, want 200 with FORMERR (RFC 8484 section 4.2.1)", resp.Status)
	}
}

func TestServer_JSON(t *testing.T) {
	url, c, _ := start(t)
	resp, body := do(t, c, http.MethodGet, url+"?name=www.example&type=A", "", nil)
	var got struct {
		Status   int
		AD       bool
		Question []struct {
			Name string
			Type int
		}
		Answer []struct {
			Name, Data string
			Type, TTL  int
		}
	}
	if err := json.Unmarshal(body, &got); err != nil || resp.Header.Get("Content-Type") != "application/dns-json" {
		t.Fatalf("%s %s: %v", resp.Header.Get("Content-Type"), body, err)
	}
	if got.Status != 0 || len(got.Answer) != 1 || got.Answer[0].Data != "192.0.2.1" || got.Answer[0].TTL != 7 || got.Question[0].Name != "www.example." {
		t.Errorf("%s", body)
	}
	if cc := resp.Header.Get("Cache-Control"); cc != "max-age=7" {
		t.Errorf("Cache-Control %q", cc)
	}
}

func TestServer_BoundsConnections(t *testing.T) {
	url, c, s := start(t, func(c *doh.Config) { c.MaxConnsPerIP = 1 })
	do(t, c, http.MethodGet, url+"?name=www.example", "", nil)
	second := &http.Transport{TLSClientConfig: c.Transport.(*http.Transport).TLSClientConfig.Clone()}
	defer second.CloseIdleConnections()
	resp, err := (&http.Client{Transport: second}).Get(url + "?name=www.example")
	if err == nil {
		resp.Body.Close()
		t.Error("a second connection is let in")
	}
	if s.Refused() == 0 {
		t.Error("it is not counted")
	}
}
