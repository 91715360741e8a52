package l7_test

import (
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
)

// writeCertificate writes a certificate for names, signed by itself, as
// dir/base.crt and dir/base.key.
func writeCertificate(t testing.TB, dir, base string, serial int64, names ...string) l7.CertificateFile {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := l7.CertificateFile{Certificate: filepath.Join(dir, base+".crt"), Key: filepath.Join(dir, base+".key")}
	for path, block := range map[string]*pem.Block{f.Certificate: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// serial asks for a name and returns the serial number of the certificate.
func serial(t testing.TB, c *l7.Certificates, name string) int64 {
	t.Helper()
	pair, err := c.Get(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Int64()
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	files := []l7.CertificateFile{
		writeCertificate(t, dir, "a", 1, "a.test", "*.a.test"), writeCertificate(t, dir, "b", 2, "B.test"),
	}
	synctest.Test(t, func(t *testing.T) {
		c, err := l7.LoadCertificates(files, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int64{"a.test": 1, "X.A.test": 1, "x.y.a.test": 1, "b.test.": 2, "other.test": 1, "": 1} {
			if got := serial(t, c, name); got != want {
				t.Errorf("%q gets certificate %d, want %d", name, got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })
		writeCertificate(t, dir, "b", 3, "b.test")
		time.Sleep(6 * time.Second)
		if got := serial(t, c, "b.test"); got != 3 {
			t.Errorf("after a change b gets certificate %d, want 3", got)
		}
		if err := os.WriteFile(files[0].Key, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if got := serial(t, c, "a.test"); got != 1 {
			t.Errorf("with a key that is broken a gets certificate %d, want the one before", got)
		}
		cancel()
		running.Wait()
	})
	if _, err := l7.LoadCertificates(nil, nil, nil); err == nil {
		t.Error("no certificate is enough")
	}
	if _, err := l7.LoadCertificates([]l7.CertificateFile{{Certificate: files[0].Certificate, Key: files[1].Key}}, nil, nil); err == nil {
		t.Error("a key of another certificate is taken")
	}
}

// TestCertificates_Run/a secret that is bad stays as it was, alone.
func TestCertificates_Run(t *testing.T) {
	dir := t.TempDir()
	secrets := map[string][]byte{"bad": []byte("half")}
	for name, n := range map[string]int64{"one": 1, "two": 2} {
		f := writeCertificate(t, dir, name, n, name+".test")
		for _, path := range []string{f.Certificate, f.Key} {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			secrets[name] = append(secrets[name], text...)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		read := func(_ context.Context, name string) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			return secrets[name], nil
		}
		c, err := l7.LoadCertificates([]l7.CertificateFile{{Secret: "bad"}, {Secret: "one"}, {Secret: "two"}}, read, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })
		check := func() {
			t.Helper()
			time.Sleep(6 * time.Second)
			for name, want := range map[string]int64{"one.test": 1, "two.test": 2} {
				if got := serial(t, c, name); got != want {
					t.Errorf("%q gets certificate %d, want %d", name, got, want)
				}
			}
		}
		check()
		mu.Lock()
		secrets["one"] = []byte("half")
		mu.Unlock()
		check()
		cancel()
		running.Wait()
	})
}

// TestProxy_TLS/both protocols by ALPN, a certificate that changes under open
// connections, and what the instance is told of it.
func TestProxy_TLS(t *testing.T) {
	dir := t.TempDir()
	file := writeCertificate(t, dir, "a", 1, "a.test")
	certs, err := l7.LoadCertificates([]l7.CertificateFile{file}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *l7.Config) { c.Listeners[0].Certificate = certs.Get })
	large := strings.Repeat("x", 1<<20)
	r.register("web/a", server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d %s", r.Header.Get("X-Forwarded-Proto"), r.Host, len(body), large)
	}))
	r.routes(`all {"service":"web","sticky":"s"}`)
	for _, http2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
		t.Cleanup(tr.CloseIdleConnections)
		c := &http.Client{Transport: tr}
		for i := range 3 {
			resp, body := do(t, c, "POST", "https://"+r.addr()+"/", large, "Host: shop.test")
			major := 1
			if http2 {
				major = 2
			}
			want := "https shop.test 1048576 " + large
			if resp.StatusCode != http.StatusOK || body != want || resp.ProtoMajor != major || !strings.Contains(resp.Header.Get("Set-Cookie"), "; Secure") {
				t.Errorf("HTTP/2 %t: %d %s %v %.60q", http2, resp.StatusCode, resp.Proto, resp.Header, body)
			}
			if i == 0 {
				writeCertificate(t, dir, "a", 2, "a.test")
				if err := certs.Reload(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	resp, _ := do(t, &http.Client{Transport: tr}, "GET", "https://"+r.addr()+"/", "")
	if got := resp.TLS.PeerCertificates[0].SerialNumber.Int64(); got != 2 {
		t.Errorf("a new connection gets certificate %d, want 2", got)
	}
	// Cleartext where TLS is spoken is told so and closed, and nobody else is
	// harmed.
	for _, said := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "hello hello\r\n"} {
		c := r.talk()
		c.say(said)
		if said[0] == 'G' {
			if resp, body := c.hear("GET"); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "https") {
				t.Errorf("cleartext got %d %q, want 400 and what to do", resp.StatusCode, body)
			}
		}
		c.closed()
	}
	await(t, "the handshakes are counted", func() bool { return r.proxy.Stats().Handshakes == 2 })
}

// TestProxy_LingersTLS/a client over TLS that is still sending a body when it is
// refused can send on, and reads why.
func TestProxy_LingersTLS(t *testing.T) {
	r := start(t, func(c *l7.Config) {
		c.Limits.BodyBytes = 1 << 20
		secure(t, c)
	})
	r.register("web/a", server(t, named("a")))
	c, _ := r.talkTLS()
	c.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n" + strings.Repeat("x", 16<<10))
	await(t, "it is refused", func() bool { return r.proxy.Stats().Responses[4] == 1 })
	for range 4 {
		c.say(strings.Repeat("x", 16<<10))
	}
	if resp, body := c.hear("POST"); resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close || !strings.Contains(body, "why: ") {
		t.Errorf("%d %v %q, want 413", resp.StatusCode, resp.Header, body)
	}
	c.closed()
}

// TestProxy_Survives/a panic while a connection is served ends that connection
// alone, and is told.
func TestProxy_Survives(t *testing.T) {
	var log buffer
	file := writeCertificate(t, t.TempDir(), "a", 1, "a.test")
	certs, err := l7.LoadCertificates([]l7.CertificateFile{file}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var healed atomic.Bool
	r := start(t, func(c *l7.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Listeners[0].Certificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !healed.Load() {
				panic("no certificate for anybody")
			}
			return certs.Get(hello)
		}
	})
	r.register("web/a", server(t, named("a")))
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr}
	for range 3 {
		if resp, err := c.Get("https://" + r.addr() + "/"); err == nil {
			resp.Body.Close()
			t.Error("an answer without a certificate")
		}
	}
	healed.Store(true)
	if resp, body := do(t, c, "GET", "https://"+r.addr()+"/", ""); resp.StatusCode != http.StatusOK || body != "a GET /" {
		t.Errorf("after the panics %d %q", resp.StatusCode, body)
	}
	await(t, "three panics are counted", func() bool { return r.proxy.Stats().Panics == 3 })
	r.stop()
	if got := strings.Count(log.b.String(), "panic=\"no certificate for anybody\""); got != 1 {
		t.Errorf("they are logged %d times, want once a minute:\n%s", got, log.b.String())
	}
}
