package fault

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Relay is a slow way to a TCP server: what is sent either way arrives after a delay, and
// at most so many octets a second of it.
type Relay struct {
	Addr  string
	ln    net.Listener
	conns sync.WaitGroup
	mu    sync.Mutex // guards open
	open  []net.Conn
}

// NewRelay listens on a free port and passes connections on to the address, until Close.
func NewRelay(ctx context.Context, to string, delay time.Duration, rate int) (*Relay, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{Addr: ln.Addr().String(), ln: ln}
	r.conns.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			r.conns.Go(func() { r.pass(ctx, from, to, delay, rate) })
		}
	})
	return r, nil
}

// Close ends all connections.
func (r *Relay) Close() {
	r.ln.Close()
	r.mu.Lock()
	for _, c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.conns.Wait()
}

func (r *Relay) pass(ctx context.Context, from net.Conn, to string, delay time.Duration, rate int) {
	defer from.Close()
	there, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer there.Close()
	r.mu.Lock()
	r.open = append(r.open, from, there)
	r.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { crawl(ctx, from, there, delay, rate) })
	crawl(ctx, there, from, delay, rate)
	back.Wait()
}

// piece is some octets, and when they may arrive.
type piece struct {
	octets []byte
	due    time.Time
}

// crawl copies until either end is closed, and closes both.
func crawl(ctx context.Context, to, from net.Conn, delay time.Duration, rate int) {
	way := make(chan piece, 1024) // on the way; as many as that hold up who sends
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		for {
			buf := make([]byte, 1024)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case way <- piece{buf[:n], time.Now().Add(delay)}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for p := range way {
		wait := max(time.Until(p.due), 0) + time.Duration(len(p.octets))*time.Second/time.Duration(rate)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if _, err := to.Write(p.octets); err != nil && !errors.Is(err, io.EOF) {
			break
		}
	}
	to.Close()
	from.Close()
	for range way { // what is left is lost
	}
	reading.Wait()
}
