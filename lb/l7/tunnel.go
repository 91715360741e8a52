package l7

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
)

// tunnel is an upgraded connection: a WebSocket or another protocol, of which
// the proxy copies bytes both ways.
type tunnel struct {
	client   net.Conn
	instance net.Conn
	age      time.Duration // that it may reach from when it is to end

	mu    sync.Mutex // guards what is below
	timer *time.Timer
	until time.Time // when it fires
	over  bool
}

// closeIn closes the tunnel after a time, unless it is to be closed sooner.
func (t *tunnel) closeIn(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
	case d <= 0:
		t.over = true
		t.client.Close()
		t.instance.Close()
	case t.timer == nil:
		t.until = time.Now().Add(d)
		t.timer = time.AfterFunc(d, func() { t.closeIn(0) })
	case time.Now().Add(d).Before(t.until):
		t.until = time.Now().Add(d)
		t.timer.Reset(d)
	}
}

// end stops the timer.
func (t *tunnel) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// tunnel switches the exchange's two connections to the protocol that both
// agreed on and copies until one of them ends. The instance's end closes it: at
// once when it is marked down, since nothing else would tell the client, and
// after Limits.TunnelAge when it drains or is gone. So does the end of the
// proxy's own time, as far as Limits.Drain lets it.
func (p *Proxy) tunnel(ctx context.Context, x *exchange, c dispatch.Choice, a answer) error {
	defer a.finish()
	own, ok := a.(*answerHTTP1)
	client, early := x.to.hijack()
	if !ok || client == nil {
		return p.refuse(x, &failure{status: 502, why: "the instance switches protocols where that is not possible"})
	}
	x.status = 101
	fields := append(x.responseFields(), http1.NewField("Connection", "Upgrade"), http1.NewField("Upgrade", x.resp.Upgrade))
	head := append(appendFields(appendStatus(nil, 101, "Switching Protocols"), fields), "\r\n"...)
	client.SetDeadline(time.Time{})
	own.c.SetDeadline(time.Time{})
	if _, err := client.Write(append(head, own.rd.Buffered()...)); err != nil {
		return err
	}
	if len(early) > 0 {
		if _, err := own.c.Write(early); err != nil {
			return err
		}
	}
	t := &tunnel{client: client, instance: own.c, age: p.cfg.Limits.TunnelAge}
	p.counts.tunnels.Add(1)
	defer p.counts.tunnels.Add(-1)
	x.listener.dig(t, p.stopping.Load())
	defer x.listener.fill(t)
	defer t.end()
	stop := c.OnEnd(func(e dispatch.End) {
		if e == dispatch.EndDown {
			t.closeIn(0)
			return
		}
		t.closeIn(t.age)
	})
	defer stop()
	cut := context.AfterFunc(ctx, func() { t.closeIn(0) })
	defer cut()
	x.sent, x.received = t.copy()
	c.AddBytes(x.received, x.sent)
	return errGone // the connection has ended
}

// dig notes a tunnel, so that it ends with the listener.
func (l *listener) dig(t *tunnel, stopping bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnels[t] = struct{}{}
	if stopping {
		t.closeIn(t.age)
	}
}

func (l *listener) fill(t *tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tunnels, t)
}

// halfOpen is how long one direction may go on after the other has ended.
const halfOpen = 10 * time.Second

// copy copies both ways until both have ended, and returns how much was sent to
// the client and received from it.
func (t *tunnel) copy() (sent, received int64) {
	var up atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		n, _ := io.Copy(t.instance, t.client) // its end is all that matters
		up.Store(n)
		t.halfClose(t.instance)
	})
	sent, _ = io.Copy(t.client, t.instance)
	t.halfClose(t.client)
	running.Wait()
	return sent, up.Load()
}

// halfClose passes the end of one direction on, and bounds how long the other
// may last: unbounded, every client that vanishes would leak a connection.
func (t *tunnel) halfClose(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		t.closeIn(0)
		return
	}
	t.closeIn(halfOpen)
}
