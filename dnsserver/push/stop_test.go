package push_test

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/dnstest"
)

// TestHub_stops: every client of a server that stops is told so, and when to come again,
// one without subscriptions too, and who closes then is waited for.
func TestHub_stops(t *testing.T) {
	e := newEnv(t, 0)
	subscriber, other := e.dial(), e.dial()
	if code := subscriber.subscribe(1, "a.example.test.", dns.TypeA); code != 0 {
		t.Fatal(code)
	}
	subscriber.pushed()
	other.send(7, 1, []byte{0, 0, 0x3a, 0x98, 0, 0, 0x3a, 0x98}) // KEEPALIVE
	other.read()
	e.stop()
	for _, c := range []*client{subscriber, other} {
		msg := c.read()
		if len(msg) != 20 || binary.BigEndian.Uint16(msg) != 0 || msg[3]&15 != dns.RcodeSuccess || binary.BigEndian.Uint16(msg[12:]) != 0 || binary.BigEndian.Uint32(msg[16:]) != 1_000 {
			t.Errorf("%x, want a Retry Delay of 1 s with NOERROR (RFC 8490 section 7.2.1)", msg)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := dnstest.ReadMsg(c); err == nil {
			t.Error("the session goes on")
		}
	}
	e.await(0)
}
