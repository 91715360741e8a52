package l7_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/registrytest"
)

// failing is an instance that reads each request and then fails in one way.
func failing(t *testing.T, seen *atomic.Int64, f func(c net.Conn)) string {
	t.Helper()
	return raw(t, func(c net.Conn, _ int) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			seen.Add(1)
			f(c)
		}
	})
}

func write(s string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, s)
		if !strings.Contains(s, "Content-Length") {
			c.Close()
		}
	}
}

// deaf is an address where nothing listens.
func deaf(t *testing.T) string { return registrytest.Nobody(t).String() }

// TestProxy_Retries/each method against each point of failure: what is sent to
// another instance and what is not, and never the same one twice.
func TestProxy_Retries(t *testing.T) {
	// A request's outcome: from the good instance, or a status.
	const good = http.StatusOK
	points := []struct {
		name   string
		fail   func(net.Conn) // nil: nothing listens
		safe   int            // of requests that may be sent twice
		unsafe int
	}{
		{"no connection", nil, good, good},
		{"closed after the request", func(c net.Conn) { c.Close() }, good, 502},
		{"reset after the request", func(c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}, good, 502},
		{"half a head", write("HTTP/1.1 200 OK\r\nContent-"), good, 502},
		{"no HTTP", write("SSH-2.0-OpenSSH_9\r\n\r\n"), good, 502},
		{"two lengths", write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), good, 502},
		{"a protocol that was not asked for", write("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n"), 502, 502},
		{"500", write("HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad"), good, 500},
		{"502", write("HTTP/1.1 502 Oops\r\nContent-Length: 3\r\n\r\nbad"), good, 502},
		{"503", write("HTTP/1.1 503 Oops\r\nContent-Length: 3\r\n\r\nbad"), good, 503},
		{"504", write("HTTP/1.1 504 Oops\r\nContent-Length: 3\r\n\r\nbad"), good, 504},
		{"501 is an answer", write("HTTP/1.1 501 Oops\r\nContent-Length: 3\r\n\r\nbad"), 501, 501},
		{"404 is an answer", write("HTTP/1.1 404 Oops\r\nContent-Length: 3\r\n\r\nbad"), 404, 404},
		{"silence", func(net.Conn) {}, good, 504},
	}
	requests := []struct {
		method, body, field string
		safe                bool
	}{
		{"GET", "", "", true},
		{"HEAD", "", "", true},
		{"OPTIONS", "", "", true},
		{"TRACE", "", "", true},
		{"DELETE", "", "", true},
		{"PUT", "hello", "", true},
		{"PUT", strings.Repeat("x", 60<<10), "", true},
		{"PUT", strings.Repeat("x", 70<<10), "", false},
		{"POST", "", "", false},
		{"POST", "hello", "", false},
		{"PATCH", "hello", "", false},
		{"POST", "hello", "Idempotency-Key: 7", true},
		{"MKCOL", "", "", false},
	}
	for _, point := range points {
		t.Run(point.name, func(t *testing.T) {
			t.Parallel() // silence waits
			r := start(t, nil)
			var bad, fine atomic.Int64
			addr := deaf(t)
			if point.fail != nil {
				addr = failing(t, &bad, point.fail)
			}
			first, second := instance("web/bad", addr), instance("web/good", server(t, func(w http.ResponseWriter, r *http.Request) {
				fine.Add(1)
				named("good")(w, r)
			}))
			first.Weight = 65535 // it is chosen first, but for one request in 65,536
			r.apply(registry.Batch{Instances: []registry.Instance{first, second}})
			limit := 20 * time.Second
			if point.name == "silence" {
				limit = time.Second // in which a busy machine has the good one's answer
			}
			r.routes(fmt.Sprintf(`all {"service":"web","try_timeout":%q}`, limit))
			c := client(t)
			for _, req := range requests {
				name := fmt.Sprintf("%s %d %s", req.method, len(req.body), req.field)
				bad.Store(0)
				fine.Store(0)
				fields := []string{"X-Test: 1"}
				if req.field != "" {
					fields = append(fields, req.field)
				}
				resp, body := do(t, c, req.method, r.url("/"), req.body, fields...)
				if point.fail != nil && bad.Load() == 0 { // it was not
					fine.Store(0)
					resp, body = do(t, c, req.method, r.url("/"), req.body, fields...)
				}
				want := point.unsafe
				if req.safe {
					want = point.safe
				}
				if point.name == "no connection" {
					want = good // whatever the body: nothing of it was read
				}
				if resp.StatusCode != want || want == good && req.method != "HEAD" && body != "good "+req.method+" /" {
					t.Errorf("%s: %d %q, want %d", name, resp.StatusCode, body, want)
				}
				if n := fine.Load(); bad.Load() > 1 || n > 1 || (n == 1) != (want == good) {
					t.Errorf("%s: the bad instance saw %d and the good one %d", name, bad.Load(), n)
				}
			}
		})
	}
}

// TestProxy_Retries/a response that has begun is never begun again.
func TestProxy_RetriesNothingThatHasBegun(t *testing.T) {
	r := start(t, nil)
	var bad atomic.Int64
	for _, head := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		addr := failing(t, &bad, func(c net.Conn) {
			_, _ = io.WriteString(c, head)
			c.Close()
		})
		r.register("web/bad", addr)
		for name, c := range map[string]*http.Client{"HTTP/1.1": client(t), "h2c": h2cClient(t)} {
			bad.Store(0)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				continue // it was reset before the client had looked
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil || len(body) > 4 || bad.Load() != 1 {
				t.Errorf("%s: a response that ended early is %q, %v; asked %d times", name, body, err, bad.Load())
			}
		}
	}
}

// TestProxy_Retries/connections that the instance closed while they were idle
// fail no request.
func TestProxy_StaleConnections(t *testing.T) {
	r := start(t, nil)
	var seen atomic.Int64
	// Each connection serves one request and is then closed without a word.
	leave, left := make(chan struct{}), make(chan struct{})
	r.register("web/a", failing(t, &seen, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		<-leave
		c.Close()
		left <- struct{}{}
	}))
	c := client(t)
	for i := range 100 {
		method := []string{"GET", "POST", "PUT"}[i%3]
		if resp, body := do(t, c, method, r.url("/"), strings.Repeat("x", i%2)); resp.StatusCode != http.StatusOK || body != "ok" {
			t.Errorf("request %d, %s: %d %q", i, method, resp.StatusCode, body)
		}
		leave <- struct{}{}
		<-left
	}
	if n := seen.Load(); n != 100 {
		t.Errorf("the instance saw %d requests, want 100", n)
	}
}

// TestProxy_Retries/an instance that is marked down gives up what waits for it.
func TestProxy_MarkedDownWhileInFlight(t *testing.T) {
	r := start(t, nil)
	var held atomic.Int64
	hang := server(t, func(_ http.ResponseWriter, req *http.Request) {
		held.Add(1)
		<-req.Context().Done()
	})
	r.register("web/hangs", hang)
	r.routes(`h2 {"path":"/h2","service":"web","protocol":"h2c"}`)
	const n = 20
	var asking sync.WaitGroup
	c := client(t)
	for i := range n {
		asking.Go(func() {
			path := []string{"/", "/h2"}[i%2]
			if resp, body := do(t, c, "GET", r.url(path), ""); resp.StatusCode != http.StatusOK || body != "good GET "+path {
				t.Errorf("%s: %d %q", path, resp.StatusCode, body)
			}
		})
	}
	await(t, "all are in flight", func() bool { return held.Load() == n })
	r.register("web/good", server(t, named("good")))
	r.admin("web/hangs", registry.AdminDown)
	asking.Wait()
}

// TestProxy_Retries/a service that fails is not asked twice for everything.
func TestProxy_RetryBudget(t *testing.T) {
	r := start(t, nil)
	var asked atomic.Int64
	release := make(chan struct{})
	bad := func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-release
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	r.register("web/a", server(t, bad), "web/b", server(t, bad))
	c := client(t)
	const n = 50
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			if resp, _ := do(t, c, "GET", r.url("/"), ""); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	await(t, "all are in flight", func() bool { return asked.Load() == n })
	close(release)
	asking.Wait()
	s := r.proxy.Stats()
	if s.Retries > n {
		t.Errorf("%d retries of %d requests", s.Retries, n)
	}
}

// TestProxy_Retries/a client that leaves costs the instance nothing more.
func TestProxy_ClientLeaves(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.Response = time.Minute })
	begun, ended := make(chan struct{}, 10), make(chan struct{}, 10)
	r.register("web/a", server(t, func(_ http.ResponseWriter, req *http.Request) {
		begun <- struct{}{}
		<-req.Context().Done()
		ended <- struct{}{}
	}))
	r.routes(`h2 {"path":"/h2","service":"web","protocol":"h2c"}`)
	for name, c := range map[string]*http.Client{"HTTP/1.1": client(t), "h2c": h2cClient(t)} {
		for _, path := range []string{"/", "/h2"} {
			if name == "HTTP/1.1" && path == "/h2" {
				continue // found only when something is sent
			}
			ctx, cancel := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			asking.Go(func() {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(path), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if resp, err := c.Do(req); err == nil {
					resp.Body.Close()
					t.Errorf("%s %s: an answer", name, path)
				}
			})
			<-begun
			cancel()
			asking.Wait()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s %s: the instance still works for a client that has left", name, path)
			}
		}
	}
	await(t, "the requests are over", func() bool { return r.proxy.Stats().InFlight == 0 })
}
