package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// localInstance is an instance that this program serves.
type localInstance struct {
	l       net.Listener
	running sync.WaitGroup
	mu      sync.Mutex // guards open
	open    map[net.Conn]bool
}

// startInstance has each connection served until serve returns.
func startInstance(serve func(net.Conn)) (*localInstance, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &localInstance{l: l, open: map[net.Conn]bool{}}
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.note(c, true)
			s.running.Go(func() {
				defer s.note(c, false)
				defer c.Close()
				serve(c)
			})
		}
	})
	return s, nil
}

// note notes whether a connection is open.
func (s *localInstance) note(c net.Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.open[c] = true
	} else {
		delete(s.open, c)
	}
}

func (s *localInstance) addr() string { return s.l.Addr().String() }

func (s *localInstance) stop() {
	s.l.Close()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// answerHTTP answers each request by its first bytes, with next to no work of
// its own.
func answerHTTP(c net.Conn) {
	answers := make([][]byte, len(l7Kinds))
	for k := range l7Kinds {
		answers[k] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(l7Kinds[k].body), l7Kinds[k].body)
	}
	r := bufio.NewReaderSize(c, 16<<10)
	for {
		kind, length := 0, 0
		for first := true; ; first = false {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if first {
				kind = kindOf(line)
			}
			if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("content-length")) {
				if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
					return
				}
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(length); err != nil {
			return
		}
		if _, err := c.Write(answers[kind]); err != nil {
			return
		}
	}
}

// kindOf is which of l7Kinds a request line is of.
func kindOf(line []byte) int {
	for k := range l7Kinds {
		if strings.HasPrefix(l7Kinds[k].request, string(line[:bytes.LastIndexByte(line, ' ')])) {
			return k
		}
	}
	return 0
}

// asker is a client's connection.
type asker struct {
	c    net.Conn
	r    *bufio.Reader
	kind *l7Kind

	ended bool // the last answer said that nothing follows it
}

func dialAsker(ctx context.Context, addr string, kind *l7Kind) (*asker, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &asker{c: c, r: bufio.NewReaderSize(c, 64<<10), kind: kind}, nil
}

// ask sends a request and reads its response.
func (a *asker) ask() error {
	n, err := a.get(a.kind.request, time.Now().Add(startTimeout), io.Discard)
	if err == nil && n != int64(len(a.kind.body)) {
		err = fmt.Errorf("%d bytes, want %d", n, len(a.kind.body))
	}
	return err
}

// errSilent is that a connection ended before an answer began.
var errSilent = errors.New("the connection ended before an answer")

// get sends a request, and reads the body of its response into a writer until a
// time. It is an error unless the status is 200.
func (a *asker) get(request string, until time.Time, body io.Writer) (n int64, err error) {
	a.c.SetDeadline(until)
	if _, err := io.WriteString(a.c, request); err != nil {
		return 0, fmt.Errorf("%w: %w", errSilent, err)
	}
	switch _, err := a.r.Peek(1); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errSilent, err)
	}
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	a.ended = resp.Close
	n, err = io.Copy(body, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return n, err
}

// exchangeClosed has n requests made over connections, each of which asks again
// as soon as it was answered.
func exchangeClosed(ctx context.Context, addr string, kind *l7Kind, conns, n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	return together(conns, func(int) error {
		a, err := dialAsker(ctx, addr, kind)
		if err != nil {
			return err
		}
		defer a.c.Close()
		for left.Add(-1) >= 0 {
			if err := a.ask(); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// exchangeAtRate makes requests at a fixed rate and returns how long each took
// from the moment it was due: one that waits behind another has waited. They
// are sorted.
func exchangeAtRate(ctx context.Context, addr string, kind *l7Kind, o l7Options) ([]time.Duration, error) {
	n := max(int(float64(o.rate)*o.seconds)/o.conns, 1)
	period := time.Duration(float64(time.Second) * float64(o.conns) / float64(o.rate))
	took := make([][]time.Duration, o.conns)
	begun := time.Now()
	err := together(o.conns, func(i int) error {
		a, err := dialAsker(ctx, addr, kind)
		if err != nil {
			return err
		}
		defer a.c.Close()
		due := begun.Add(period * time.Duration(i) / time.Duration(o.conns))
		timer := time.NewTimer(0)
		defer timer.Stop()
		for range n {
			due = due.Add(period)
			timer.Reset(time.Until(due))
			<-timer.C
			if err := a.ask(); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(due))
		}
		return ctx.Err()
	})
	all := slices.Concat(took...)
	slices.Sort(all)
	return all, err
}

// together runs f n times at once.
func together(n int, f func(i int) error) error {
	var running sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		running.Go(func() { errs[i] = f(i) })
	}
	running.Wait()
	return errors.Join(errs...)
}
