package dnsserver_test

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
)

// keeper is a session that is kept for a time of silence, and tells the client something
// when it is told to.
type keeper struct {
	kept time.Duration
	tell chan struct{}
	bye  []byte // to Leave with, once tell is closed; nil: End
	s    *dnstest.Server
	w    dnsserver.SessionWriter
	done chan struct{}
}

func (k *keeper) Open(w dnsserver.SessionWriter, _ dnsserver.Client) dnsserver.Session {
	k.w, k.done = w, make(chan struct{})
	go func() {
		defer close(k.done)
		for range k.tell {
			_ = w.WriteMsg(make([]byte, 12)) // the reader sees whether it came
		}
		if k.bye == nil {
			w.End()
			return
		}
		w.Leave(k.bye)
	}()
	return k
}

func (k *keeper) Message([]byte) bool {
	k.w.Keep(k.kept)
	return k.w.WriteMsg(make([]byte, 12)) == nil
}

func (k *keeper) Close() {}

// begin opens the session of a new connection.
func (k *keeper) begin(t *testing.T) *tls.Conn {
	t.Helper()
	var addr string
	var config *tls.Config
	k.s, addr, config = startTLS(t, handlerFunc(address), func(c *dnsserver.Config) {
		c.Sessions, c.IdleTimeout = k, 50*time.Millisecond
	})
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	send(t, c, frame([]byte{0, 1, 6 << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}))
	if _, err := io.ReadFull(c, make([]byte, 14)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServer_Sessions_silence: a session's connection ends when nothing is sent or
// received for as long as the session allows (RFC 8490 section 6.5.1), and not before.
func TestServer_Sessions_silence(t *testing.T) {
	t.Run("it ends", func(t *testing.T) {
		k := &keeper{kept: 300 * time.Millisecond, tell: make(chan struct{})}
		began := time.Now()
		c := k.begin(t)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("something is sent")
		}
		if took := time.Since(began); took < k.kept {
			t.Errorf("after %s, before %s", took, k.kept)
		}
		close(k.tell)
		<-k.done
	})
	t.Run("what the client is told is no silence", func(t *testing.T) {
		k := &keeper{kept: 2 * time.Second, tell: make(chan struct{})}
		c := k.begin(t)
		began := time.Now()
		for time.Since(began) < 2*k.kept {
			<-time.After(k.kept / 8)
			k.tell <- struct{}{}
			if _, err := io.ReadFull(c, make([]byte, 14)); err != nil {
				t.Fatalf("after %s: %v", time.Since(began), err)
			}
		}
		close(k.tell) // which ends it
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the session that its handler ended goes on")
		}
		<-k.done
	})
}

// TestServer_Sessions_leave: a client that was told to go is answered no more, has five
// seconds to close, and is cut off then (RFC 8490 section 6.6.1).
func TestServer_Sessions_leave(t *testing.T) {
	begin := func(t *testing.T) (*keeper, *tls.Conn) {
		k := &keeper{kept: time.Minute, tell: make(chan struct{}), bye: make([]byte, 20)}
		c := k.begin(t)
		close(k.tell)
		<-k.done
		if _, err := io.ReadFull(c, make([]byte, 2+len(k.bye))); err != nil {
			t.Fatal(err)
		}
		return k, c
	}
	t.Run("it closes", func(t *testing.T) {
		t.Parallel()
		k, c := begin(t)
		send(t, c, frame(query(t, 7)))
		if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want neither an answer nor the end of the connection", err)
		}
		c.Close()
		for deadline := time.Now().Add(10 * time.Second); k.s.Server.Stats().Conns > 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatal("the connection that the client has closed is still there")
			}
		}
		if n := k.s.Server.Stats().ConnsTimedOut; n != 0 {
			t.Errorf("%d connections were cut off", n)
		}
	})
	t.Run("it stays", func(t *testing.T) {
		t.Parallel()
		began := time.Now()
		k, c := begin(t)
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(began); took < 5*time.Second || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %s: %v, want a reset after 5 s", took, err)
		}
		if n := k.s.Server.Stats().ConnsTimedOut; n != 1 {
			t.Errorf("%d connections were cut off, want 1", n)
		}
	})
	t.Run("the server stops meanwhile", func(t *testing.T) {
		t.Parallel()
		k, c := begin(t)
		k.s.Stop(t)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("something is sent")
		}
	})
}
