//go:build linux

package l4_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
)

func TestProxy_PassesMessagesOn(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	c := p.dial()
	for range 1000 {
		say(t, c, "hello\n")
	}
	instance := func() dispatch.InstanceInfo { return p.Explain(p.Addr().Addr(), "").Backend.Instances[0] }
	// Live: the connection is open. A loop counts what it has done a moment later.
	p.count("octets in", func(s l4.Stats) uint64 { return s.BytesIn }, 6000)
	p.count("octets out", func(s l4.Stats) uint64 { return s.BytesOut }, 6000)
	wait(t, "the instance's figures", func() bool {
		i := instance()
		return i.BytesIn == 6000 && i.BytesOut == 6000 && i.Active == 1
	})
	c.Close()
	p.idle()
	wait(t, "the instance to be idle", func() bool { return instance().Active == 0 })
	if i := instance(); i.Failures != 0 {
		t.Errorf("instance %+v", i)
	}
}

// random is n octets that nothing else has.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// TestProxy_LargeBodiesArriveWhole: both ways at one time, by copies and
// splices, to readers that stop now and then.
func TestProxy_LargeBodiesArriveWhole(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	sizes := []int{1, 65535, 65536, 65537, 1 << 20, 16<<20 + 1}
	var group sync.WaitGroup
	for i, size := range sizes {
		c := p.dial()
		body := random(uint64(i), size)
		group.Go(func() {
			if _, err := c.Write(body); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			h := sha256.New()
			n, err := io.Copy(h, &slowly{c: c})
			if err != nil || int(n) != size {
				t.Errorf("body of %d octets: read %d, %v", size, n, err)
			}
			if want := sha256.Sum256(body); !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("body of %d octets is another", size)
			}
		})
	}
	group.Wait()
	p.idle()
	if s := p.Stats(); s.BytesIn != s.BytesOut || s.LocalFailed > 0 {
		t.Errorf("stats %+v", s)
	}
}

// slowly reads in pieces of odd sizes, and yields between them.
type slowly struct {
	c net.Conn
	n int
}

func (s *slowly) Read(b []byte) (int, error) {
	s.n = (s.n*31 + 977) % 40_000
	for range s.n % 64 {
		runtime.Gosched()
	}
	return s.c.Read(b[:min(len(b), s.n+1)])
}

// TestProxy_ReaderThatStops: what it does not take is not read from the sender
// beyond what sockets and a pipe hold, others go on, and it gets all in the end.
func TestProxy_ReaderThatStops(t *testing.T) {
	e := newEnv(t)
	const size = 64 << 20
	e.add("web/a", serve(t, func(c *net.TCPConn) {
		line := make([]byte, 6)
		if _, err := io.ReadFull(c, line); err != nil {
			return
		}
		if string(line) != "flood\n" {
			_, _ = c.Write(line) // the test sees what is missing
			return
		}
		piece := make([]byte, 1<<20)
		for range size / len(piece) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}).Addr())
	p := e.start(func(c *l4.Config) { c.Workers = 1 })
	slow := p.dial()
	if _, err := io.WriteString(slow, "flood\n"); err != nil {
		t.Fatal(err)
	}
	var last uint64
	wait(t, "the flow to stand", func() bool {
		n := p.Stats().BytesOut
		standing := n > 0 && n == last
		last = n
		return standing
	})
	if last > size/2 {
		t.Errorf("%d octets went to a client that reads none", last)
	}
	for range 20 {
		say(t, p.dial(), "hello\n")
	}
	n, err := io.Copy(io.Discard, slow)
	if err != nil || n != size {
		t.Errorf("read %d octets, %v; want %d", n, err, size)
	}
}

func TestProxy_HalfClose(t *testing.T) {
	e := newEnv(t)
	whole := make(chan string, 2)
	e.add("web/a", serve(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c) // needs the client's FIN
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(b) // the test sees what is missing
	}).Addr())
	e.add("side/b", serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "all I say") // the test sees what is missing
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		whole <- string(b)
	}).Addr())
	c := e.start().dial()
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	hear(t, c, "question")
	wantEnding(t, c, "closed")

	side := web
	side.Service = "side"
	c = e.start(func(c *l4.Config) { c.Default = side }).dial()
	hear(t, c, "all I say")
	wantEnding(t, c, "closed")
	if _, err := io.WriteString(c, "still here"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := <-whole; got != "still here" {
		t.Errorf("after its FIN the instance read %q", got)
	}
}

// hold keeps a connection until its other side has gone.
func hold(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

// held keeps a connection open, deaf to its FIN, until release is closed.
func held(release chan struct{}) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		hold(c)
		<-release
	}
}

// TestProxy_HalfCloseIsBounded: proxies that wait for ever for the other FIN
// leak two sockets a client.
func TestProxy_HalfCloseIsBounded(t *testing.T) {
	release := make(chan struct{})
	e := newEnv(t)
	b := serve(t, held(release))
	e.add("web/a", b.Addr())
	t.Cleanup(func() { close(release) })
	p := e.start(func(c *l4.Config) { c.HalfCloseTimeout = 200 * time.Millisecond })
	var conns []*net.TCPConn
	for range 10 {
		c := p.dial()
		if _, err := io.WriteString(c, "bye"); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		wantEnding(t, c, "reset")
	}
	p.idle()
	p.count("ended half-closed", func(s l4.Stats) uint64 { return s.HalfClosed }, 10)
}

// TestProxy_UrgentOctets: reading stops before one, with no edge for what is
// behind it.
func TestProxy_UrgentOctets(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	for range 50 {
		c := p.dial()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "before"); err != nil {
			t.Fatal(err)
		}
		controlErr := raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil) })
		if controlErr != nil || err != nil {
			t.Fatal(controlErr, err)
		}
		if _, err := io.WriteString(c, "behind"); err != nil {
			t.Fatal(err)
		}
		hear(t, c, "before!behind")
		c.Close()
	}
}

func TestProxy_IdleTimeout(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start(func(c *l4.Config) { c.IdleTimeout = 2 * time.Second })
	c := p.dial()
	say(t, c, "hello\n")
	wantEnding(t, c, "reset")
	p.count("idle", func(s l4.Stats) uint64 { return s.Idle }, 1)
	p.idle()
}

// TestProxy_ResetsArePassedOn: an answer that was cut off must not look whole.
func TestProxy_ResetsArePassedOn(t *testing.T) {
	e := newEnv(t)
	got := make(chan string, 1)
	e.add("web/a", serve(t, func(c *net.TCPConn) {
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if string(b) == "cut\n" {
			_, _ = io.WriteString(c, "half of an ans") // the test sees what is missing
			_ = c.SetLinger(0)
			return
		}
		got <- ending(c)
	}).Addr())
	p := e.start()
	c := p.dial()
	if _, err := io.WriteString(c, "cut\n"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err == nil {
		t.Errorf("the client took %q for the whole answer", all)
	}
	p.idle()
	if i := p.Explain(p.Addr().Addr(), "").Backend.Instances; i[0].Failures != 1 {
		t.Errorf("instances %+v, want one failure", i)
	}

	c = p.dial()
	if _, err := io.WriteString(c, "hear"); err != nil {
		t.Fatal(err)
	}
	p.count("octets in", func(s l4.Stats) uint64 { return s.BytesIn }, 8)
	_ = c.SetLinger(0)
	c.Close()
	if end := <-got; end != "reset" {
		t.Errorf("the client's reset came as %s", end)
	}
	p.idle()
	if i := p.Explain(p.Addr().Addr(), "").Backend.Instances; i[0].Failures != 1 {
		t.Errorf("instances %+v: the client's reset is no failure of theirs", i)
	}
}

// TestProxy_AnswerBeforeTheQuestionHasEnded: an instance that answers early and
// closes resets, as octets are unread; its answer arrives all the same.
func TestProxy_AnswerBeforeTheQuestionHasEnded(t *testing.T) {
	e := newEnv(t)
	const answer = "413 too large"
	e.add("web/a", serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1000)
		if _, err := io.ReadFull(c, b); err == nil {
			_, _ = io.WriteString(c, answer) // the test sees what is missing
		}
	}).Addr())
	p := e.start()
	for range 20 {
		c := p.dial()
		var writer sync.WaitGroup
		writer.Go(func() { _, _ = c.Write(make([]byte, 8<<20)) }) // may fail, as the instance has heard enough
		hear(t, c, answer)
		c.Close()
		writer.Wait()
	}
	p.idle()
}

// TestProxy_IdleConnectionsCostNoGoroutine, nor a descriptor beyond their two
// sockets.
func TestProxy_IdleConnectionsCostNoGoroutine(t *testing.T) {
	e := newEnv(t)
	e.add("web/a", serve(t, echo).Addr())
	p := e.start()
	say(t, p.dial(), "hello\n")
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	const n = 100
	for range n {
		c := p.dial()
		say(t, c, "hello\n")
		if _, err := c.Write(make([]byte, 200<<10)); err != nil { // by splice
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if got := runtime.NumGoroutine() - goroutines; got > n+5 { // the test's own server has one each
		t.Errorf("%d connections have %d goroutines beside the instance's", n, got-n)
	}
	if got := descriptors(t) - files; got > 4*n+2*16 { // client's, proxy's two, instance's; a few pipes of the loops
		t.Errorf("%d connections have %d descriptors", n, got)
	}
}
