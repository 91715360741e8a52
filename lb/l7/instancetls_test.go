package l7_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
)

// authority signs certificates for the tests of this file.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ca   string // the path of its certificate
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.ca = filepath.Join(a.dir, "ca.pem")
	template := a.template(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	var der []byte
	der, a.key = a.sign(template, template, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(a.ca, "CERTIFICATE", der)
	return a
}

func (*authority) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// sign makes a key and a certificate for it; by nil: signed by itself.
func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) write(path, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate for a name and its key, and returns their paths.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	der, secret := a.sign(a.template(name), a.cert, a.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.write(cert, "CERTIFICATE", der)
	a.write(key, "PRIVATE KEY", encoded)
	return cert, key
}

// instance runs an instance over TLS with a certificate for a name until the
// test ends, and returns its address. change may be nil.
func (a *authority) instance(name string, http2 bool, h http.HandlerFunc, change func(*http.Server)) string {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(name))
	if err != nil {
		a.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(http2)
	if change != nil {
		change(s)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = s.ServeTLS(l, "", "") })
	a.t.Cleanup(func() {
		s.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// secure starts a proxy whose routes may name the ways "mesh", by this
// authority, and what is given beside it.
func (a *authority) secure(log io.Writer, ways map[string]l7.InstanceTLSFiles) *rig {
	a.t.Helper()
	return start(a.t, func(c *l7.Config) {
		c.Zones = map[string]registry.SourceID{"svc.internal.": 1}
		c.Limits.Connect = 20 * time.Second // a busy machine's handshake
		c.Limits.Retries = 1
		c.InstanceTLS = map[string]*l7.InstanceTLS{}
		if log != nil {
			c.Log = slog.New(slog.NewTextHandler(log, nil))
		}
		for name, files := range ways {
			t, err := l7.LoadInstanceTLS(files, nil)
			if err != nil {
				a.t.Fatal(err)
			}
			c.InstanceTLS[name] = t
		}
	})
}

// said is a handler that says its name and how it was spoken to.
func said(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %s %d", name, r.Proto, r.TLS.ServerName, n)
	}
}

// TestProxy_InstanceTLS/the service's name is asked for, and what is spoken is
// what the instance agrees to, or what the route says.
func TestProxy_InstanceTLS(t *testing.T) {
	a := newAuthority(t, "mesh")
	r := a.secure(nil, map[string]l7.InstanceTLSFiles{"mesh": {CA: a.ca}, "other": {CA: a.ca, ServerName: "old.example"}})
	r.register("old/a", a.instance("old.svc.internal", false, said("old"), nil), "new/a", a.instance("new.svc.internal", true, said("new"), nil),
		"named/a", a.instance("old.example", false, said("named"), nil))
	r.routes(`old {"service":"old","path":"/old","tls":"mesh"}`, `new {"service":"new","path":"/new","tls":"mesh"}`,
		`one {"service":"new","path":"/one","tls":"mesh","protocol":"http1"}`, `two {"service":"new","path":"/two","tls":"mesh","protocol":"h2"}`,
		`named {"service":"named","path":"/named","tls":"other"}`)
	large := strings.Repeat("x", 1<<20)
	for range 3 { // the first connection, and those that are kept
		for _, c := range []*http.Client{client(t), h2cClient(t)} {
			for path, want := range map[string]string{
				"/old": "old HTTP/1.1 old.svc.internal", "/new": "new HTTP/2.0 new.svc.internal", "/one": "new HTTP/1.1 new.svc.internal",
				"/two": "new HTTP/2.0 new.svc.internal", "/named": "named HTTP/1.1 old.example",
			} {
				for _, body := range []string{"", "small", large} {
					want := fmt.Sprintf("%s %d", want, len(body))
					if resp, got := do(t, c, "POST", r.url(path), body); resp.StatusCode != http.StatusOK || got != want {
						t.Errorf("%s: %d %q, want %q", path, resp.StatusCode, got, want)
					}
				}
			}
		}
	}
	e, err := r.proxy.Explain(l7.Question{URL: r.url("/new")})
	if err != nil || e.Protocol != "HTTP/2 or HTTP/1.1 with TLS as mesh" {
		t.Errorf("explained as %q, %v", e.Protocol, err)
	}
}

// TestProxy_InstanceTLS_bodies/large bodies and WebSockets pass, the latter by
// HTTP/1.1 at an instance that speaks HTTP/2.
func TestProxy_InstanceTLS_bodies(t *testing.T) {
	a := newAuthority(t, "mesh")
	r := a.secure(nil, map[string]l7.InstanceTLSFiles{"mesh": {CA: a.ca}})
	large := strings.Repeat("0123456789abcdef", 1<<16)
	serve := func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") != "" {
			shout("a")(w, req)
			return
		}
		_, _ = io.WriteString(w, req.Proto+large)
	}
	r.register("one/a", a.instance("one.svc.internal", false, serve, nil), "web/a", a.instance("web.svc.internal", true, serve, nil))
	r.routes(`one {"service":"one","path":"/one","tls":"mesh"}`, `two {"service":"web","tls":"mesh"}`)
	for path, want := range map[string]string{"/one": "HTTP/1.1", "/two": "HTTP/2.0"} {
		if resp, got := do(t, client(t), "GET", r.url(path), ""); resp.StatusCode != http.StatusOK || got != want+large {
			t.Errorf("%s: %d, %d octets that begin %.20q", path, resp.StatusCode, len(got), got)
		}
	}
	c, name := r.upgrade(t)
	c.say("hello\n")
	c.line(name + " HELLO")
}

// TestProxy_InstanceTLS_refused/an instance that cannot be trusted gets nothing,
// the client is told why without names, and the log names the instance once.
func TestProxy_InstanceTLS_refused(t *testing.T) {
	a, foreign := newAuthority(t, "mesh"), newAuthority(t, "foreign")
	var asked atomic.Int64
	count := func(http.ResponseWriter, *http.Request) { asked.Add(1) }
	cert, key := a.issue("proxy")
	strict := func(s *http.Server) {
		c := s.TLSConfig
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
	}
	var log buffer
	r := a.secure(&log, map[string]l7.InstanceTLSFiles{
		"mesh": {CA: a.ca}, "system": {}, "insecure": {Insecure: true}, "known": {CA: a.ca, Certificate: cert, Key: key},
	})
	r.register("foreign/f1", foreign.instance("foreign.svc.internal", true, count, nil), "misnamed/m1", a.instance("other.internal", true, count, nil),
		"clear/c1", server(t, count), "strict/s1", a.instance("strict.svc.internal", false, said("strict"), strict),
		"two/t1", a.instance("two.svc.internal", true, said("two"), strict), "old/o1", a.instance("old.svc.internal", false, count, nil))
	refused := []struct{ route, tls, protocol, instance, why string }{
		{"foreign", "mesh", "", "f1", "signed by somebody who is not trusted"},
		{"foreign", "system", "h2", "f1", "signed by somebody who is not trusted"},
		{"misnamed", "mesh", "", "m1", "for other names"},
		{"clear", "mesh", "", "c1", "first record does not look like a TLS handshake"},
		{"strict", "mesh", "", "s1", "certificate required"},
		{"two", "mesh", "h2", "", "the instance"}, // net/http does not always tell the alert
		{"old", "mesh", "h2", "", "does not agree to HTTP/2"},
	}
	for _, test := range refused {
		r.routes(fmt.Sprintf(`r {"service":%q,"tls":%q,"protocol":%q}`, test.route, test.tls, test.protocol))
		for range 2 {
			resp, body := do(t, client(t), "GET", r.url("/"), "")
			if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, test.why) || strings.Contains(body, "127.0.0.1") || strings.Contains(body, "internal") {
				t.Errorf("%s as %s: %d %q", test.route, test.tls, resp.StatusCode, body)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were sent to instances that cannot be trusted", n)
	}
	for _, test := range []struct{ service, tls, want string }{
		{"strict", "known", "strict HTTP/1.1 strict.svc.internal 0"}, {"two", "known", "two HTTP/2.0 two.svc.internal 0"}, {"foreign", "insecure", ""},
	} {
		r.routes(fmt.Sprintf(`r {"service":%q,"tls":%q}`, test.service, test.tls))
		if resp, body := do(t, client(t), "GET", r.url("/"), ""); resp.StatusCode != http.StatusOK || body != test.want {
			t.Errorf("%s as %s: %d %q, want %q", test.service, test.tls, resp.StatusCode, body, test.want)
		}
	}
	r.stop()
	for _, test := range refused {
		if test.instance == "" {
			continue // an agreement that fails is no failure of TLS; of an alert over HTTP/2 see above
		}
		want := 1
		if test.instance == "f1" {
			want = 2 // in each of two ways
		}
		if got := strings.Count(log.b.String(), `msg="an instance cannot be spoken to over TLS" service=`+test.route+" instance="+test.instance); got != want {
			t.Errorf("%s is logged %d times, want %d:\n%s", test.route, got, want, log.b.String())
		}
	}
}

// TestProxy_InstanceTLS_closes/an instance that closes a kept connection, with
// TLS's own word before, costs no request, not even one that is not repeatable.
func TestProxy_InstanceTLS_closes(t *testing.T) {
	a := newAuthority(t, "mesh")
	pair, err := tls.LoadX509KeyPair(a.issue("web.svc.internal"))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{}, 10)
	addr := raw(t, func(c net.Conn, n int) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
		req, err := http.ReadRequest(bufio.NewReader(s))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
		_ = s.CloseWrite() // what is said first; the connection's end follows
		closed <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})
	r := a.secure(nil, map[string]l7.InstanceTLSFiles{"mesh": {CA: a.ca}})
	r.register("web/a", addr)
	r.routes(`r {"service":"web","tls":"mesh"}`)
	for i := range 3 {
		resp, body := do(t, client(t), "POST", r.url("/"), "x")
		if want := fmt.Sprint(i + 1); resp.StatusCode != http.StatusOK || body != want {
			t.Fatalf("request %d: %d %q, want %q of a connection of its own", i, resp.StatusCode, body, want)
		}
		<-closed
	}
}

// TestProxy_InstanceTLS_changes/an instance that no longer agrees to HTTP/2 is
// spoken to over HTTP/1.1, and costs no request.
func TestProxy_InstanceTLS_changes(t *testing.T) {
	a := newAuthority(t, "mesh")
	var old, closed atomic.Bool
	addr := a.instance("web.svc.internal", true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			old.Store(true)
			w.Header().Set("Connection", "close") // of HTTP/2: GOAWAY
		}
		said("a")(w, r)
	}, func(s *http.Server) {
		s.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed.Store(true)
			}
		}
		c := s.TLSConfig
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if !old.Load() {
				return nil, nil
			}
			one := c.Clone()
			one.NextProtos = []string{"http/1.1"}
			return one, nil
		}
	})
	r := a.secure(nil, map[string]l7.InstanceTLSFiles{"mesh": {CA: a.ca}})
	r.register("web/a", addr)
	r.routes(`r {"service":"web","tls":"mesh"}`)
	for _, test := range []struct{ path, want string }{
		{"/", "HTTP/2.0"}, {"/last", "HTTP/2.0"}, {"/", "HTTP/1.1"}, {"/", "HTTP/1.1"},
	} {
		want := "a " + test.want + " web.svc.internal 1"
		if resp, body := do(t, client(t), "POST", r.url(test.path), "x"); resp.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: %d %q, want %q", test.path, resp.StatusCode, body, want)
		}
		if test.path == "/last" {
			await(t, "the connection of HTTP/2 is closed", closed.Load)
		}
	}
}

// TestProxy_SetRoutes_tls/a route that names a way that there is not is left out.
func TestProxy_SetRoutes_tls(t *testing.T) {
	r := start(t, nil)
	problems := r.proxy.SetRoutes([]registry.Route{{Name: "a", Service: "web", TLS: "mesh"}, {Name: "b", Service: "web", Path: "/b"}})
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), `route "a": tls "mesh" is not among proxy.instance_tls`) {
		t.Errorf("problems are %v", problems)
	}
}

// TestInstanceTLS_Run/files that change are read again, and those before stay
// while they are bad.
func TestInstanceTLS_Run(t *testing.T) {
	a := newAuthority(t, "mesh")
	cert, key := a.issue("proxy")
	for _, files := range []l7.InstanceTLSFiles{
		{CA: key}, {CA: filepath.Join(a.dir, "none")}, {Certificate: cert}, {Certificate: cert, Key: a.ca},
	} {
		if _, err := l7.LoadInstanceTLS(files, nil); err == nil {
			t.Errorf("%+v is taken", files)
		}
	}
	var log buffer
	synctest.Test(t, func(t *testing.T) {
		way, err := l7.LoadInstanceTLS(l7.InstanceTLSFiles{CA: a.ca, Certificate: cert, Key: key}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = way.Run(ctx) })
		time.Sleep(time.Second)
		if err := os.WriteFile(key, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		a.issue("proxy")
		time.Sleep(6 * time.Second)
		cancel()
		running.Wait()
	})
	if got := log.b.String(); strings.Count(got, "stay as they were") != 1 || strings.Count(got, "were loaded again") != 1 || strings.Index(got, "stay") > strings.Index(got, "loaded") {
		t.Errorf("the log is\n%s", got)
	}
}
