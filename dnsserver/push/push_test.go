package push_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/push"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a server with a zone that changes, and a Hub over it.
type env struct {
	t       *testing.T
	handler *authority.Handler
	hub     *push.Hub
	addr    string
	config  *tls.Config
	stop    func() // ends the Hub

	mu      sync.Mutex
	changed chan struct{}
}

// newEnv starts a server that closes an idle session after a time; 0: the server's own.
func newEnv(t *testing.T, idle time.Duration, edit ...func(*push.Config)) *env {
	t.Helper()
	h, err := authority.New(authority.Config{Access: []authority.Rule{{Zone: "closed.test.", Allow: []netip.Prefix{}}}})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, handler: h, changed: make(chan struct{})}
	e.serve("a.example.test. A 192.0.2.1", "other.closed.test. A 192.0.2.9")
	c := push.Config{Tree: h.Tree, Allow: h.Allows, Changed: func() <-chan struct{} {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.changed
	}}
	for _, f := range edit {
		f(&c)
	}
	e.hub = push.New(c)
	cert, roots := dnstest.Certificate(t)
	s := dnstest.Start(t, h, func(c *dnsserver.Config) {
		c.TLS = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		c.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
		c.Sessions, c.IdleTimeout = e.hub, idle
		c.MaxConns, c.MaxConnsPerIP = 2000, 2000
	})
	e.addr, e.config = s.Server.TLSAddrs()[0].String(), &tls.Config{RootCAs: roots, ServerName: "dns.test", NextProtos: []string{"dot"}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.hub.Run(ctx) // nil always
	}()
	e.stop = func() { cancel(); <-done }
	t.Cleanup(e.stop)
	return e
}

// serve replaces the records, and tells of it.
func (e *env) serve(records ...string) {
	e.t.Helper()
	var all []*zones.Zone
	for _, origin := range []string{"example.test.", "closed.test."} {
		text := "$TTL 60\n@ SOA ns1 hostmaster 1 1 2 3 4\n@ NS ns1\nns1 A 192.0.2.1\n"
		for _, r := range records {
			if strings.HasSuffix(strings.Fields(r)[0], origin) {
				text += r + "\n"
			}
		}
		z, _, err := zonefile.Parse(strings.NewReader(text), "zone", origin)
		if err != nil {
			e.t.Fatal(err)
		}
		all = append(all, z)
	}
	tree, err := zones.NewTree(all)
	if err != nil {
		e.t.Fatal(err)
	}
	e.handler.SetTree(tree)
	e.mu.Lock()
	close(e.changed)
	e.changed = make(chan struct{})
	e.mu.Unlock()
}

// await waits until there are n subscriptions.
func (e *env) await(n int64) {
	e.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); e.hub.Subscriptions() != n; runtime.Gosched() {
		if time.Now().After(deadline) {
			e.t.Fatalf("%d subscriptions, want %d", e.hub.Subscriptions(), n)
		}
	}
}

// client is a subscriber.
type client struct {
	t *testing.T
	*tls.Conn
}

func (e *env) dial() *client {
	e.t.Helper()
	c, err := tls.Dial("tcp", e.addr, e.config)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		e.t.Fatal(err)
	}
	return &client{e.t, c}
}

// send sends a DSO message of one TLV.
func (c *client) send(id, typ uint16, data []byte) {
	c.t.Helper()
	msg := binary.BigEndian.AppendUint16(nil, id)
	msg = append(msg, 6<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, typ)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
	msg = append(msg, data...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		c.t.Fatal(err)
	}
}

// subscribe subscribes, and returns the response code.
func (c *client) subscribe(id uint16, name string, typ uint16) int {
	c.t.Helper()
	data := make([]byte, 300)
	n, err := dns.PackDomainName(name, data, 0, nil, false)
	if err != nil {
		c.t.Fatal(err)
	}
	data = binary.BigEndian.AppendUint16(data[:n], typ)
	c.send(id, 0x40, binary.BigEndian.AppendUint16(data, dns.ClassINET))
	msg := c.read()
	if got := binary.BigEndian.Uint16(msg); got != id || msg[2] != 0x80|6<<3 || len(msg) != 12 {
		c.t.Fatalf("the answer to SUBSCRIBE %d is %x", id, msg)
	}
	return int(msg[3] & 15)
}

func (c *client) read() []byte {
	c.t.Helper()
	msg, err := dnstest.ReadMsg(c)
	if err != nil {
		c.t.Fatal(err)
	}
	return msg
}

// pushed reads a PUSH message: "+name type data" and "-name type data", sorted.
func (c *client) pushed() []string {
	c.t.Helper()
	msg := c.read()
	if len(msg) < 16 || binary.BigEndian.Uint16(msg) != 0 || msg[2] != 6<<3 || binary.BigEndian.Uint16(msg[12:]) != 0x41 || int(binary.BigEndian.Uint16(msg[14:])) != len(msg)-16 {
		c.t.Fatalf("no PUSH message: %x", msg)
	}
	var out []string
	for at := 16; at < len(msg); {
		rr, next, err := dns.UnpackRR(msg, at)
		if err != nil {
			c.t.Fatal(err)
		}
		sign := "+"
		if rr.Header().Ttl == 0xffffffff {
			sign = "-"
		}
		out = append(out, sign+strings.Join(append([]string{rr.Header().Name}, strings.Fields(rr.String())[3:]...), " "))
		at = next
	}
	slices.Sort(out)
	return out
}

func TestHub(t *testing.T) {
	e := newEnv(t, 0)
	c := e.dial()
	if code := c.subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
		t.Fatalf("SUBSCRIBE: code %d", code)
	}
	if got, want := c.pushed(), []string{"+a.example.test. A 192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("at first %q, want %q", got, want)
	}
	e.serve("a.example.test. A 192.0.2.2", "a.example.test. A 192.0.2.3")
	if got, want := c.pushed(), []string{"+a.example.test. A 192.0.2.2", "+a.example.test. A 192.0.2.3", "-a.example.test. A 192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	t.Run("a name that is not there yet may be subscribed to", func(t *testing.T) {
		if code := c.subscribe(2, "b.example.test.", dns.TypeTXT); code != 0 {
			t.Fatalf("code %d", code)
		}
		e.serve("a.example.test. A 192.0.2.2", "a.example.test. A 192.0.2.3", `b.example.test. TXT "x"`)
		if got, want := c.pushed(), []string{`+b.example.test. TXT "x"`}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q: what has not changed is not told", got, want)
		}
	})
	t.Run("what is unsubscribed from is told no more", func(t *testing.T) {
		c.send(0, 0x42, []byte{0, 1})
		e.await(1)
		e.serve(`b.example.test. TXT "y"`)
		if got, want := c.pushed(), []string{`+b.example.test. TXT "y"`, `-b.example.test. TXT "x"`}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("questions are answered beside it", func(t *testing.T) {
		m := new(dns.Msg)
		m.SetQuestion("b.example.test.", dns.TypeTXT)
		conn := &dns.Conn{Conn: c.Conn}
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		if r, err := conn.ReadMsg(); err != nil || len(r.Answer) != 1 {
			t.Errorf("%v, %v", r, err)
		}
	})
}

func TestHub_Refuses(t *testing.T) {
	e := newEnv(t, 0)
	c := e.dial()
	for _, tt := range []struct {
		what, name string
		typ        uint16
		code       int
	}{
		{"a name of no zone", "www.elsewhere.test.", dns.TypeA, dns.RcodeNotAuth},
		{"a name that the client may not ask for", "other.closed.test.", dns.TypeA, dns.RcodeRefused},
	} {
		if code := c.subscribe(7, tt.name, tt.typ); code != tt.code {
			t.Errorf("%s: code %d, want %d", tt.what, code, tt.code)
		}
	}
	c.send(8, 0x40, []byte("\x03www"))
	if msg := c.read(); msg[3]&15 != dns.RcodeFormatError {
		t.Errorf("half a name: %x", msg)
	}
	c.send(9, 0x1234, nil)
	if msg := c.read(); msg[3]&15 != 11 {
		t.Errorf("an unknown type: %x, want DSOTYPENI (RFC 8490 section 5.1.1)", msg)
	}
	c.send(10, 0x0001, make([]byte, 8))
	if msg := c.read(); msg[3]&15 != 0 || binary.BigEndian.Uint16(msg[12:]) != 1 || len(msg) != 24 {
		t.Errorf("KEEPALIVE: %x", msg)
	}
	c.send(0, 0x1234, nil)
	if _, err := dnstest.ReadMsg(c); err == nil {
		t.Error("an unknown message that wants no answer does not end the session (section 5.1.2)")
	}
	t.Run("a second subscription to the same ends the session", func(t *testing.T) {
		c := e.dial()
		if code := c.subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
			t.Fatal(code)
		}
		c.pushed()
		name, _ := hex.DecodeString("0141076578616d706c65047465737400" + "00010001")
		c.send(2, 0x40, name)
		if _, err := dnstest.ReadMsg(c); err == nil {
			t.Error("it is not ended (RFC 8765 section 6.2.1)")
		}
	})
	t.Run("over TCP there is none", func(t *testing.T) {
		s := dnstest.Start(t, e.handler, func(c *dnsserver.Config) { c.Sessions = e.hub })
		msg := append(binary.BigEndian.AppendUint16(nil, 5), 6<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0)
		if r := s.Exchange(t, "tcp", msg); r[3]&15 != dns.RcodeNotImplemented {
			t.Errorf("%x, want NOTIMP", r)
		}
	})
}

// TestHub_keepalive: RFC 8490 section 6.5.2 has at least ten seconds told, and recommends
// an hour; sections 7.1 and 5.4 what ends a session.
func TestHub_keepalive(t *testing.T) {
	e := newEnv(t, 0)
	c := e.dial()
	for asked, want := range map[uint32]uint32{0: 10_000, 60_000: 60_000, 3_600_000: 3_600_000, 7_200_000: 3_600_000, 0xffffffff: 3_600_000} {
		c.send(10, 0x0001, binary.BigEndian.AppendUint32(make([]byte, 4), asked))
		if msg := c.read(); msg[3]&15 != 0 || len(msg) != 24 || binary.BigEndian.Uint32(msg[20:]) != want {
			t.Errorf("KEEPALIVE of %d ms: %x, want %d ms", asked, msg, want)
		}
	}
	c.send(11, 0x0001, make([]byte, 4))
	if msg := c.read(); msg[3]&15 != dns.RcodeFormatError {
		t.Errorf("half a KEEPALIVE: %x", msg)
	}
	c.send(0, 0x0001, make([]byte, 8))
	if _, err := dnstest.ReadMsg(c); err == nil {
		t.Error("a KEEPALIVE of the client's that is no request does not end the session")
	}
	t.Run("an answer to nothing ends the session", func(t *testing.T) {
		c := e.dial()
		c.send(1, 0x0001, make([]byte, 8))
		c.read()
		if _, err := c.Write([]byte{0, 12, 0, 9, 0x80 | 6<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := dnstest.ReadMsg(c); err == nil {
			t.Error("it is not ended")
		}
	})
}

// TestSession_keep: a client may be silent for twice the interval that it was granted (RFC
// 8490 section 6.5.1), 15 s unless it asks (section 6.2), while it has a subscription.
func TestSession_keep(t *testing.T) {
	e := newEnv(t, 0)
	w := &writer{}
	s := e.hub.Open(w, dnsserver.Client{Addr: netip.MustParseAddrPort("192.0.2.1:5")})
	defer s.Close()
	message := func(id, typ uint16, data []byte, want time.Duration) {
		t.Helper()
		msg := binary.BigEndian.AppendUint16(nil, id)
		msg = append(msg, 6<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		msg = binary.BigEndian.AppendUint16(msg, typ)
		msg = append(binary.BigEndian.AppendUint16(msg, uint16(len(data))), data...)
		if !s.Message(msg) || w.kept != want {
			t.Errorf("message %d: kept for %s, want %s", id, w.kept, want)
		}
	}
	message(1, 0x40, []byte("\x01a\x07example\x04test\x00\x00\x01\x00\x01"), 30*time.Second)
	message(2, 0x01, binary.BigEndian.AppendUint32(make([]byte, 4), 60_000), 2*time.Minute)
	message(3, 0x40, []byte("\x01b\x07example\x04test\x00\x00\x01\x00\x01"), 2*time.Minute)
	message(0, 0x42, []byte{0, 1}, 2*time.Minute)
	message(0, 0x42, []byte{0, 3}, 0)
}

// writer is a connection that notes for how long it is kept.
type writer struct{ kept time.Duration }

func (*writer) Limit() int             { return 65535 }
func (*writer) WriteMsg([]byte) error  { return nil }
func (w *writer) Keep(d time.Duration) { w.kept = d }
func (*writer) Leave([]byte)           {}
func (*writer) End()                   {}

// TestHub_aliases: aliasing is not supported (RFC 8765 section 6.2.1): a CNAME is told to
// who subscribes to that, and to nobody else. An ALIAS record gives addresses of its own.
func TestHub_aliases(t *testing.T) {
	e := newEnv(t, 0)
	e.serve("a.example.test. CNAME b.example.test.", "b.example.test. A 192.0.2.1", "c.example.test. ALIAS a.example.test.")
	c := e.dial()
	for i, q := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"a.example.test.", dns.TypeA, ""},
		{"a.example.test.", dns.TypeCNAME, "+a.example.test. CNAME b.example.test."},
		{"c.example.test.", dns.TypeA, "+c.example.test. A 192.0.2.1"},
	} {
		if code := c.subscribe(uint16(i+1), q.name, q.typ); code != 0 {
			t.Fatal(code)
		}
		if q.want == "" {
			continue // what comes next is of the others
		}
		if got := c.pushed(); !slices.Equal(got, []string{q.want}) {
			t.Errorf("%s %s: %q, want %q", q.name, dns.TypeToString[q.typ], got, q.want)
		}
	}
	e.serve("a.example.test. A 192.0.2.7", "c.example.test. ALIAS a.example.test.")
	want := []string{"+a.example.test. A 192.0.2.7", "+c.example.test. A 192.0.2.7", "-a.example.test. CNAME b.example.test.", "-c.example.test. A 192.0.2.1"}
	if got := c.pushed(); !slices.Equal(got, want) {
		t.Errorf("the alias becomes an address: %q, want %q", got, want)
	}
}

// TestHub_memory: what all sessions keep together has a bound. What finds no room is
// refused; what grows beyond it ends its session, whose client is told when to come again.
func TestHub_memory(t *testing.T) {
	e := newEnv(t, 0, func(c *push.Config) { c.MemoryMax = 2048 })
	first, second := e.dial(), e.dial()
	if code := first.subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
		t.Fatal(code)
	}
	first.pushed()
	for id := uint16(1); id <= 2; id++ {
		if code := second.subscribe(id, "a.example.test.", []uint16{0, dns.TypeTXT, dns.TypeA}[id]); code != 0 {
			t.Fatal(code)
		}
	}
	second.pushed()
	if code := second.subscribe(3, "b.example.test.", dns.TypeA); code != dns.RcodeServerFailure || e.hub.Refused() != 1 {
		t.Errorf("beyond the memory: code %d, %d refused; want SERVFAIL, 1", code, e.hub.Refused())
	}
	long := strings.Repeat("x", 200)
	e.serve("a.example.test. A 192.0.2.1", `a.example.test. TXT "`+long+`1"`, `a.example.test. TXT "`+long+`2"`)
	msg := second.read()
	if len(msg) != 20 || msg[3]&15 != dns.RcodeServerFailure || binary.BigEndian.Uint16(msg[12:]) != 0 || binary.BigEndian.Uint32(msg[16:]) != 10_000 {
		t.Errorf("%x, want a Retry Delay of 10 s with SERVFAIL (RFC 8490 section 6.6.1)", msg)
	}
	e.await(1)
	second.send(4, 0x40, []byte("\x01a\x07example\x04test\x00\x00\x01\x00\x01"))
	if err := second.CloseWrite(); err != nil { // which ends it at once
		t.Fatal(err)
	}
	if _, err := dnstest.ReadMsg(second); err == nil {
		t.Error("the session that has grown beyond the memory goes on (RFC 8490 section 6.6.1)")
	}
	e.serve("a.example.test. A 192.0.2.9")
	if got := first.pushed(); len(got) != 2 {
		t.Errorf("the other session: %q", got)
	}
	first.send(0, 0x42, []byte{0, 1})
	e.await(0)
	if n := e.hub.Memory(); n != 0 {
		t.Errorf("%d octets are kept of nothing", n)
	}
}

// A session with subscriptions is not idle; one without is closed like any other.
func TestHub_KeepsConnections(t *testing.T) {
	e := newEnv(t, 300*time.Millisecond)
	held, idle := e.dial(), e.dial()
	if code := held.subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
		t.Fatal(code)
	}
	held.pushed()
	idle.send(1, 0x0001, make([]byte, 8))
	idle.read()
	if _, err := idle.Read(make([]byte, 1)); err == nil { // after the idle timeout
		t.Error("a session without subscriptions is kept")
	}
	e.serve("a.example.test. A 192.0.2.5")
	if got := held.pushed(); len(got) != 2 {
		t.Errorf("%q", got)
	}
	held.send(0, 0x0042, []byte{0, 1})
	if _, err := held.Read(make([]byte, 1)); err == nil { // after the idle timeout
		t.Error("a session whose last subscription has ended is kept")
	}
	e.await(0)
}

// All subscribers hear of a change, once.
func TestHub_ManySubscribers(t *testing.T) {
	e := newEnv(t, 0)
	const subscribers = 200
	clients := make([]*client, subscribers)
	for i := range clients {
		clients[i] = e.dial()
		if code := clients[i].subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
			t.Fatal(code)
		}
		clients[i].pushed()
	}
	times := make([]time.Duration, 0, subscribers)
	var mu sync.Mutex
	var reading sync.WaitGroup
	began := time.Now()
	for _, c := range clients {
		reading.Go(func() {
			c.pushed()
			mu.Lock()
			times = append(times, time.Since(began))
			mu.Unlock()
		})
	}
	e.serve("a.example.test. A 192.0.2.77")
	reading.Wait()
	slices.Sort(times)
	t.Logf("change to message at %d subscribers: median %s, p99 %s", subscribers, times[subscribers/2], times[subscribers*99/100])
	if n := e.hub.Pushed(); n != 2*subscribers {
		t.Errorf("%d messages, want %d", n, 2*subscribers)
	}
}
