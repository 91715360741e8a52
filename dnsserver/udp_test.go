package dnsserver_test

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// query is a question for web.svc.internal. A, made by the oracle.
func query(t testing.TB, id uint16) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("web.svc.internal.", dns.TypeA)
	m.Id = id
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dial is a socket connected to s, closed with the test, whose waits are bounded.
func dial(t testing.TB, s *dnstest.Server, network string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, s.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits until something is so: what is sent and not answered is counted
// when the server comes to it.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still not: %s", what)
		}
	}
}

func send(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// TestServer_UDP_NothingIsLostAt512Outstanding: eight clients keep 64 queries on
// their way each, and every one is answered, with its own id.
func TestServer_UDP_NothingIsLostAt512Outstanding(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	const clients, outstanding, each = 8, 64, 5000
	var group sync.WaitGroup
	for range clients {
		c := dial(t, s, "udp")
		msg := query(t, 0)
		group.Go(func() {
			var answered [each]bool
			buf := make([]byte, 512)
			for sent, got := 0, 0; got < each; {
				for sent < each && sent-got < outstanding {
					binary.BigEndian.PutUint16(msg, uint16(sent))
					if _, err := c.Write(msg); err != nil {
						t.Error(err)
						return
					}
					sent++
				}
				n, err := c.Read(buf)
				if err != nil {
					t.Errorf("after %d answers: %v", got, err)
					return
				}
				id := binary.BigEndian.Uint16(buf)
				if n < 12 || int(id) >= sent || answered[id] {
					t.Errorf("an answer nobody waits for: %x", buf[:n])
					return
				}
				answered[id] = true
				got++
			}
		})
	}
	group.Wait()
	st := s.Server.Stats()
	if st.UDP.Received != clients*each || st.UDP.RCodes[0] != clients*each || st.UDP.SendFailed != 0 || st.UDPOverflow != 0 {
		t.Errorf("stats %+v", st.UDP)
	}
}

// TestServer_UDP_ClientIsToldToTheHandler, with a moment, and luck that is new
// for each query.
func TestServer_UDP_ClientIsToldToTheHandler(t *testing.T) {
	clients := make(chan dnsserver.Client, 2)
	s := dnstest.Start(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		clients <- *from
		return address(b, q, from)
	}))
	for network, want := range map[string]dnsserver.Transport{"udp": dnsserver.UDP, "tcp": dnsserver.TCP} {
		c := dial(t, s, network)
		before := time.Now()
		msg := query(t, 1)
		if network == "tcp" {
			msg = append([]byte{0, byte(len(msg))}, msg...)
		}
		send(t, c, msg)
		got := <-clients
		if got.Transport != want || got.Addr != netip.MustParseAddrPort(c.LocalAddr().String()) {
			t.Errorf("client %+v, want %s %s", got, want, c.LocalAddr())
		}
		if now := time.Unix(0, got.Now); now.Before(before.Add(-time.Second)) || now.After(time.Now()) {
			t.Errorf("the moment is %s, want about %s", now, before)
		}
		send(t, c, msg)
		if again := <-clients; again.Rand == got.Rand {
			t.Errorf("two queries have the same luck: %x", got.Rand)
		}
	}
}

func TestServer_UDP_PanicIsAnsweredWithServfail(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		if q.Type == wire.TypeTXT {
			panic("a fault")
		}
		return address(b, q, from)
	}), func(c *dnsserver.Config) { c.Workers = 1 })
	c := dial(t, s, "udp")
	var want []uint16
	for id := range uint16(64) { // several in a batch
		msg := query(t, id)
		if id%3 == 0 {
			msg[len(msg)-3] = byte(wire.TypeTXT)
			want = append(want, id)
		}
		send(t, c, msg)
	}
	failed := 0
	buf := make([]byte, 512)
	for range 64 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		m := dnstest.Unpack(t, buf[:n])
		if (m.Rcode == dns.RcodeServerFailure) != (m.Id%3 == 0) {
			t.Errorf("query %d: %s", m.Id, dns.RcodeToString[m.Rcode])
		}
		if m.Rcode == dns.RcodeServerFailure {
			failed++
		}
	}
	if st := s.Server.Stats(); failed != len(want) || st.UDP.Panics != uint64(len(want)) {
		t.Errorf("%d of %d failed, %d panics counted", failed, len(want), st.UDP.Panics)
	}
	dnstest.Want(t, s.Query(t, "a. TXT +tcp"), "SERVFAIL qr; !aa")
	if st := s.Server.Stats(); st.TCP.Panics != 1 {
		t.Errorf("%d panics counted over TCP", st.TCP.Panics)
	}
}

func TestServer_UDP_DatagramLongerThanAnyQuery(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	long := append(query(t, 7), make([]byte, 4000)...)
	dnstest.Want(t, dnstest.Unpack(t, s.Exchange(t, "udp", long)), "FORMERR qr; !aa")
	long[2] |= 0x80
	s.Silent(t, "udp", long)
}

// TestServer_MalformedMessages sends the corpus of package wire over both
// transports: the answers are the same octets, and the server lives.
func TestServer_MalformedMessages(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	files, err := filepath.Glob("wire/testdata/query/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("corpus of %d files: %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		outcome, digits, _ := strings.Cut(string(b), "\n")
		msg, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if outcome == "ignore" {
			continue // TestServer_ErrorsAreTheSameOverBothTransports has the silent ones
		}
		udp, tcp := s.Exchange(t, "udp", msg), s.Exchange(t, "tcp", msg)
		for range 9 { // a second may have begun in between, and cookies have the time
			if string(udp) != string(tcp) {
				udp, tcp = s.Exchange(t, "udp", msg), s.Exchange(t, "tcp", msg)
			}
		}
		if string(udp) != string(tcp) {
			t.Errorf("%s: UDP answers %x, TCP %x", file, udp, tcp)
		}
	}
	dnstest.Want(t, s.Query(t, "a. A"), "NOERROR", "answer a. 5 IN A 10.0.0.1")
}

func BenchmarkServer_UDP(b *testing.B) {
	s := dnstest.Start(b, handlerFunc(address), func(c *dnsserver.Config) { c.Workers = 1 })
	c, err := net.Dial("udp", s.Addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg, buf := query(b, 1), make([]byte, 512)
	b.ReportAllocs()
	const outstanding = 64
	for range outstanding {
		send(b, c, msg)
	}
	for b.Loop() {
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		send(b, c, msg)
	}
}
