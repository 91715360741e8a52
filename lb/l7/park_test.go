package l7_test

import (
	"bufio"
	"crypto/tls"
	"net"
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

// wire is a client's connection below TLS.
type wire struct {
	net.Conn
	read []byte // all that came
	hold int    // of what is written next, how many bytes stay behind; they go with rest
	held []byte
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.read = append(w.read, b[:n]...)
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	keep := min(w.hold, len(b))
	w.hold, w.held = 0, append(w.held, b[len(b)-keep:]...)
	_, err := w.Conn.Write(b[:len(b)-keep])
	return len(b), err
}

// rest sends what stayed behind.
func (w *wire) rest() {
	_, _ = w.Conn.Write(w.held)
	w.held = nil
}

// talkTLS is a connection over TLS 1.2, whose records show their types, and what is
// below it.
func (r *rig) talkTLS() (*talk, *wire) {
	r.t.Helper()
	c := r.talk()
	w := &wire{Conn: c.Conn}
	secure := tls.Client(w, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return &talk{r.t, secure, bufio.NewReader(secure)}, w
}

// secure makes a listener speak TLS.
func secure(t *testing.T, c *l7.Config) {
	t.Helper()
	certs, err := l7.LoadCertificates([]l7.CertificateFile{writeCertificate(t, t.TempDir(), "a", 1, "a.test")}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Listeners[0].Certificate = certs.Get
}

// TestProxy_ParksTLS/connections over TLS are parked too: what TLS has read and not
// given yet is not forgotten, and a record may come in parts.
func TestProxy_ParksTLS(t *testing.T) {
	const n = 20
	r := start(t, func(c *l7.Config) {
		c.Limits.Idle = 6 * time.Second
		secure(t, c)
	})
	r.register("web/a", server(t, named("a")))
	request := "GET /x HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("x", 300) + "\r\n\r\n"
	hear := func(c *talk) {
		t.Helper()
		if resp, body := c.hear("GET"); resp.StatusCode != http.StatusOK || body != "a GET /x" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	all, wires := make([]*talk, n), make([]*wire, n)
	for i := range all {
		all[i], wires[i] = r.talkTLS()
		all[i].say(request)
		hear(all[i])
	}
	await(t, "all are parked", func() bool { return r.proxy.Stats().Parked == n })
	for _, c := range all {
		c.say(strings.Repeat(request, 30)) // one record, more than a buffer holds
		for range 30 {
			hear(c)
		}
	}
	await(t, "all are parked again", func() bool { return r.proxy.Stats().Parked == n })
	for i, c := range all {
		wires[i].hold = 40 * i // of 380 bytes; at last of the record's header
		c.say(request)
	}
	hear(all[0])
	await(t, "those that said a part are parked as well", func() bool { return r.proxy.Stats().Parked == n })
	for i, c := range all[1:] {
		wires[i+1].rest()
		hear(c)
	}
	await(t, "none is left", func() bool { s := r.proxy.Stats(); return s.Connections == 0 && s.Parked == 0 })
	const alert = 21
	for i, c := range all {
		c.closed()
		last := wires[i].read[max(len(wires[i].read)-31, 0):] // 26 octets follow the header of 5
		if last[0] != alert {
			t.Errorf("the end of a connection is not told by an alert: % x", last)
		}
	}
}

// TestProxy_AnswersTheLast/a request that was there before the proxy was told to stop
// is answered, whether its connection had a goroutine or was parked, also where clients
// were asked to leave before.
func TestProxy_AnswersTheLast(t *testing.T) {
	const n = 200
	for _, test := range []struct {
		name                  string
		parked, secure, leave bool
	}{
		{"awake", false, false, false},
		{"parked", true, false, false},
		{"parked over TLS", true, true, false},
		{"parked, and asked to leave", true, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, func(c *l7.Config) {
				if test.secure {
					secure(t, c)
				}
			})
			r.register("web/a", server(t, named("a")))
			all := make([]*talk, n)
			for i := range all {
				if all[i] = r.talk(); test.secure {
					all[i].Close()
					all[i], _ = r.talkTLS()
				}
				all[i].say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				all[i].hear("GET")
			}
			if test.parked {
				await(t, "all are parked", func() bool { return r.proxy.Stats().Parked == n })
			}
			if test.leave {
				r.proxy.Leave()
			}
			for _, c := range all {
				c.say("POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
			}
			r.stop()
			for i, c := range all {
				if resp, body := c.hear("POST"); resp.StatusCode != http.StatusOK || body != "a POST /last" {
					t.Fatalf("connection %d: %d %q", i, resp.StatusCode, body)
				}
				c.closed()
			}
		})
	}
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
