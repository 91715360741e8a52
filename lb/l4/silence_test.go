//go:build linux

package l4_test

import (
	"io"
	"net"
	"testing"
)

// TestProxy_SilentInstance: an instance that accepts and says nothing, as one
// that was stopped, is told to its checks, and its connection stays.
func TestProxy_SilentInstance(t *testing.T) {
	silent := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	once := func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, 4)); err == nil {
			_, _ = io.WriteString(c, "pong")
			silent(c)
		}
	}
	for name, of := range map[string]struct {
		backend func(*net.TCPConn)
		speak   func(t *testing.T, c *net.TCPConn)
	}{
		"of which a greeting is awaited": {silent, func(*testing.T, *net.TCPConn) {}},
		"that was asked": {silent, func(t *testing.T, c *net.TCPConn) {
			if _, err := io.WriteString(c, "ping"); err != nil {
				t.Fatal(err)
			}
		}},
		"that has answered before": {once, func(t *testing.T, c *net.TCPConn) {
			if _, err := io.WriteString(c, "ping"); err != nil {
				t.Fatal(err)
			}
			hear(t, c, "pong")
			if _, err := io.WriteString(c, "ping"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.add("web/a", serve(t, of.backend).Addr())
			p := e.start()
			c := p.dial()
			of.speak(t, c)
			wait(t, "the silence to be told", func() bool { return e.dispatch.Stats().Silences > 0 })
			if s := e.dispatch.Stats(); s.Ejections != 0 || s.Active != 1 {
				t.Errorf("%d ejections and %d connections, want none and the one", s.Ejections, s.Active)
			}
		})
	}
}

// TestProxy_AnsweredConnection: once it has answered, an instance that is asked
// nothing owes nothing.
func TestProxy_AnsweredConnection(t *testing.T) {
	e := newEnv(t)
	e.add("web/quiet", serve(t, echo).Addr())
	p := e.start()
	say(t, p.dial(), "ping")
	// Whoever is silent for as long is told, by the same clock.
	other := newEnv(t)
	other.add("web/a", serve(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }).Addr())
	q := other.start()
	q.dial()
	wait(t, "the other's silence to be told", func() bool { return other.dispatch.Stats().Silences > 0 })
	if n := e.dispatch.Stats().Silences; n != 0 {
		t.Errorf("told %d times of an instance that has answered all", n)
	}
}
