package conformance_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// replyTimeout is far more than any reply needs. Nothing waits for it to pass:
// that something was dropped is seen by the answer to what was sent after it.
const replyTimeout = 10 * time.Second

// Ids of what is sent: the packet, and the probe after it.
const (
	packetID = 0x5a31
	probeID  = 0x7e02
)

// withID is the packet with an id, if it is long enough to have one.
func withID(packet []byte, id uint16) []byte {
	b := append([]byte(nil), packet...)
	if len(b) >= 2 {
		binary.BigEndian.PutUint16(b, id)
	}
	return b
}

// probe is a query that every server of the zone answers.
func probe() []byte { return withID(ask(origin, dns.TypeSOA), probeID) }

// dial connects to the server.
func dial(t *testing.T, network string) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), network, serverAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// isProbe reports whether a message is a good answer to the probe.
func isProbe(msg []byte) bool {
	return len(msg) > headerSize && binary.BigEndian.Uint16(msg) == probeID &&
		msg[2]&0x80 != 0 && msg[3]&15 == dns.RcodeSuccess && msg[7] == 1
}

// exchangeUDP sends a packet and a probe behind it. It returns the reply to the
// packet, nil if it was dropped. A server answers the datagrams of one source
// in their order, so the probe's answer ends the wait; without one the test
// fails.
func exchangeUDP(t *testing.T, packet []byte) []byte {
	t.Helper()
	conn := dial(t, "udp")
	for _, b := range [][]byte{withID(packet, packetID), probe()} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	var reply []byte
	buf := make([]byte, 65535)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("the server does not answer after the packet: %v", err)
		}
		switch msg := buf[:n]; {
		case isProbe(msg):
			return reply
		case reply != nil:
			t.Fatalf("a second reply: %x", msg)
		default:
			reply = append([]byte(nil), msg...)
		}
	}
}

// frame is a message with its length before it (RFC 1035 section 4.2.2).
func frame(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

// readFrame reads one framed message; io.EOF when the server has closed the
// connection, in whichever way.
func readFrame(conn net.Conn) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		if isReset(err) {
			return nil, io.EOF
		}
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, msg); err != nil {
		return nil, fmt.Errorf("reading a message of %d octets: %w", len(msg), err)
	}
	return msg, nil
}

// isReset reports whether the other side has thrown the connection away.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// exchangeTCP sends a packet and a probe behind it on one connection, and
// returns the reply to the packet, nil if it was dropped. The server may close
// the connection on a packet that is malformed; then it must still answer on
// another.
func exchangeTCP(t *testing.T, packet []byte) []byte {
	t.Helper()
	conn := dial(t, "tcp")
	if _, err := conn.Write(append(frame(withID(packet, packetID)), frame(probe())...)); err != nil {
		t.Fatal(err)
	}
	var reply []byte
	for {
		msg, err := readFrame(conn)
		if errors.Is(err, io.EOF) {
			requireAlive(t)
			return reply
		}
		if err != nil {
			t.Fatalf("the server does not answer after the packet: %v", err)
		}
		switch {
		case isProbe(msg):
			return reply
		case reply != nil:
			t.Fatalf("a second reply: %x", msg)
		default:
			reply = msg
		}
	}
}

// requireAlive fails the test unless the server answers on both transports.
func requireAlive(t *testing.T) {
	t.Helper()
	if reply := exchangeUDP(t, ask(origin, dns.TypeSOA)); reply == nil {
		t.Fatal("no answer over UDP")
	}
	conn := dial(t, "tcp")
	if _, err := conn.Write(frame(probe())); err != nil {
		t.Fatal(err)
	}
	if msg, err := readFrame(conn); err != nil || !isProbe(msg) {
		t.Fatalf("no answer over TCP: %x, %v", msg, err)
	}
}
