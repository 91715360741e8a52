package dnsserver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

func readID(t testing.TB, c net.Conn) uint16 {
	t.Helper()
	msg, err := dnstest.ReadMsg(c)
	if err != nil {
		t.Fatal(err)
	}
	return dnstest.Unpack(t, msg).Id
}

// wantClosed checks that the server has closed c.
func wantClosed(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d octets, %v; want the connection closed", n, err)
	}
}

// TestServer_TCP_Pipelining: a thousand queries in one write (RFC 7766 section
// 6.2.1.1), each answered, in order as nothing is deferred.
func TestServer_TCP_Pipelining(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	c := dial(t, s, "tcp")
	var all []byte
	for id := range uint16(1000) {
		all = append(all, frame(query(t, id))...)
	}
	send(t, c, all)
	for id := range uint16(1000) {
		if got := readID(t, c); got != id {
			t.Fatalf("answer %d has id %d", id, got)
		}
	}
}

func TestServer_TCP_OneOctetAtATime(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	c := dial(t, s, "tcp")
	for _, octet := range append(frame(query(t, 1)), frame(query(t, 2))...) {
		send(t, c, []byte{octet})
	}
	if a, b := readID(t, c), readID(t, c); a != 1 || b != 2 {
		t.Errorf("answers %d and %d", a, b)
	}
}

// TestServer_TCP_HalfClosedClientGetsItsAnswers, deferred ones too.
func TestServer_TCP_HalfClosedClientGetsItsAnswers(t *testing.T) {
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) { c.Slow = echoSlow })
	c := dial(t, s, "tcp")
	txt := query(t, 2)
	txt[len(txt)-3] = byte(wire.TypeTXT)
	send(t, c, append(frame(query(t, 1)), frame(txt)...))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	ids := []uint16{readID(t, c), readID(t, c)}
	slices.Sort(ids)
	if ids[0] != 1 || ids[1] != 2 {
		t.Errorf("answers %v", ids)
	}
	wantClosed(t, c)
}

// TestServer_TCP_LargeMessages: a query of 65,535 octets is read, and refused for
// what it is; answers of that size are written, many on one connection.
func TestServer_TCP_LargeMessages(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(large))
	c := dial(t, s, "tcp")
	send(t, c, frame(append(query(t, 1), make([]byte, 65535-len(query(t, 1)))...)))
	msg, err := dnstest.ReadMsg(c)
	if err != nil {
		t.Fatal(err)
	}
	dnstest.Want(t, dnstest.Unpack(t, msg), "FORMERR qr; !aa")
	ask := frame(bytes.ReplaceAll(query(t, 1), []byte("\x03web\x03svc"), []byte("\x1e"+strings.Repeat("w", 30)+"\x03svc")))
	for range 5 {
		send(t, c, bytes.Repeat(ask, 10))
		for range 10 {
			msg, err := dnstest.ReadMsg(c)
			if err != nil {
				t.Fatal(err)
			}
			if m := dnstest.Unpack(t, msg); len(m.Answer) != 300 || m.Truncated {
				t.Fatalf("%d records in %d octets, TC %v", len(m.Answer), len(msg), m.Truncated)
			}
		}
	}
}

// TestServer_TCP_WhatIsNoDNSIsClosed at once, and nothing else is.
func TestServer_TCP_WhatIsNoDNSIsClosed(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	response := query(t, 1)
	response[2] |= 0x80
	for sentence, octets := range map[string][]byte{
		"a length of 0":           {0, 0},
		"a length below a header": append([]byte{0, 11}, make([]byte, 11)...),
		"a response":              frame(response),
	} {
		t.Run(sentence, func(t *testing.T) {
			c := dial(t, s, "tcp")
			send(t, c, append(frame(query(t, 9)), octets...))
			if id := readID(t, c); id != 9 {
				t.Errorf("the query before it is not answered")
			}
			wantClosed(t, c)
		})
	}
}

func TestServer_TCP_Timeouts(t *testing.T) {
	whole := frame(query(t, 1))
	const short = 50 * time.Millisecond
	for sentence, row := range map[string]struct {
		edit func(*dnsserver.Config)
		send []byte
	}{
		"to the first octet":                     {func(c *dnsserver.Config) { c.FirstByteTimeout = short }, nil},
		"to the end of a message, from a prefix": {func(c *dnsserver.Config) { c.MessageTimeout = short }, []byte{0xff, 0xff}},
		"idle":                                   {func(c *dnsserver.Config) { c.IdleTimeout = short }, whole},
		"in the middle of the second message":    {func(c *dnsserver.Config) { c.MessageTimeout = short }, append(slices.Clone(whole), whole[:20]...)},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) {
				c.FirstByteTimeout, c.MessageTimeout, c.IdleTimeout = time.Minute, time.Minute, time.Minute
				row.edit(c)
			})
			c := dial(t, s, "tcp")
			send(t, c, row.send)
			if len(row.send) >= len(whole) {
				readID(t, c)
			}
			wantClosed(t, c)
			if st := s.Server.Stats(); st.ConnsTimedOut != 1 {
				t.Errorf("%d connections timed out, want 1", st.ConnsTimedOut)
			}
		})
	}
}

// TestServer_TCP_DrippedOctetsDoNotExtendTheDeadline of a message.
func TestServer_TCP_DrippedOctetsDoNotExtendTheDeadline(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.MessageTimeout = 200 * time.Millisecond })
	c := dial(t, s, "tcp")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range 65535 {
		octet := byte(0)
		if i < 2 {
			octet = 0xff // the longest message there is
		}
		if _, err := c.Write([]byte{octet}); err != nil {
			return // closed, as it should be
		}
		if i > 500 {
			t.Fatal("a dripping client is still connected after 5 s")
		}
		<-tick.C
	}
}

// TestServer_TCP_OldestIdleMakesRoom at a client's limit: not the one that is
// active, and not one that waits for a deferred answer.
func TestServer_TCP_OldestIdleMakesRoom(t *testing.T) {
	release := make(chan struct{})
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) {
		c.MaxConnsPerIP = 3
		c.Slow = slowFunc(func(ctx context.Context, query []byte, _ dnsserver.Client, w dnsserver.Writer) error {
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
			query[2] |= 0x80
			return w.WriteMsg(query)
		})
	})
	waiting, idle, active := dial(t, s, "tcp"), dial(t, s, "tcp"), dial(t, s, "tcp")
	txt := query(t, 1)
	txt[len(txt)-3] = byte(wire.TypeTXT)
	send(t, waiting, append(frame(txt), frame(query(t, 2))...))
	if id := readID(t, waiting); id != 2 {
		t.Fatalf("answer %d", id)
	}
	for _, c := range []net.Conn{idle, active} {
		send(t, c, frame(query(t, 3)))
		readID(t, c)
	}
	// All three have been active since they were accepted, so the search has to
	// go round once; then idle is the least recent.
	fresh := dial(t, s, "tcp")
	send(t, fresh, frame(query(t, 4)))
	if id := readID(t, fresh); id != 4 {
		t.Fatalf("answer %d", id)
	}
	wantClosed(t, idle)
	send(t, active, frame(query(t, 5)))
	if id := readID(t, active); id != 5 {
		t.Errorf("the active connection gets answer %d", id)
	}
	close(release)
	if id := readID(t, waiting); id != 1 {
		t.Errorf("the waiting connection gets answer %d", id)
	}
	if st := s.Server.Stats(); st.ConnsEvicted != 1 || st.Conns != 3 || st.ConnsRefused != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestServer_TCP_RefusesWhenNoneIsIdle(t *testing.T) {
	release := make(chan struct{})
	started := make(chan struct{})
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) {
		c.MaxConns = 1
		c.Slow = slowFunc(func(ctx context.Context, query []byte, _ dnsserver.Client, w dnsserver.Writer) error {
			close(started)
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
			query[2] |= 0x80
			return w.WriteMsg(query)
		})
	})
	c := dial(t, s, "tcp")
	txt := query(t, 1)
	txt[len(txt)-3] = byte(wire.TypeTXT)
	send(t, c, frame(txt))
	<-started
	wantClosed(t, dial(t, s, "tcp"))
	close(release)
	readID(t, c)
	if st := s.Server.Stats(); st.ConnsRefused != 1 || st.ConnsEvicted != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestServer_TCP_Slowloris: 500 idle and 200 dripping connections of one client
// keep neither TCP nor UDP from answering.
func TestServer_TCP_Slowloris(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) {
		c.FirstByteTimeout, c.MessageTimeout = time.Hour, time.Hour // none of them goes by itself
	})
	for i := range 700 {
		c := dial(t, s, "tcp")
		if i >= 500 {
			// A dripping client: it may have been evicted already, by its own.
			_, _ = c.Write([]byte{0xff})
		}
	}
	for _, words := range []string{"a. A", "a. A +tcp"} {
		dnstest.Want(t, s.Query(t, words), "NOERROR", "answer a. 5 IN A 10.0.0.1")
	}
	if st := s.Server.Stats(); st.Conns > 256 || st.ConnsEvicted < 400 {
		t.Errorf("%d connections, %d evicted", st.Conns, st.ConnsEvicted)
	}
}

// TestServer_Run_EndsThoughAClientDoesNotRead its answers, which fill all the
// buffers on the way.
func TestServer_Run_EndsThoughAClientDoesNotRead(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, handlerFunc(large))
	c := dial(t, s, "tcp")
	ask := frame(bytes.ReplaceAll(query(t, 1), []byte("\x03web\x03svc"), []byte("\x1e"+strings.Repeat("w", 30)+"\x03svc")))
	send(t, c, bytes.Repeat(ask, 500))
	prefix := make([]byte, 2)
	if _, err := io.ReadFull(c, prefix); err != nil || binary.BigEndian.Uint16(prefix) < 60000 {
		t.Fatalf("no answer: %v", err)
	}
	s.Stop(t)
}
