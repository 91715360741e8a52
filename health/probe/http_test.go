package probe_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/registry/registrytest"
)

// raw is a server that reads a request's header and then does as it likes.
func raw(t testing.TB, answer func(ctx context.Context, c net.Conn)) netip.AddrPort {
	return serve(t, func(ctx context.Context, c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			answer(ctx, c)
		}
	})
}

func says(t testing.TB, response string) netip.AddrPort {
	return raw(t, func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, response) })
}

// flood writes a chunk again and again, and counts what it wrote.
func flood(c net.Conn, head, chunk string, written *atomic.Int64) {
	_, _ = io.WriteString(c, head)
	for {
		n, err := io.WriteString(c, chunk)
		written.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func TestSet_HTTP_Status(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	for _, c := range []struct {
		name, response, accepted string
		want                     expect
	}{
		{"200 passes", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", expect{ok: true, output: "GET http://ADDR/healthz: 200 OK", load: -1}},
		{"503 fails", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "", expect{output: "GET http://ADDR/healthz: 503 Service Unavailable", load: -1}},
		{"404 fails", "HTTP/1.1 404 Not Found\r\n\r\n", "", expect{output: ": 404 Not Found", load: -1}},
		{"a redirect passes and is not followed", "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", "", expect{ok: true, output: ": 302 Found", load: -1}},
		{"a redirect fails where only 200 is accepted", "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", "200", expect{output: ": 302 Found", load: -1}},
		{"a listed code passes", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "200-204, 503", expect{ok: true, output: ": 503 Busy", load: -1}},
		{"a code beside the range fails", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", "200-204,503", expect{output: ": 205 Reset", load: -1}},
		{"no words in the status line", "HTTP/1.1 204\r\n\r\n", "", expect{ok: true, output: ": 204 No Content", load: -1}},
		{"HTTP/1.0 passes", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "", expect{ok: true, output: "200 OK", load: -1}},
		{"chunks are read", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "", expect{ok: true, output: "200 OK", load: -1}},
		{"informational responses come first", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", expect{ok: true, output: "200 OK", load: -1}},
		{"informational responses without end fail", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20), "", expect{output: "informational", load: -1}},
		{"load is taken", "HTTP/1.1 200 OK\r\nX-Muster-Load: 0.41\r\nContent-Length: 0\r\n\r\n", "", expect{ok: true, load: 0.41}},
		{"load that is none is not", "HTTP/1.1 200 OK\r\nX-Muster-Load: NaN\r\nContent-Length: 0\r\n\r\n", "", expect{ok: true, load: -1}},
		{"negative load is none", "HTTP/1.1 200 OK\r\nX-Muster-Load: -3\r\nContent-Length: 0\r\n\r\n", "", expect{ok: true, load: -1}},
		{"load of a failed check is none", "HTTP/1.1 500 Oops\r\nX-Muster-Load: 0.1\r\nContent-Length: 0\r\n\r\n", "", expect{load: -1}},
		{"load in ORCA's text form", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nEndpoint-Load-Metrics: TEXT application_utilization=0.3, cpu_utilization=0.8, mem_utilization=0.1\r\n\r\n", "", expect{ok: true, load: 0.3}},
		{"the processor's, where the application's is none", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nendpoint-load-metrics: TEXT named_metrics.a=1,cpu_utilization=0.8, application_utilization=0\r\n\r\n", "", expect{ok: true, load: 0.8}},
		{"ORCA in another form", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nendpoint-load-metrics: JSON {\"cpu_utilization\":0.3}\r\n\r\n", "", expect{ok: true, load: -1}},
		{"our own header before ORCA", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nendpoint-load-metrics: TEXT cpu_utilization=0.8\r\nX-Muster-Load: 0.2\r\n\r\n", "", expect{ok: true, load: 0.2}},
		{"load beyond what is one", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Muster-Load: 1000001\r\n\r\n", "", expect{ok: true, load: -1}},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a length below zero", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a coding that was not asked for", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a folded line", "HTTP/1.1 200 OK\r\nX-A: a\r\n b: c\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a carriage return within a line", "HTTP/1.1 200 OK\r\nX-A: a\rb\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"a chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "", expect{output: "200 OK: malformed HTTP", load: -1}},
		{"a length beside chunks, which count", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", expect{ok: true, load: -1}},
		{"a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{"closed without a response", "", "", expect{output: "connection closed before a response", load: -1}},
		{"closed within the header", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "", expect{output: "connection closed before a response", load: -1}},
		{"closed within the body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "", expect{output: "200 OK: unexpected EOF", load: -1}},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "", expect{output: "malformed HTTP", load: -1}},
		{
			"octets that could forge a log line", "HTTP/1.1 500 \x1b[2J\xff\u2028" + strings.Repeat("x", 500) + "\r\nContent-Length: 0\r\n\r\n", "",
			expect{output: `500 \x1b[2J\xff\u2028xxx`, load: -1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := health.Target{Type: health.TypeHTTP, Addr: says(t, c.response), Path: "/healthz", Status: c.accepted}
			probeOnce(t, s, x, c.want)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		x := health.Target{Type: health.TypeHTTP, Addr: registrytest.Nobody(t), Path: "/healthz"}
		probeOnce(t, s, x, expect{refused: true, output: "GET http://ADDR/healthz: connection refused", load: -1})
	})
}

func TestSet_HTTP_BadServers(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	var written atomic.Int64
	for _, c := range []struct {
		name   string
		answer func(ctx context.Context, c net.Conn)
		want   expect
	}{
		{
			"hangs", silent,
			expect{output: "no response within 300ms", load: -1, slow: true},
		},
		{
			"drips its header", func(ctx context.Context, c net.Conn) { drip(ctx, c, "HTTP/1.1 200 OK\r\nX-A: ") },
			expect{output: "no response within 300ms", load: -1, slow: true},
		},
		{"sends a body of 10 GB, which is not read", func(_ context.Context, c net.Conn) {
			flood(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", strings.Repeat("x", 4096), &written)
		}, expect{ok: true, output: "200 OK", load: -1}},
		{"sends chunks without end, which are not read", func(_ context.Context, c net.Conn) {
			flood(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n"+strings.Repeat("x", 4096)+"\r\n", &written)
		}, expect{ok: true, output: "200 OK", load: -1}},
		{"sends a header without end", func(_ context.Context, c net.Conn) {
			flood(c, "HTTP/1.1 200 OK\r\n", "X-A: "+strings.Repeat("y", 1000)+"\r\n", &written)
		}, expect{output: "response header above 16384 octets", load: -1}},
		{"sends one header line without end", func(_ context.Context, c net.Conn) {
			flood(c, "HTTP/1.1 200 OK\r\nX-A: ", strings.Repeat("y", 1000), &written)
		}, expect{output: "response header above 16384 octets", load: -1}},
		{
			"resets the connection", func(_ context.Context, c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
			expect{output: "connection reset by peer", load: -1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			written.Store(0)
			x := health.Target{Type: health.TypeHTTP, Addr: raw(t, c.answer)}
			probeOnce(t, s, x, c.want)
			if n := written.Load(); n > 32<<20 { // the kernel's buffers are a few MB
				t.Errorf("the server could write %d octets", n)
			}
		})
	}
	t.Run("drips its body", func(t *testing.T) {
		x := health.Target{Type: health.TypeHTTP, Timeout: 3 * time.Second} // in which a busy machine reads a header
		x.Addr = raw(t, func(ctx context.Context, c net.Conn) {
			drip(ctx, c, "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
		})
		probeOnce(t, s, x, expect{output: "200 OK: no end of the body within 3s", load: -1, slow: true})
	})
	t.Run("a redirect loop is asked once", func(t *testing.T) {
		var asked atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}))
		defer server.Close()
		x := health.Target{Type: health.TypeHTTP, Addr: addrOf(server.Listener.Addr()), Status: "200"}
		probeOnce(t, s, x, expect{output: "302 Found", load: -1})
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

// drip sends a head and then an octet now and then.
func drip(ctx context.Context, c net.Conn, head string) {
	_, _ = io.WriteString(c, head)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
		}
	}
}

func TestSet_HTTP_Request(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // would refuse
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	s := newSet(t, probe.Config{AllowTargets: loopback})
	got := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	defer server.Close()
	addr := addrOf(server.Listener.Addr())
	for _, c := range []struct {
		name               string
		target             health.Target
		method, path, host string
	}{
		{"the least", health.Target{}, "GET", "/", addr.String()},
		{"all of it", health.Target{Method: "HEAD", Path: "/live?full=1", Host: "web.example"}, "HEAD", "/live?full=1", "web.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.target.Type, c.target.Addr = health.TypeHTTP, addr
			probeOnce(t, s, c.target, expect{ok: true, output: c.method + " http://ADDR" + c.path + ": 200 OK", load: -1})
			r := <-got
			if r.Method != c.method || r.RequestURI != c.path || r.Host != c.host || r.UserAgent() != "muster-health/1" || !r.Close {
				t.Errorf("%s %s, host %s, agent %s, close %v", r.Method, r.RequestURI, r.Host, r.UserAgent(), r.Close)
			}
		})
	}
}

func TestSet_HTTPS(t *testing.T) {
	var serverName atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { serverName.Store(r.TLS.ServerName) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // two handshakes are meant to fail
	server.TLS = &tls.Config{}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // for 127.0.0.1, ::1 and example.com
	addr := addrOf(server.Listener.Addr())
	trusting := newSet(t, probe.Config{AllowTargets: loopback, RootCAs: roots})
	system := newSet(t, probe.Config{AllowTargets: loopback})
	for _, c := range []struct {
		name   string
		set    *probe.Set
		target health.Target
		want   expect
	}{
		{"verified by address", trusting, health.Target{}, expect{ok: true, output: "GET https://ADDR/: 200 OK", load: -1}},
		{"verified by name", trusting, health.Target{Host: "example.com"}, expect{ok: true, output: "200 OK", load: -1}},
		{"verified by name with a port", trusting, health.Target{Host: "example.com:8443"}, expect{ok: true, output: "200 OK", load: -1}},
		{"another name", trusting, health.Target{Host: "other.test"}, expect{output: "other.test", load: -1}},
		{"another name, not verified", trusting, health.Target{Host: "other.test", Insecure: true}, expect{ok: true, output: "200 OK", load: -1}},
		{"unknown authority", system, health.Target{}, expect{output: "unknown authority", load: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.target.Type, c.target.Addr = health.TypeHTTPS, addr
			probeOnce(t, c.set, c.target, c.want)
		})
	}
	if name := serverName.Load(); name != "other.test" {
		t.Errorf("the last successful request named %q", name)
	}
	t.Run("a server without TLS", func(t *testing.T) {
		plain := serve(t, func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
		x := health.Target{Type: health.TypeHTTPS, Addr: plain, Insecure: true}
		probeOnce(t, trusting, x, expect{output: "GET https://ADDR/: tls: first record does not look like a TLS handshake", load: -1})
	})
	t.Run("a handshake that hangs", func(t *testing.T) {
		x := health.Target{Type: health.TypeHTTPS, Addr: serve(t, silent)}
		probeOnce(t, trusting, x, expect{output: "no TLS handshake within 300ms", load: -1, slow: true})
	})
}

func TestSet_Probe_LeavesNothing(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	hang, dead := serve(t, silent), registrytest.Nobody(t)
	probeAll := func() {
		for _, kind := range []health.Type{health.TypeHTTP, health.TypeHTTPS, health.TypeTCP, health.TypeGRPC} {
			for _, addr := range []netip.AddrPort{hang, dead} {
				s.Probe(t.Context(), health.Target{Type: kind, Addr: addr, Timeout: 10 * time.Millisecond})
			}
		}
		s.Probe(t.Context(), health.Target{Type: health.TypeDNS, Addr: hang, Name: "a.test", Timeout: 10 * time.Millisecond})
	}
	probeAll()
	before := openFiles(t)
	for range 20 {
		probeAll()
	}
	// The server's ends of the last probes' connections may have been closed before.
	wantFiles(t, before+2)
}

func TestSet_Probe_EndsWithItsContext(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	reached := make(chan struct{}, 1)
	hang := serve(t, func(ctx context.Context, c net.Conn) { reached <- struct{}{}; silent(ctx, c) })
	for _, kind := range []health.Type{health.TypeHTTP, health.TypeHTTPS, health.TypeGRPC} {
		t.Run(kind.String(), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-reached; cancel() }()
			start := time.Now()
			r := s.Probe(ctx, health.Target{Type: kind, Addr: hang, Timeout: time.Minute})
			if took := time.Since(start); r.OK || took > 10*time.Second || !strings.Contains(r.Output, "cancelled") {
				t.Errorf("OK %v after %v: %s", r.OK, took, r.Output)
			}
		})
	}
}

// BenchmarkSet_HTTP is one check of a server in another process's place: most
// of what it costs is the connection, and half of that the server's.
func BenchmarkSet_HTTP(b *testing.B) {
	s := newSet(b, probe.Config{AllowTargets: loopback})
	addr := serve(b, func(_ context.Context, c net.Conn) {
		var request [4096]byte
		_, _ = c.Read(request[:])
		_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
	})
	x := health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/healthz", Timeout: 5 * time.Second}
	b.ReportAllocs()
	for b.Loop() {
		if r := s.Probe(b.Context(), x); !r.OK {
			b.Fatal(r.Output)
		}
	}
}
