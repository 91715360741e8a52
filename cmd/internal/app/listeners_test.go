package app_test

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
)

// reload has a server read a configuration of this text, and returns when it has.
func (r *running) reload(t *testing.T, text string) {
	t.Helper()
	st, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	replace(t, st.Config.File, text)
	r.hup <- os.Interrupt
	r.hup <- os.Interrupt // taken when the first has been carried out
}

// listener is where a listener of the proxy listens; empty: there is none.
func (r *running) listener(t *testing.T, name string) string {
	t.Helper()
	p, err := r.Client.Proxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p.Listeners {
		if l.Name == name {
			return l.Address
		}
	}
	return ""
}

// register registers an instance of a service at an address and waits until it
// passes.
func (r *running) register(t *testing.T, service, addr string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	value := fmt.Sprintf(`{"address":%q,"port":%s}`, host, port)
	if _, err := r.Register(t.Context(), api.RegisterRequest{Service: service, ID: service + "-1", Instance: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	r.passing(t, service, 1)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still not: %s", what)
		}
	}
}

// line is a connection on which each line comes back, or a request is answered.
type line struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *line {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(4 * patience)) // some are used for the whole of a test
	return &line{c, bufio.NewReader(c)}
}

// echoes fails the test unless what is said comes back.
func (l *line) echoes(t *testing.T, said string) {
	t.Helper()
	_, err := io.WriteString(l, said+"\n")
	got := ""
	if err == nil {
		got, err = l.r.ReadString('\n')
	}
	if err != nil || got != said+"\n" {
		t.Fatalf("%q came back as %q, %v", said, got, err)
	}
}

// gets fails the test unless a request is answered, and reports whether the
// connection is kept.
func (l *line) gets(t *testing.T, path string) (kept bool) {
	t.Helper()
	fmt.Fprintf(l, "GET %s HTTP/1.1\r\nHost: web\r\n\r\n", path)
	return l.hears(t, path)
}

func (l *line) hears(t *testing.T, path string) (kept bool) {
	t.Helper()
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != path {
		t.Fatalf("GET %s: %d %q, %v", path, resp.StatusCode, body, err)
	}
	return !resp.Close
}

// echoes reports whether a new connection is taken, and what then is so while it
// is open.
func echoes(t *testing.T, addr string, then func() bool) bool {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false // reset at once
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, "hello")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return false
	}
	return then()
}

// echo is a TCP server that sends everything back, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestRun_changes_the_proxys_listeners/what has not changed keeps its
// connections, what has keeps its address, what is gone finishes what it has
// begun, and an address that is taken changes nothing at all.
func TestRun_changes_the_proxys_listeners(t *testing.T) {
	config := func(listeners ...string) string {
		return fmt.Sprintf(basics, "") + "health: {allow_targets: [127.0.0.0/8]}\nproxy:\n  listeners: [" + strings.Join(listeners, ", ") + "]\n"
	}
	web, db := `{name: web, listen: "127.0.0.1:0", mode: http, service: web}`, `{name: db, listen: "127.0.0.1:0", mode: tcp, service: db}`
	r := start(t, config(web, db), "", false)
	begun, release := make(chan struct{}), make(chan struct{})
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(begun)
			<-release
		}
		_, _ = io.WriteString(w, req.URL.Path)
	}))
	t.Cleanup(instance.Close)
	r.register(t, "web", instance.Listener.Addr().String())
	r.register(t, "db", echo(t))
	webAt, dbAt := r.listener(t, "web"), r.listener(t, "db")
	kept, stream := dial(t, webAt), dial(t, dbAt)
	kept.gets(t, "/first")
	stream.echoes(t, "first")

	// One more: those that there are go on.
	more := `{name: more, listen: "127.0.0.1:0", mode: http, service: web}`
	r.reload(t, config(web, more, db))
	if r.listener(t, "web") != webAt || r.listener(t, "db") != dbAt {
		t.Fatal("listeners that have not changed have moved")
	}
	if !kept.gets(t, "/second") {
		t.Error("a connection is closed as another listener comes")
	}
	stream.echoes(t, "second")
	moreAt := r.listener(t, "more")
	dial(t, moreAt).gets(t, "/more")

	// Others at the same addresses: connections go on, new ones find the new.
	web, db = strings.Replace(web, "}", ", access_log: true}", 1), `{name: store, listen: "127.0.0.1:0", mode: tcp, service: db, max_connections: 1}`
	r.reload(t, config(web, more, db))
	if r.listener(t, "web") != webAt || r.listener(t, "store") != dbAt || r.listener(t, "db") != "" {
		t.Fatalf("listeners that have changed have moved: %s, %s", r.listener(t, "web"), r.listener(t, "store"))
	}
	stream.echoes(t, "third")
	eventually(t, "new connections come to the new http listener, which logs", func() bool {
		dial(t, webAt).gets(t, "/fourth")
		return strings.Contains(r.log.String(), `"target":"/fourth"`)
	})
	if n, err := io.Copy(io.Discard, kept.r); n != 0 || err != nil { // it was idle
		t.Errorf("the client is not asked to connect anew: %d octets, %v", n, err)
	}
	eventually(t, "new connections come to the new tcp listener, which takes one", func() bool {
		return echoes(t, dbAt, func() bool { return !echoes(t, dbAt, func() bool { return true }) })
	})

	// An address that is taken: nothing is changed, and the reason is told.
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	r.reload(t, config(web, fmt.Sprintf(`{name: late, listen: %q, mode: http, service: web}`, busy.Addr()), db))
	doc, err := r.Doctor(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(doc), "proxy.listeners: late: listener") || !strings.Contains(fmt.Sprint(doc), "address already in use") {
		t.Errorf("the doctor says %+v, %v", doc, err)
	}
	dial(t, moreAt).gets(t, "/still")
	stream.echoes(t, "fourth")

	// One less: what it has begun it ends, and new ones are refused.
	slow := dial(t, moreAt)
	fmt.Fprint(slow, "GET /slow HTTP/1.1\r\nHost: web\r\n\r\n")
	<-begun
	r.reload(t, config(web, db))
	eventually(t, "connections are refused", func() bool {
		c, err := net.Dial("tcp", moreAt)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	close(release)
	slow.hears(t, "/slow")
	stream.echoes(t, "last")
}

// TestRun_changes_a_listeners_mode/at its address, by one reload: whoever connects
// meanwhile is taken by the one or the other, and what was begun goes on. Cause:
// sockets were lent within a mode alone, so that the address was taken.
func TestRun_changes_a_listeners_mode(t *testing.T) {
	config := func(listeners ...string) string {
		return fmt.Sprintf(basics, "") + "health: {allow_targets: [127.0.0.0/8]}\nproxy:\n  listeners: [" + strings.Join(listeners, ", ") + "]\n"
	}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.URL.Path) }))
	t.Cleanup(instance.Close)
	tcp, http1 := `{name: front, listen: "127.0.0.1:0", mode: tcp, service: web}`, `{name: front, listen: "127.0.0.1:0", mode: http, service: web, access_log: true}`
	other := `{name: other, listen: "127.0.0.1:0", mode: http, service: web}`
	r := start(t, config(tcp, other), "", false)
	r.register(t, "web", instance.Listener.Addr().String())
	at, otherAt := r.listener(t, "front"), r.listener(t, "other")
	stream := dial(t, at)
	stream.gets(t, "/first")

	r.reload(t, config(http1, other))
	eventually(t, "the listener at the address speaks HTTP, and logs", func() bool {
		dial(t, at).gets(t, "/spoken")
		return strings.Contains(r.log.String(), `"target":"/spoken"`)
	})
	if got := r.listener(t, "front"); got != at {
		t.Errorf("it listens at %s, want %s", got, at)
	}
	if r.listener(t, "other") != otherAt {
		t.Error("another listener has moved")
	}
	stream.gets(t, "/second")
	if strings.Contains(r.log.String(), "/second") {
		t.Error("a connection of before is served by the new listener")
	}

	kept := dial(t, at)
	kept.gets(t, "/kept")
	r.reload(t, config(tcp, other))
	eventually(t, "the listener at the address passes octets on", func() bool {
		name := fmt.Sprintf("/passed-%d", time.Now().UnixNano())
		dial(t, at).gets(t, name)
		return !strings.Contains(r.log.String(), name)
	})
	if got := r.listener(t, "front"); got != at {
		t.Errorf("it listens at %s, want %s", got, at)
	}
	if n, err := io.Copy(io.Discard, kept.r); n != 0 || err != nil { // it was idle
		t.Errorf("the client is not asked to connect anew: %d octets, %v", n, err)
	}
	stream.gets(t, "/third")
	if log := r.log.String(); strings.Contains(log, "address already in use") {
		t.Errorf("a reload has failed:\n%s", log)
	}
}

// echoUDP is a UDP server that sends everything back with who sent it, until the
// test ends.
func echoUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append(buf[:n:n], " from "+from.String()...), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return c.LocalAddr().String()
}

// TestRun_changes_a_udp_listener/that stays as it is keeps its flows; one that is
// changed keeps its address, and no datagram is lost.
func TestRun_changes_a_udp_listener(t *testing.T) {
	config := func(listeners ...string) string {
		return fmt.Sprintf(basics, "") + "health: {allow_targets: [127.0.0.0/8]}\nproxy:\n  listeners: [" + strings.Join(listeners, ", ") + "]\n"
	}
	udp, web := `{name: dns, listen: "127.0.0.1:0", mode: udp, service: dns}`, `{name: web, listen: "127.0.0.1:0", mode: http, service: dns}`
	r := start(t, config(udp), "", false)
	host, port, _ := net.SplitHostPort(echoUDP(t))
	value := fmt.Sprintf(`{"address":%q,"port":%s,"checks":[]}`, host, port)
	if _, err := r.Register(t.Context(), api.RegisterRequest{Service: "dns", ID: "dns-1", Instance: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	r.passing(t, "dns", 1)
	at := r.listener(t, "dns")
	client, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(4 * patience))
	said := 0
	says := func() (flow string) {
		t.Helper()
		said++
		text := fmt.Sprintf("datagram %d", said)
		buf := make([]byte, 2048)
		_, err := io.WriteString(client, text)
		n := 0
		if err == nil {
			n, err = client.Read(buf)
		}
		flow, ok := strings.CutPrefix(string(buf[:n]), text+" from ")
		if err != nil || !ok {
			t.Fatalf("%q came back as %q, %v", text, buf[:n], err)
		}
		return flow
	}
	flow := says()
	r.reload(t, config(web, udp))
	if got := says(); got != flow || r.listener(t, "dns") != at {
		t.Errorf("a listener that has not changed has moved its flow from %s to %s", flow, got)
	}
	replaced := make(chan struct{})
	go func() {
		defer close(replaced)
		r.reload(t, config(web, strings.Replace(udp, "}", ", idle_timeout: 9s}", 1)))
	}()
	for done := false; !done; { // datagrams all the while, each of which is answered
		select {
		case <-replaced:
			done = true
		default:
		}
		says()
	}
	eventually(t, "the new listener has the flow", func() bool { return says() != flow })
	flow = says()
	if got := r.listener(t, "dns"); got != at || says() != flow {
		t.Errorf("it listens at %s, want %s, and keeps its flow", got, at)
	}
	r.reload(t, config(web))
	if got := r.listener(t, "dns"); got != "" {
		t.Errorf("a listener that was taken out is at %s", got)
	}
	eventually(t, "nobody listens there", func() bool {
		_, err := io.WriteString(client, "hello")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestRun_is_a_lame_duck/that has been told to stop goes on for admin.lame_duck:
// not ready, with new connections taken, and clients asked to go.
func TestRun_is_a_lame_duck(t *testing.T) {
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.URL.Path) }))
	t.Cleanup(instance.Close)
	text := strings.Replace(fmt.Sprintf(basics, ""), "admin: {", "admin: {lame_duck: 6s, ", 1)
	r := start(t, text+"health: {allow_targets: [127.0.0.0/8]}\nproxy:\n  listeners: [{name: web, listen: \"127.0.0.1:0\", mode: http, service: web}]\n", "", false)
	r.register(t, "web", instance.Listener.Addr().String())
	at := r.listener(t, "web")
	if !dial(t, at).gets(t, "/before") {
		t.Error("connections are not kept before it is told to stop")
	}
	kept := dial(t, at)
	kept.gets(t, "/kept")
	ready := func() string {
		resp, err := http.Get(r.Admin + "/readyz?verbose")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.Status + " " + string(body)
	}
	eventually(t, "it is ready", func() bool { return strings.HasPrefix(ready(), "200") })
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	eventually(t, "it is not ready", func() bool { return strings.HasPrefix(ready(), "503") })
	if said := ready(); !strings.Contains(said, "stopping") {
		t.Errorf("it says %q", said)
	}
	if dial(t, at).gets(t, "/new") {
		t.Error("the client of a new connection is not asked to connect elsewhere")
	}
	if kept.gets(t, "/again") {
		t.Error("the client of a kept connection is not asked to connect elsewhere")
	}
	select {
	case <-stopped:
		t.Fatal("it has stopped already")
	default:
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it takes connections after its end")
	}
}

// TestRun_speaks_TLS_to_instances/from when a reload says so, at a listener that
// stays, until another says how not to trust them.
func TestRun_speaks_TLS_to_instances(t *testing.T) {
	instance := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.URL.Path) }))
	t.Cleanup(instance.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: instance.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(more string) string {
		return fmt.Sprintf(basics, "") + "health: {allow_targets: [127.0.0.0/8]}\nproxy:\n  listeners: [{name: web, listen: \"127.0.0.1:0\", mode: http, connect_timeout: 20s}]\n" + more
	}
	secure := func(name string) string {
		return config(fmt.Sprintf("  instance_tls: [{name: mesh, ca: %q, server_name: %s}]\n  routes: [{name: web, service: web, tls: mesh}]\n", ca, name))
	}
	r := start(t, config("  routes: [{name: web, service: web}]\n"), "", false)
	r.register(t, "web", instance.Listener.Addr().String())
	at := r.listener(t, "web")
	answered := func(status int, words string) func() bool {
		return func() bool {
			resp, err := http.Get("http://" + at + "/hello")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			return resp.StatusCode == status && strings.Contains(string(body), words)
		}
	}
	eventually(t, "cleartext is refused", answered(http.StatusBadRequest, "HTTPS server"))
	r.reload(t, secure("example.com"))
	eventually(t, "TLS is spoken", answered(http.StatusOK, "/hello"))
	r.reload(t, secure("example.net"))
	eventually(t, "the instance is not trusted", answered(http.StatusBadGateway, "the instance's certificate is for other names"))
	eventually(t, "the log names the instance", func() bool { return strings.Contains(r.log.String(), `"instance":"web-1"`) })
	if r.listener(t, "web") != at {
		t.Error("the listener has moved")
	}
}
