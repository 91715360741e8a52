package l7_test

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l7"
)

// TestProxy_Parks/idle connections are parked, serve the next request as if
// they were not, and are closed in time.
func TestProxy_Parks(t *testing.T) {
	t.Parallel() // what is idle is waited for
	const n = 50
	r := start(t, func(c *l7.Config) { c.Limits.Idle = 6 * time.Second })
	r.register("web/a", server(t, named("a")))
	ask := func(c *talk) {
		t.Helper()
		c.say("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.hear("GET"); resp.StatusCode != http.StatusOK || body != "a GET /x" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	var all []*talk
	for range n {
		c := r.talk()
		ask(c)
		all = append(all, c)
	}
	await(t, "all are parked", func() bool { return r.proxy.Stats().Parked == n })
	for _, c := range all[:n/2] {
		ask(c)
		ask(c)
	}
	for _, c := range all[n/2 : n-5] { // while they are parked
		c.Close()
	}
	await(t, "those that left are gone", func() bool { return r.proxy.Stats().Connections <= n/2+5 })
	for _, c := range all[n-5:] {
		c.closed()
	}
	for _, c := range all[:n/2] {
		c.closed()
	}
	await(t, "none is left", func() bool { s := r.proxy.Stats(); return s.Connections == 0 && s.Parked == 0 })
	c := r.talk()
	ask(c)
	await(t, "it is parked", func() bool { return r.proxy.Stats().Parked == 1 })
	r.stop()
	c.closed()
}

// TestProxy_Sockets/another proxy takes the socket over: no connection is
// refused while one follows the other.
func TestProxy_Sockets(t *testing.T) {
	old := start(t, nil)
	old.register("web/a", server(t, named("a")))
	address := old.addr()
	var asked []string
	next := start(t, func(c *l7.Config) {
		c.Inherited = func(name string) *os.File {
			asked = append(asked, name)
			conn, ok := old.proxy.Sockets()[name]
			if !ok {
				return nil
			}
			return duplicate(t, conn)
		}
	})
	next.register("web/b", server(t, named("b")))
	if next.addr() != address || len(asked) != 1 || !strings.HasPrefix(asked[0], "proxy web tcp ") {
		t.Fatalf("it listens on %s and asked for %q, want %s", next.addr(), asked, address)
	}
	ask := func() string {
		t.Helper()
		c := next.talk()
		defer c.Close()
		c.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		_, body := c.hear("GET")
		return body
	}
	for range 20 {
		if body := ask(); body != "a GET /" && body != "b GET /" {
			t.Errorf("beside the old one %q", body)
		}
	}
	old.stop()
	for range 20 {
		if body := ask(); body != "b GET /" {
			t.Errorf("after the old one's end %q", body)
		}
	}
}

// duplicate is what handing over a socket does.
func duplicate(t *testing.T, conn syscall.Conn) *os.File {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var f *os.File
	if err := raw.Control(func(fd uintptr) {
		copied, err := syscall.Dup(int(fd))
		if err != nil {
			t.Error(err)
			return
		}
		f = os.NewFile(uintptr(copied), "listener")
	}); err != nil {
		t.Fatal(err)
	}
	return f
}
