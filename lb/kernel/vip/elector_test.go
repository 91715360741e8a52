package vip_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel/vip"
)

// leaseTime is short, so that a test takes few seconds.
const leaseTime = vip.LeaseMin + time.Second

// electoral is a server of one lease on a socket of the file system, which
// processes in all network namespaces reach. A client says its name, then "renew"
// or "resign"; it is answered "granted" once and "renewed" each time.
type electoral struct {
	path string

	mu     sync.Mutex
	holder string
	until  time.Time
	muted  map[string]bool
	freed  chan struct{} // closed and made anew when the lease may be free
}

func newElectoral(t *testing.T) *electoral {
	t.Helper()
	e := &electoral{path: filepath.Join(t.TempDir(), "elector"), muted: map[string]bool{}, freed: make(chan struct{})}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // t.Context is done only after this
	var serving sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				e.serve(ctx, c)
			})
		}
	})
	return e
}

// serve speaks to one client, which is gone when it returns; its lease lasts.
func (e *electoral) serve(ctx context.Context, c net.Conn) {
	lines := bufio.NewScanner(c)
	if !lines.Scan() {
		return
	}
	name := lines.Text()
	if !e.grant(ctx, name) {
		return
	}
	fmt.Fprintln(c, "granted")
	for lines.Scan() {
		e.mu.Lock()
		held := e.holder == name && time.Now().Before(e.until)
		muted := e.muted[name]
		if held && !muted {
			e.until = time.Now().Add(leaseTime)
		}
		if lines.Text() == "resign" && held {
			e.until = time.Now()
			close(e.freed)
			e.freed = make(chan struct{})
		}
		e.mu.Unlock()
		switch {
		case muted:
		case held:
			fmt.Fprintln(c, "renewed")
		default:
			return
		}
	}
}

// grant waits until the lease is free.
func (e *electoral) grant(ctx context.Context, name string) bool {
	for {
		e.mu.Lock()
		left := time.Until(e.until)
		if left <= 0 {
			e.holder, e.until = name, time.Now().Add(leaseTime)
			e.mu.Unlock()
			return true
		}
		freed := e.freed
		e.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-freed:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// mute has a client's requests get lost from here on.
func (e *electoral) mute(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.muted[name] = true
}

// client is an Elector that asks an electoral.
type client struct{ path, name string }

func (c client) Campaign(ctx context.Context, _ netip.Addr) (vip.Lease, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintln(conn, c.name)
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil {
		conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	l := &lease{conn: conn, lines: lines, changed: make(chan struct{}, 1)}
	l.deadline = time.Now() // the first renewal counts
	if !l.renew() {
		return nil, errors.New("lost at once")
	}
	go l.renewals()
	return l, nil
}

// lease renews itself until it is lost or resigned.
type lease struct {
	conn    net.Conn
	lines   *bufio.Reader
	changed chan struct{}

	mu       sync.Mutex
	deadline time.Time
}

func (l *lease) NotBefore() time.Time     { return time.Time{} } // the server waits
func (l *lease) Changed() <-chan struct{} { return l.changed }
func (l *lease) Err() error               { return errors.New("lost") }
func (l *lease) Release()                 { l.conn.Close() }

func (l *lease) Deadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

func (l *lease) Resign(context.Context) error {
	_, err := fmt.Fprintln(l.conn, "resign")
	return errors.Join(err, l.conn.Close())
}

// renew asks once; an answer that does not come is waited for.
func (l *lease) renew() bool {
	asked := time.Now()
	if _, err := fmt.Fprintln(l.conn, "renew"); err != nil {
		return false
	}
	line, err := l.lines.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "renewed" {
		return false
	}
	l.mu.Lock()
	l.deadline = asked.Add(leaseTime)
	l.mu.Unlock()
	return true
}

func (l *lease) renewals() {
	defer close(l.changed)
	pace := time.NewTicker(leaseTime / 5)
	defer pace.Stop()
	for range pace.C {
		if !l.renew() {
			return
		}
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}
