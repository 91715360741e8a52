package l7_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l7"
)

// message reads a file of http1/testdata: the status to answer and the bytes to
// send.
func message(t *testing.T, path string) (status int, raw string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	raw, err = strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(rest, "\n", ""), `"`, `\"`) + `"`)
	if err != nil {
		t.Fatal(err)
	}
	status, err = strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return status, raw
}

// TestProxy_RefusesDesync/each is answered and the connection closed, the
// instance sees nothing of what is smuggled, and other clients are unharmed.
func TestProxy_RefusesDesync(t *testing.T) {
	r := start(t, nil)
	var smuggled atomic.Int64
	r.register("web/a", server(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/smuggled" {
			smuggled.Add(1)
		}
		named("a")(w, req)
	}))
	good := r.talk()
	for _, dir := range []string{"refused", "badbody"} {
		files, err := filepath.Glob("http1/testdata/" + dir + "/*.txt")
		if err != nil || len(files) < 10 {
			t.Fatalf("%d files in %s, %v", len(files), dir, err)
		}
		for _, path := range files {
			t.Run(strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".txt"), "_", " "), func(t *testing.T) {
				status, raw := message(t, path)
				bad := r.talk()
				bad.t = t
				bad.say(raw + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, body := bad.hear("GET")
				if resp.StatusCode != status || !resp.Close && resp.Header.Get("Connection") != "close" || !strings.Contains(body, "why: ") {
					t.Errorf("%q: %d %v %q, want %d and the connection closed", raw, resp.StatusCode, resp.Header, body, status)
				}
				bad.closed()
				good.say("GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
				if resp, body := good.hear("GET"); resp.StatusCode != http.StatusOK || body != "a GET /good" {
					t.Errorf("another client got %d %q", resp.StatusCode, body)
				}
			})
		}
	}
	if n := smuggled.Load(); n != 0 {
		t.Errorf("%d requests were smuggled", n)
	}
}

// TestProxy_Slowloris/1,000 clients that never finish their heads hold nobody
// up, and are closed.
func TestProxy_Slowloris(t *testing.T) {
	const n = 1000
	r := start(t, func(c *l7.Config) { c.Limits.ReadHead = 2 * time.Second })
	r.register("web/a", server(t, named("a")))
	slow := make([]net.Conn, n)
	for i := range slow {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		slow[i] = c
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-"); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t)
	for range 50 {
		if resp, body := do(t, c, "GET", r.url("/"), ""); resp.StatusCode != http.StatusOK || body != "a GET /" {
			t.Fatalf("another client got %d %q", resp.StatusCode, body)
		}
	}
	for i, c := range slow {
		if i%10 == 0 {
			_, _ = io.WriteString(c, "a") // another byte gains no time
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(c)
		if err != nil && !isReset(err) || len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 408 ") {
			t.Fatalf("a slow client got %q, %v", got, err)
		}
	}
	await(t, "every slow head is counted", func() bool { return r.proxy.Stats().SlowHeads == n })
}

// TestProxy_Limits/what is too large is refused without being forwarded.
func TestProxy_Limits(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.BodyBytes = 1 << 20 })
	r.register("web/a", server(t, named("a")))
	r.routes(`tiny {"path":"/tiny","service":"web","body_max":10}`)
	large := strings.Repeat("x", 2<<20)
	tests := []struct {
		name, raw string
		status    int
		kept      bool
	}{
		{"a head", "GET / HTTP/1.1\r\nHost: a\r\nX-A: " + large[:40<<10] + "\r\n\r\n", 431, false},
		{"a target", "GET /" + large[:40<<10] + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, false},
		{"a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n", 413, false},
		{"a length that the route does not allow", "POST /tiny HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world", 413, true},
		{"a chunked body that the route does not allow", "POST /tiny HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n", 413, false},
		{"a chunked body", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + large + "\r\n0\r\n\r\n", 413, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := r.talk()
			c.t = t
			go func() { _, _ = io.WriteString(c, test.raw) }() // may not be read to its end
			if resp, body := c.hear("GET"); resp.StatusCode != test.status || !strings.Contains(body, "why: ") {
				t.Errorf("%d %q, want %d", resp.StatusCode, body, test.status)
			}
			if !test.kept {
				c.closed()
			}
		})
	}
	if _, body := do(t, client(t), "POST", r.url("/tiny"), "0123456789"); body != "a POST /tiny" {
		t.Errorf("a body of the limit got %q", body)
	}
	for name, c := range map[string]*http.Client{"h2c": h2cClient(t)} {
		if resp, body := do(t, c, "POST", r.url("/tiny"), "hello world"); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %q, want 413", name, resp.StatusCode, body)
		}
	}
}
