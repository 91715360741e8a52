//go:build linux

package l4_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/registry"
)

func TestProxy_InstanceFails(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, named("a")).Addr())
	e.add("web/b", serve(t, named("b")).Addr())
	cut := e.start()
	kept := e.start(func(c *l4.Config) { c.OnDown = l4.DownDrain })
	conns := map[*proxy][]*net.TCPConn{}
	at := map[*net.TCPConn]string{}
	resets := 0 // that there are to be
	for _, p := range []*proxy{cut, kept} {
		for range 20 {
			c := p.dial()
			name := make([]byte, 2)
			if _, err := io.ReadFull(c, name); err != nil {
				t.Fatal(err)
			}
			conns[p], at[c] = append(conns[p], c), string(name)
			if p == cut && at[c] == "a\n" {
				resets++
			}
		}
	}
	if resets == 0 || resets == 20 {
		t.Fatalf("instance a has %d of 20 connections", resets)
	}
	e.admin("a", registry.AdminDown)
	wait(t, "resets", func() bool {
		s := cut.Stats()
		return s.Down == uint64(resets) && s.Active == int64(20-resets)
	})
	for _, c := range conns[cut] {
		_, _ = io.WriteString(c, "x") // reading tells
		if end := ending(c); (end == `"x"`) != (at[c] == "b\n") {
			t.Errorf("a connection to %q ends with %s", at[c], end)
		}
	}
	for _, c := range conns[kept] {
		say(t, c, "still there\n")
	}
	if kept.Stats().Down != 0 {
		t.Errorf("stats %+v", kept.Stats())
	}
	for range 20 { // new ones avoid it
		hear(t, cut.dial(), "b\n")
	}
	if cut.Stats().Active != 40-int64(resets) {
		t.Errorf("stats %+v", cut.Stats())
	}
}

func TestProxy_Drain(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, named("a")).Addr())
	p := e.start()
	limited := e.start(func(c *l4.Config) { c.DrainTimeout = 500 * time.Millisecond })
	c, l := p.dial(), limited.dial()
	hear(t, c, "a\n")
	hear(t, l, "a\n")
	e.add("web/b", serve(t, named("b")).Addr())
	e.admin("a", registry.AdminDrain)
	for range 10 {
		hear(t, p.dial(), "b\n")
	}
	wantEnding(t, l, "reset")
	limited.count("drained", func(s l4.Stats) uint64 { return s.Drained }, 1)
	say(t, c, "still there\n")
}

// TestProxy_MembershipChangesCutNothing: 1,000 changes around connections that
// are in use all the time.
func TestProxy_MembershipChangesCutNothing(t *testing.T) {
	e := newEnv(t)
	for i := range 3 {
		e.add(fmt.Sprintf("web/base%d", i), serve(t, echo).Addr())
	}
	p := e.start()
	ctx, cancel := context.WithCancel(t.Context())
	var users sync.WaitGroup
	var messages atomic.Int64
	for range 10 {
		c := p.dial()
		users.Go(func() {
			for ctx.Err() == nil {
				say(t, c, "hello\n")
				messages.Add(1)
			}
		})
	}
	spare := serve(t, echo)
	for i := range 1000 {
		id := fmt.Sprintf("spare%d", i%7)
		in := e.list[0]
		in.ID, in.Port, in.Weight = id, uint16(spare.Addr().(*net.TCPAddr).Port), uint16(1+i%5)
		switch i % 3 {
		case 0, 1:
			e.apply(registry.Batch{Instances: []registry.Instance{in}})
		case 2:
			e.apply(registry.Batch{Deleted: []registry.Key{{Kind: registry.KindInstance, Service: "web", Name: id}}})
		}
		if i%100 == 0 {
			users.Go(func() { say(t, p.dial(), "new\n") })
		}
	}
	from := messages.Load()
	wait(t, "messages after the changes", func() bool { return messages.Load() > from+100 })
	cancel()
	users.Wait()
	if s := p.Stats(); s.Down+s.Drained+s.Idle+s.Unserved+s.Unreachable > 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestProxy_DeregisteredInstanceKeepsItsConnections.
func TestProxy_DeregisteredInstanceKeepsItsConnections(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	c := p.dial()
	say(t, c, "hello\n")
	e.apply(registry.Batch{Deleted: []registry.Key{{Kind: registry.KindInstance, Service: "web", Name: "a"}}})
	p.refused("127.0.0.1") // nobody for new ones
	say(t, c, "still there\n")
}

func TestProxy_Stop(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	c := p.dial()
	say(t, c, "hello\n")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop()
	}()
	wait(t, "the listener to close", func() bool {
		return len(p.Sockets()) == 0
	})
	if again, err := net.Dial("tcp", p.Addr().String()); err == nil {
		again.Close()
		t.Error("a stopped proxy takes connections")
	}
	for range 100 {
		say(t, c, "still there\n")
	}
	select {
	case <-stopped:
		t.Error("Run returned with a connection open")
	default:
	}
	c.Close()
	<-stopped

	p = e.start(func(c *l4.Config) { c.StopTimeout = 100 * time.Millisecond })
	c = p.dial()
	say(t, c, "hello\n")
	p.stop()
	wantEnding(t, c, "reset")
	if n := p.Stats().Stopped; n != 1 {
		t.Errorf("%d connections were counted as stopped", n)
	}
}

// inherit hands a proxy's sockets over to the next.
func inherit(t *testing.T, old *proxy) func(*l4.Config) {
	sockets := old.Sockets()
	return func(c *l4.Config) {
		c.Inherited = func(name string) *os.File {
			if sockets[name] == nil {
				t.Fatalf("no socket %s among %v", name, sockets)
			}
			raw, err := sockets[name].SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var fd int
			if controlErr := raw.Control(func(from uintptr) { fd, err = syscall.Dup(int(from)) }); controlErr != nil || err != nil {
				t.Fatal(controlErr, err)
			}
			return os.NewFile(uintptr(fd), name)
		}
	}
}

// TestProxy_HandOver: another Proxy takes the sockets over while clients
// connect, and not one is refused or cut.
func TestProxy_HandOver(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	ctx, cancel := context.WithCancel(t.Context())
	var users sync.WaitGroup
	var served atomic.Int64
	for range 4 {
		users.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", p.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				say(t, c, "hello\n")
				c.Close()
				served.Add(1)
			}
		})
	}
	long := p.dial()
	say(t, long, "hello\n")
	proxies := []*proxy{p}
	for range 5 {
		from := served.Load()
		wait(t, "connections", func() bool { return served.Load() > from+50 })
		old := proxies[len(proxies)-1]
		next := e.start(inherit(t, old))
		if next.Addr() != old.Addr() {
			t.Fatalf("the next listens on %s, want %s", next.Addr(), old.Addr())
		}
		proxies = append(proxies, next)
		if old != p {
			old.stop()
		} else { // the first keeps its long connection
			users.Go(old.stop)
		}
		wait(t, "the next to accept", func() bool { return next.Stats().Accepted > 0 })
	}
	say(t, long, "still there\n")
	long.Close()
	cancel()
	users.Wait()
}
