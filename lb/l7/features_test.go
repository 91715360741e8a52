package l7_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
)

// echo is an instance that answers with the head of the request, a line a
// field.
func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lines := []string{name, r.Method + " " + r.RequestURI, "Host: " + r.Host}
		for field, list := range r.Header {
			for _, value := range list {
				lines = append(lines, field+": "+value)
			}
		}
		slices.Sort(lines[3:])
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("X-Hop", "gone")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = w.Write([]byte(strings.Join(lines, "\n")))
	}
}

// TestProxy_Headers/what reaches the instance, and what comes back.
func TestProxy_Headers(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		r := start(t, func(c *l7.Config) {
			if trusted {
				c.Listeners[0].Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
		})
		r.register("web/a", server(t, echo("a")))
		r.routes(`r {"path":"/r","service":"web","host":"inner.test","rewrite":"/inner","set_request":{"X-Set":"1"},"remove_request":["x-secret","User-Agent"],
			"set_response":{"Server":"muster"},"remove_response":["set-cookie"]}`)
		resp, body := do(t, client(t), "GET", r.url("/r/x?q"), "", "Host: Shop.test:8080", "X-Secret: 7", "X-Set: 2", "X-Keep: kept",
			"Connection: X-Drop, keep-alive", "X-Drop: 1", "Keep-Alive: 5", "Proxy-Authorization: Basic x", "TE: trailers",
			"X_Forwarded_For: 6.6.6.6", "x-forwarded_proto: https", "Content_Length: 7", "Transfer_Encoding: chunked", "X_Secret: 7", "x_set: 2", "X_Own: kept",
			"X-Real-IP: 192.0.2.1", "x_real_ip: 192.0.2.1", "X-Forwarded-Port: 443", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https",
			"X-Forwarded-Host: evil.test", "Forwarded: for=192.0.2.1")
		want := []string{
			"a", "GET /inner/x?q", "Host: inner.test",
			`Forwarded: for=127.0.0.1;host="Shop.test:8080";proto=http`,
			"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: Shop.test:8080", "X-Forwarded-Proto: http", "X-Keep: kept", "X-Set: 1", "X_own: kept",
		}
		if trusted {
			want = []string{
				"a", "GET /inner/x?q", "Host: inner.test",
				`Forwarded: for=192.0.2.1, for=127.0.0.1;host="Shop.test:8080";proto=http`,
				"X-Forwarded-For: 192.0.2.1, 127.0.0.1", "X-Forwarded-Host: evil.test", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https",
				"X-Keep: kept", "X-Real-Ip: 192.0.2.1", "X-Set: 1", "X_own: kept", "X_real_ip: 192.0.2.1",
			}
		}
		if body != strings.Join(want, "\n") {
			t.Errorf("trusted %t: the instance is sent\n%s\nwant\n%s", trusted, body, strings.Join(want, "\n"))
		}
		h := resp.Header
		if h.Get("Server") != "muster" || h.Get("X-Hop") != "" || h.Get("Set-Cookie") != "" || h.Get("Date") == "" || h.Get("Content-Type") == "" {
			t.Errorf("the client is sent %v", h)
		}
	}
}

// TestProxy_Sticky/a client stays with its instance, goes to another when that
// drains, and cannot choose one.
func TestProxy_Sticky(t *testing.T) {
	r := start(t, nil)
	for _, id := range []string{"a", "b", "c"} {
		r.register("web/"+id, server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(id)) }))
	}
	r.routes(`all {"service":"web","sticky":"stay"}`)
	c := client(t)
	ask := func(cookie string) (id, set string) {
		t.Helper()
		resp, body := do(t, c, "GET", r.url("/"), "", "Cookie: x=y; stay="+cookie+"; z=1")
		return body, resp.Header.Get("Set-Cookie")
	}
	first, set := ask("")
	value, attributes, _ := strings.Cut(strings.TrimPrefix(set, "stay="), ";")
	if !strings.HasPrefix(value, first+".") || attributes != " Path=/; HttpOnly; SameSite=Lax" {
		t.Fatalf("from %s the cookie is %q", first, set)
	}
	for range 50 {
		if id, set := ask(value); id != first || set != "" {
			t.Fatalf("with the cookie of %s: %s, which sets %q", first, id, set)
		}
	}
	t.Run("a forged cookie chooses nothing", func(t *testing.T) {
		seen := map[string]bool{}
		for _, forged := range []string{"b", "b.", "b.AAAAAAAAAAAAAAAAAAAAAA", strings.Replace(value, first+".", "b.", 1), value[:len(value)-1], "." + value} {
			for range 20 {
				id, set := ask(forged)
				if forged != value && set == "" {
					t.Errorf("%q is taken", forged)
				}
				seen[id] = true
			}
		}
		if len(seen) != 3 {
			t.Errorf("forged cookies reach %v, want what no cookie does", seen)
		}
	})
	t.Run("it drains", func(t *testing.T) {
		r.admin("web/"+first, registry.AdminDrain)
		second, set := ask(value)
		if second == first || !strings.HasPrefix(set, "stay="+second+".") {
			t.Errorf("from %s, which drains, to %s, which sets %q", first, second, set)
		}
	})
}

func TestProxy_RateLimits(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", server(t, named("a")))
	lines := []string{
		`client {"path":"/client","service":"web","limit":{"rate":0.01,"burst":3}}`,
		`key {"path":"/key","service":"web","limit":{"rate":0.01,"burst":2,"by":"header:X-Key"}}`,
		`all {"path":"/all","service":"web","limit":{"rate":0.01,"burst":4,"by":"route"}}`,
	}
	r.routes(lines...)
	c := client(t)
	ask := func(path, key string, n int) (ok int, retry string) {
		for range n {
			resp, body := do(t, c, "GET", r.url(path), "", "X-Key: "+key)
			switch resp.StatusCode {
			case http.StatusOK:
				ok++
			case http.StatusTooManyRequests:
				retry = resp.Header.Get("Retry-After")
			default:
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		}
		return ok, retry
	}
	if ok, retry := ask("/client", "", 6); ok != 3 || retry == "" || retry == "0" {
		t.Errorf("a client: %d, Retry-After %q; want 3 and a time", ok, retry)
	}
	for _, key := range []string{"x", "y"} {
		if ok, _ := ask("/key", key, 4); ok != 2 {
			t.Errorf("key %s: %d, want 2", key, ok)
		}
	}
	r.routes(append(lines, `other {"path":"/other","service":"web"}`)...)
	if ok, _ := ask("/key", "x", 2); ok != 0 {
		t.Errorf("another route was added, and %d more are let through", ok)
	}
	if ok, _ := ask("/all", "", 6); ok != 4 {
		t.Errorf("all together: %d, want 4", ok)
	}
	if s := r.proxy.Stats(); s.Limited != 3+4+2+2 {
		t.Errorf("%d were limited", s.Limited)
	}
}

// TestProxy_ErrorPages/each says what happened, which route and service, and
// no more.
func TestProxy_ErrorPages(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Listeners[0].Service = "" })
	dead := deaf(t)
	r.register("down/a", dead)
	r.routes(`none {"path":"/none","service":"nobody"}`, `down {"path":"/down","service":"down"}`)
	c := client(t)
	tests := []struct {
		path   string
		status int
		lines  []string
	}{
		{"/", 404, []string{"404 Not Found", "why: no route matches the host, the path and the conditions"}},
		{"/a/%2e%2e/b", 400, []string{"400 Bad Request", `why: the path has a "." or ".." segment or a broken escape`}},
		{"/none", 503, []string{"503 Service Unavailable", "why: service nobody is not registered: no instance may be served", "route: none", "service: nobody"}},
		{"/down", 502, []string{"502 Bad Gateway", "why: no connection to the instance could be made: connection refused", "route: down", "service: down", "tries: 1"}},
	}
	for _, test := range tests {
		resp, body := do(t, c, "GET", r.url(test.path), "", "X-Request-Id: my-7")
		want := strings.Join(append(test.lines, "request: my-7"), "\n") + "\n"
		if resp.StatusCode != test.status || body != want || resp.Header.Get("X-Request-Id") != "my-7" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %v\n%s\nwant\n%s", test.path, resp.StatusCode, resp.Header, body, want)
		}
		resp, body = do(t, c, "GET", r.url(test.path), "", "Accept: text/html,*/*", "X-Request-Id: <script>")
		if resp.StatusCode != test.status || !strings.HasPrefix(body, "<!doctype html>") || strings.Contains(body, "<script>") || strings.Contains(body, dead) ||
			!strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s as HTML: %d %v\n%s", test.path, resp.StatusCode, resp.Header, body)
		}
		resp, body = do(t, c, "HEAD", r.url(test.path), "")
		if resp.StatusCode != test.status || body != "" {
			t.Errorf("%s with HEAD: %d %q", test.path, resp.StatusCode, body)
		}
	}
}

func TestProxy_Explain(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Zones = map[string]registry.SourceID{"svc.internal.": 1} })
	r.apply(registry.Batch{
		Instances: []registry.Instance{instance("web/a", "127.0.0.1:1"), instance("api/x", "127.0.0.1:2")},
		Services:  []registry.Service{{Name: "api", Policy: "hash"}},
	})
	r.routes(`api {"path":"/api","strip_prefix":true,"service":"api","zone":"svc.internal.","methods":["GET"],"limit":{"rate":1}}`)
	before := r.proxy.Stats()
	for range 3 { // it takes nothing of the limit
		e, err := r.proxy.Explain(l7.Question{URL: "http://shop.test/api/users?q=1"})
		if err != nil || e.Route != "api" || e.Service != "api" || e.Target != "/users?q=1" || e.Instance != "x" || !e.Certain || e.Limited || e.Protocol != "HTTP/1.1" || len(e.Instances) != 1 {
			t.Errorf("%+v, %v", e, err)
		}
	}
	e, err := r.proxy.Explain(l7.Question{URL: "http://shop.test/api/users", Method: "POST"})
	if err != nil || e.Route != "web" || e.Service != "web" || e.Instance != "a" || len(e.Considered) != 2 || e.Considered[0].Reason != "the method is none of GET" {
		t.Errorf("%+v, %v", e, err)
	}
	r.admin("web/a", registry.AdminDrain)
	if e, err = r.proxy.Explain(l7.Question{URL: "http://shop.test/"}); err != nil || e.Instance != "" || !strings.HasPrefix(e.Why, "503: ") {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := r.proxy.Explain(l7.Question{Listener: "other"}); err == nil {
		t.Error("a listener that there is not is explained")
	}
	if after := r.proxy.Stats(); after != before {
		t.Errorf("explaining has changed %+v to %+v", before, after)
	}
}

// TestProxy_SetRoutes/a bad route is named and hides no other.
func TestProxy_SetRoutes(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", server(t, named("a")), "api/b", server(t, named("b")))
	problems := r.proxy.SetRoutes([]registry.Route{
		{Name: "zone", Service: "api", Zone: "other."},
		{Name: "bad", Path: "x", Service: "api"},
		{Name: "api", Path: "/api", Service: "api"},
		{Name: "api", Path: "/twice", Service: "api"},
	})
	if err := errors.Join(problems...); err == nil || !regexp.MustCompile(`(?s)"zone".*"bad".*"api": the name stands twice`).MatchString(err.Error()) {
		t.Errorf("SetRoutes: %v", err)
	}
	for _, err := range problems {
		if bad, ok := errors.AsType[*l7.RouteError](err); !ok || bad.Route == "" {
			t.Errorf("%v names no route", err)
		}
	}
	c := client(t)
	for path, want := range map[string]string{"/api": "b GET /api", "/twice": "a GET /twice"} {
		if _, body := do(t, c, "GET", r.url(path), ""); body != want {
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
	r.routes()
	if _, body := do(t, c, "GET", r.url("/api"), ""); body != "a GET /api" {
		t.Errorf("without routes: %q", body)
	}
}

// buffer is a writer that tests may read meanwhile.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func TestProxy_AccessLog(t *testing.T) {
	var out buffer
	r := start(t, func(c *l7.Config) { c.AccessLog = slog.New(slog.NewJSONHandler(&out, nil)) })
	r.register("web/a", server(t, named("a")))
	do(t, client(t), "POST", r.url("/x?y=1"), "hello", "X-Request-Id: id-1", "Host: shop.test")
	do(t, h2cClient(t), "GET", r.url("/../z"), "", "X-Request-Id: id-2")
	r.stop() // writes what is queued
	var lines []map[string]any
	for line := range strings.Lines(out.b.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fields)
	}
	want := []map[string]any{
		{
			"method": "POST", "host": "shop.test", "target": "/x?y=1", "version": "HTTP/1.1", "status": 200.0, "sent": 13.0, "received": 5.0, "client": "127.0.0.1",
			"listener": "web", "service": "web", "instance": "a", "tries": 1.0, "request": "id-1", "why": "",
		},
		{"method": "GET", "version": "HTTP/2.0", "status": 400.0, "request": "id-2", "instance": "", "tries": 0.0},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(lines), len(want), lines)
	}
	for i, fields := range want {
		for name, value := range fields {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
	}
}

// TestProxy_ListensWhereItIsTold: 0.0.0.0 is IPv4 alone, as in the other modes.
func TestProxy_ListensWhereItIsTold(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Listeners[0].Address = "0.0.0.0:0" })
	r.register("web/a", server(t, named("a")))
	_, port, _ := net.SplitHostPort(r.addr())
	if _, body := do(t, client(t), "GET", "http://127.0.0.1:"+port+"/", ""); body != "a GET /" {
		t.Errorf("over IPv4: %q", body)
	}
	if c, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		c.Close()
		t.Error("0.0.0.0 takes IPv6, too")
	}
}
