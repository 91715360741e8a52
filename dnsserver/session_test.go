package dnsserver_test

import (
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
)

// keeper is a session that is kept for a time of silence, and tells the client something
// when it is told to.
type keeper struct {
	kept time.Duration
	tell chan struct{}
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
		w.End()
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
	_, addr, config := startTLS(t, handlerFunc(address), func(c *dnsserver.Config) {
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
