package conformance_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// send writes to the server.
func send(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// receive reads one message and returns its id.
func receive(t *testing.T, conn net.Conn) uint16 {
	t.Helper()
	msg, err := readFrame(conn)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("%v: %x", err, msg)
	}
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		t.Fatalf("not an answer: %s", m)
	}
	return m.Id
}

func TestStream_RFC7766Section6_2_1_1_PipelinedQueriesAreAllAnswered(t *testing.T) {
	conn := dial(t, "tcp")
	var all []byte
	var want, got []uint16
	for id := range uint16(100) {
		want = append(want, id)
		all = append(all, frame(withID(ask("www."+origin, dns.TypeA), id))...)
	}
	send(t, conn, all)
	for range want {
		got = append(got, receive(t, conn))
	}
	slices.Sort(got) // RFC 7766 section 7: in any order
	if !slices.Equal(got, want) {
		t.Errorf("ids %v, want each from 0 to 99 once", got)
	}
}

func TestStream_RFC7766Section6_2_1_AConnectionIsUsedAgain(t *testing.T) {
	conn := dial(t, "tcp")
	for id := range uint16(5) {
		send(t, conn, frame(withID(ask("www."+origin, dns.TypeA), id)))
		if got := receive(t, conn); got != id {
			t.Errorf("id %d, want %d", got, id)
		}
	}
}

func TestStream_RFC7766Section8_AQueryMayComeInAnyPieces(t *testing.T) {
	conn := dial(t, "tcp")
	two := append(frame(withID(ask("www."+origin, dns.TypeA), 1)), frame(withID(ask(origin, dns.TypeSOA), 2))...)
	if err := conn.(*net.TCPConn).SetNoDelay(true); err != nil {
		t.Fatal(err)
	}
	for i := range two {
		send(t, conn, two[i:i+1])
	}
	if a, b := receive(t, conn), receive(t, conn); a+b != 3 {
		t.Errorf("ids %d and %d, want 1 and 2", a, b)
	}
}

func TestStream_RFC7766Section8_AReplyIsOneSegmentWithItsLength(t *testing.T) {
	conn := dial(t, "tcp")
	send(t, conn, frame(withID(ask("www."+origin, dns.TypeA), 9)))
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if n < 2 || int(binary.BigEndian.Uint16(buf)) != n-2 {
		t.Errorf("the first read has %d octets, want the length and the whole reply: %x", n, buf[:n])
	}
}

func TestStream_RFC7766Section6_2_4_AHalfClosedConnectionStillGetsItsReplies(t *testing.T) {
	conn := dial(t, "tcp")
	send(t, conn, append(frame(withID(ask("www."+origin, dns.TypeA), 1)), frame(withID(ask(origin, dns.TypeSOA), 2))...))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if a, b := receive(t, conn), receive(t, conn); a+b != 3 {
		t.Errorf("ids %d and %d, want 1 and 2", a, b)
	}
	if msg, err := readFrame(conn); !errors.Is(err, io.EOF) {
		t.Errorf("after the last reply: %x, %v; want the connection closed", msg, err)
	}
}

// TestStream_Hostile sends what is no DNS and leaves: no reply is owed, and the
// server goes on answering others.
func TestStream_Hostile(t *testing.T) {
	cases := map[string][]byte{
		"RFC 1035 section 4.2.2: a message of no octets":         {0, 0},
		"RFC 1035 section 4.2.2: many messages of no octets":     make([]byte, 4096),
		"RFC 1035 section 4.2.2: a message of one octet":         {0, 1, 0},
		"RFC 1035 section 4.2.2: a length and no message":        {0xff, 0xff},
		"RFC 1035 section 4.2.2: a length of 65535 and a little": append([]byte{0xff, 0xff}, make([]byte, 100)...),
		"RFC 1035 section 4.2.2: half a length":                  {0},
		"a request of HTTP":                                      []byte("GET / HTTP/1.1\r\nHost: muster\r\n\r\n"),
		"the beginning of a hello of TLS":                        {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
	}
	for name, octets := range cases {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, "tcp")
			send(t, conn, octets)
			_ = conn.(*net.TCPConn).CloseWrite() // fails if the server has closed
			requireAlive(t)
			// Having said that nothing follows, we see the connection closed:
			// the server keeps nothing of it.
			if _, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
}

// TestStream_RFC7766Section10_IdleConnectionsDoNotKeepOthersOut opens many
// connections that say nothing.
func TestStream_RFC7766Section10_IdleConnectionsDoNotKeepOthersOut(t *testing.T) {
	for range 500 {
		dial(t, "tcp")
	}
	requireAlive(t)
}
