//go:build linux

package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Proxy is one listener and what came to it. Make one with New, then Listen,
// then Run; Stats, Explain, Addr and Sockets are safe for concurrent use.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	start   time.Time
	routes  *routes
	clients *clients
	active  atomic.Int64
	loops   []*loop
	left    sync.WaitGroup // loops that still accept
	closing sync.Once

	mu      sync.Mutex // guards sockets
	sockets []int      // listening; for UDP one a loop
	addr    netip.AddrPort
}

// New checks a Config and acquires its services. A Proxy that is not to Run is
// given up with Close.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("l4: listener %s: %w", cfg.Name, err)
	}
	cfg = cfg.withDefaults()
	r, err := newRoutes(&cfg)
	if err != nil {
		return nil, fmt.Errorf("l4: listener %s: %w", cfg.Name, err)
	}
	return &Proxy{
		cfg: cfg, log: cfg.Log.With(slog.String("listener", cfg.Name)), start: time.Now(),
		routes: r, clients: newClients(cfg.ConnsPerClient),
	}, nil
}

// clock is the time since the Proxy was made, ns, by the monotonic clock.
func (p *Proxy) clock() int64 { return int64(time.Since(p.start)) }

// Listen binds, or takes the inherited sockets over. Connections are accepted
// by the kernel from then on, and served once Run runs.
func (p *Proxy) Listen() error {
	sockets, err := p.open()
	if err == nil {
		err = p.makeLoops(sockets)
	}
	if err != nil {
		for _, fd := range sockets {
			_ = unix.Close(fd)
		}
		return fmt.Errorf("l4: listener %s: %w", p.cfg.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets, p.addr = sockets, localAddr(sockets[0])
	return nil
}

// makeLoops makes a loop a worker, and of UDP no fewer than there are sockets,
// as each has a part of the clients.
func (p *Proxy) makeLoops(sockets []int) error {
	n := p.cfg.Workers
	if p.cfg.UDP {
		n = len(sockets)
	}
	for i := range n {
		l, err := newLoop(p, sockets[i%len(sockets)])
		if err != nil {
			p.closeLoops()
			return err
		}
		p.loops = append(p.loops, l)
	}
	return nil
}

func (p *Proxy) closeLoops() {
	for _, l := range p.loops {
		l.close()
	}
	p.loops = nil
}

// Addr is what the listener is bound to; only after Listen.
func (p *Proxy) Addr() netip.AddrPort { return p.addr }

// Run serves until ctx ends, then accepts no more and waits until the
// connections have ended, StopTimeout at most. Listen must have succeeded. It
// returns nil after a stop. A Proxy runs once.
func (p *Proxy) Run(ctx context.Context) error {
	if len(p.loops) == 0 {
		return fmt.Errorf("l4: listener %s: Run without Listen", p.cfg.Name)
	}
	defer p.Close()
	if err := p.settle(); err != nil {
		return fmt.Errorf("l4: listener %s: %w", p.cfg.Name, err)
	}
	ended := make(chan error, len(p.loops))
	for _, l := range p.loops {
		if err := l.watchListener(); err != nil {
			return fmt.Errorf("l4: listener %s: %w", p.cfg.Name, err)
		}
	}
	p.left.Add(len(p.loops))
	for _, l := range p.loops {
		go l.runTo(ended)
	}
	var errs []error
	running := len(p.loops)
	select {
	case <-ctx.Done():
	case err := <-ended: // none ends by itself without an error
		errs = append(errs, err)
		running--
	}
	p.order(orderStop)
	p.left.Wait()
	if !p.cfg.UDP {
		p.closeSockets()
	}
	p.order(orderRelease)
	for range running {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// runTo runs the loop and tells how it ended.
func (l *loop) runTo(ended chan<- error) {
	err := l.run()
	if !l.stopping {
		l.p.left.Done() // it accepts no more
		l.killAll()
	}
	ended <- err
}

// order posts an order to all loops.
func (p *Proxy) order(what int) {
	for _, l := range p.loops {
		l.post(message{fd: what})
	}
}

func (p *Proxy) closeSockets() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fd := range p.sockets {
		_ = unix.Close(fd)
	}
	p.sockets = nil
}

// Close gives up a Proxy whose Run was not called. Run does it itself.
func (p *Proxy) Close() {
	p.closing.Do(func() {
		p.closeSockets()
		for _, l := range p.loops {
			l.close()
		}
		p.routes.release()
	})
}

// Stats returns the present figures.
func (p *Proxy) Stats() Stats {
	s := Stats{Active: p.active.Load()}
	for _, l := range p.loops {
		l.counts.addTo(&s)
	}
	return s
}
