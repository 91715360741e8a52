package dnsserver_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// TestServer_OpcodesHaveOnePolicy, as not in CVE-2026-86003, where UPDATE was taken
// over HTTPS and QUIC from those who were refused it over UDP.
func TestServer_OpcodesHaveOnePolicy(t *testing.T) {
	e := dnstest.StartEverywhere(t, handlerFunc(func(*wire.Builder, *wire.Query, *dnsserver.Client) dnsserver.Verdict {
		t.Error("the handler is asked")
		return dnsserver.Drop
	}), nil)
	q := "\x00\x00%s\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x04conf\x04test\x00\x00\x06\x00\x01"
	for _, transport := range dnstest.Transports() {
		c := e.Carrier(transport)
		for _, row := range []struct{ sentence, flags, status string }{
			{"IQUERY", "\x08\x00", "NOTIMP qr; !aa !tc !ra !edns"},
			{"STATUS", "\x10\x00", "NOTIMP qr; !aa !tc !ra !edns"},
			{"NOTIFY", "\x20\x00", "NOTIMP qr; !aa !tc !ra !edns"},
			{"UPDATE", "\x28\x00", "REFUSED qr; !aa !tc !ra !edns"},
			{"DSO, without sessions", "\x30\x00", "NOTIMP qr; !aa !tc !ra !edns"},
			{"an unknown opcode", "\x78\x00", "NOTIMP qr; !aa !tc !ra !edns"},
		} {
			t.Run(row.sentence+" over "+transport, func(t *testing.T) {
				reply, err := c.Exchange(t.Context(), []byte(strings.Replace(q, "%s", row.flags, 1)))
				if err != nil || reply == nil {
					t.Fatalf("%x, %v", reply, err)
				}
				dnstest.Want(t, dnstest.Unpack(t, reply), row.status)
			})
		}
	}
}

// TestServer_StalledStreamsLeaveUDPAlone: a thousand clients, over TCP and over TLS,
// that send one octet and no more stopped UDP in CVE-2017-15133.
func TestServer_StalledStreamsLeaveUDPAlone(t *testing.T) {
	s, overTLS, _ := startTLS(t, handlerFunc(address), func(c *dnsserver.Config) {
		c.FirstByteTimeout, c.MessageTimeout = time.Hour, time.Hour // none of them goes by itself
	})
	udp := dial(t, s, "udp")
	before := slowest(t, udp)
	for _, addr := range []string{s.Addr.String(), overTLS} {
		for range 1000 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			_, _ = c.Write([]byte{0x16}) // it may have been closed for the next one
		}
	}
	eventually(t, "the connections are there, as many as there may be", func() bool {
		st := s.Server.Stats()
		return st.ConnsAccepted == 2000 && st.Conns <= 256
	})
	if after := slowest(t, udp); after > 3*before+time.Second { // FAULTS's twice, and a busy machine
		t.Errorf("99 of 100 answers come within %s, %s without the connections", after, before)
	}
	dnstest.Want(t, s.Query(t, "a. A +tcp"), "NOERROR", "answer a. 5 IN A 10.0.0.1")
}

// slowest is the time within which 99 of 100 answers come.
func slowest(t *testing.T, udp net.Conn) time.Duration {
	t.Helper()
	var took []time.Duration
	buf := make([]byte, 512)
	for id := range uint16(500) {
		began := time.Now()
		send(t, udp, query(t, id))
		if _, err := udp.Read(buf); err != nil {
			t.Fatalf("query %d: %v", id, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// TestServer_PanicsAreAnswered with SERVFAIL over every transport, and what comes next
// is answered as if nothing had been: what the network sends ends no process (as in
// CVE-2026-26018).
func TestServer_PanicsAreAnswered(t *testing.T) {
	e := dnstest.StartEverywhere(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		if q.Type == wire.TypeTXT {
			panic("a fault")
		}
		return address(b, q, from)
	}), nil)
	bad, good := query(t, 0), query(t, 0)
	bad[len(bad)-3] = byte(wire.TypeTXT)
	for _, transport := range dnstest.Transports() {
		c := e.Carrier(transport)
		for range 3 {
			for msg, want := range map[*[]byte]string{&bad: "SERVFAIL qr; !aa", &good: "NOERROR qr aa"} {
				reply, err := c.Exchange(t.Context(), *msg)
				if err != nil || reply == nil {
					t.Fatalf("%s: %x, %v", transport, reply, err)
				}
				if m := dnstest.Unpack(t, reply); want[0] == 'S' {
					dnstest.Want(t, m, want)
				} else {
					dnstest.Want(t, m, want, "answer web.svc.internal. 5 IN A 10.0.0.1")
				}
			}
		}
	}
	st := e.Server.Server.Stats()
	for transport, n := range map[string]uint64{"udp": st.UDP.Panics, "tcp": st.TCP.Panics, "tls": st.TLS.Panics, "https": st.HTTPS.Panics, "quic": st.QUIC.Panics} {
		if n != 3 {
			t.Errorf("%d panics counted over %s, want 3", n, transport)
		}
	}
}
