package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// visit is one request of a steady load and what became of it.
type visit struct {
	due, ended time.Time
	from       string // who answered
	again      bool   // a kept connection had ended; it was made again on a new one
	err        error
}

// took is how long it took from when it was due: one that waits behind another
// has waited.
func (v *visit) took() time.Duration { return v.ended.Sub(v.due) }

// steady makes requests at a rate, whether those before are answered or not.
type steady struct {
	addr     string
	request  func(n int) string
	rate     int           // a second
	patience time.Duration // after which a request counts as failed

	mu   sync.Mutex // guards what is below
	idle []*asker
	done []visit
}

// run makes requests until ctx ends, waits for their answers, and returns what
// became of them in the order in which they were due.
func (s *steady) run(ctx context.Context) []visit {
	var running sync.WaitGroup
	begun := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; {
		for due := s.due(begun, n); !due.After(time.Now()); due = s.due(begun, n) {
			request := s.request(n)
			running.Go(func() { s.visit(request, due) })
			n++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	running.Wait()
	for _, a := range s.idle {
		a.c.Close()
	}
	slices.SortFunc(s.done, func(a, b visit) int { return a.due.Compare(b.due) })
	return s.done
}

// due is when the n-th request is.
func (s *steady) due(begun time.Time, n int) time.Time {
	return begun.Add(time.Duration(n) * time.Second / time.Duration(s.rate))
}

// visit makes one request.
func (s *steady) visit(request string, due time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(s.patience))
	defer cancel()
	v := visit{due: due}
	for v.again = false; ; v.again = true {
		var kept bool
		v.from, kept, v.err = s.ask(ctx, request)
		// A server may close a connection at any moment in which it is idle; a
		// client that finds it closed asks again (RFC 9112 section 9.3.1).
		if v.err == nil || !kept || !errors.Is(v.err, errSilent) {
			break
		}
	}
	v.ended = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, v)
}

// ask asks once, and tells whether it was on a connection that was kept.
func (s *steady) ask(ctx context.Context, request string) (from string, kept bool, err error) {
	a := s.take()
	kept = a != nil
	if !kept {
		if a, err = dialAsker(ctx, s.addr, nil); err != nil {
			return "", false, err
		}
	}
	until, _ := ctx.Deadline()
	var body bytes.Buffer
	_, err = a.get(request, until, &body)
	if err != nil || a.ended {
		a.c.Close()
	} else {
		s.keep(a)
	}
	if _, e := fmt.Fscan(&body, &from); e != nil && !errors.Is(e, io.EOF) && err == nil {
		err = e
	}
	return from, kept, err
}

// take returns the connection that was used last; nil: there is none.
func (s *steady) take() *asker {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		return nil
	}
	a := s.idle[n-1]
	s.idle = s.idle[:n-1]
	return a
}

func (s *steady) keep(a *asker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, a)
}
