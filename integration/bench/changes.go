package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// The members of the service that changes, and what is open meanwhile.
const (
	changingHosts    = 8
	changingLeast    = 2 // members that are left at any time
	changesEvery     = 10 * time.Millisecond
	streamsEach      = 20 // of each kind through each listener
	streamSize       = 1 << 20
	pingEvery        = 100 * time.Millisecond
	streamsLonger    = 3 * time.Second // than the changes
	changingPatience = 10 * time.Second
)

// streams are connections that last, and what became of them.
type streams struct {
	running sync.WaitGroup
	ended   atomic.Int64 // as they should
	pings   atomic.Int64

	mu  sync.Mutex // guards cut
	cut []error    // those that did not
}

// open opens one, in the background.
func (s *streams) open(f func() error) {
	s.running.Go(func() {
		err := f()
		if err == nil {
			s.ended.Add(1)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cut = append(s.cut, err)
	})
}

// tunnel upgrades a connection, as WebSockets do, and sends something again and
// again until a time, which must come back each time.
func (s *streams) tunnel(ctx context.Context, addr string, until time.Time) error {
	a, err := dialAsker(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer a.c.Close()
	a.c.SetDeadline(until.Add(changingPatience))
	if _, err := io.WriteString(a.c, "GET /tunnel HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the upgrade is answered with %s", resp.Status)
	}
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for n := byte(0); time.Now().Before(until); n++ {
		if _, err := a.c.Write([]byte{n}); err != nil {
			return fmt.Errorf("tunnel: %w", err)
		}
		back, err := a.r.ReadByte()
		if err != nil {
			return fmt.Errorf("tunnel: %w", err)
		}
		if back != n {
			return fmt.Errorf("tunnel: %d came back for %d", back, n)
		}
		s.pings.Add(1)
		<-tick.C
	}
	return nil
}

// download reads a response that comes slowly, until a time.
func (s *streams) download(ctx context.Context, addr string, until time.Time) error {
	a, err := dialAsker(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer a.c.Close()
	request := fmt.Sprintf("GET /stream?size=%d&lasts=%s HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", streamSize, time.Until(until))
	n, err := a.get(request, until.Add(changingPatience), io.Discard)
	if err == nil && n != streamSize {
		err = fmt.Errorf("%d bytes came of %d", n, streamSize)
	}
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// runChanges measures what clients of a proxy notice of a service whose members
// change all the time; see the package's comment.
func runChanges(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("changes", out)
	changes := flags.Int("changes", 1000, "`number` of puts and deletes of instances")
	rate := flags.Int("rate", 500, "requests a second through each listener")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *changes < 1 || *rate < 1 {
		return errors.New("changes and rate must be above 0")
	}
	return inLab(*muster, func(l *fault.Lab) error { return changing(ctx, l, *changes, *rate, out) })
}

// changing is the run.
func changing(ctx context.Context, l *fault.Lab, changes, rate int, out io.Writer) error {
	m, err := startMembers(ctx, l)
	if err != nil {
		return err
	}
	defer m.etcd.Close()
	s, err := l.Run(ctx, fault.Settings{Etcd: m.etcd.URL, More: l.Proxy("web")})
	if err != nil {
		return err
	}
	var open streams
	until := time.Now().Add(time.Duration(changes)*changesEvery + streamsLonger)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	addrs := []string{l.HTTPAddr(), l.TCPAddr()}
	requests := []func(int) string{failoverRequest, lastRequest} // TCP connects for each
	visits := make([][]visit, len(addrs))
	var loads sync.WaitGroup
	for i, addr := range addrs {
		load := &steady{addr: addr, request: requests[i], rate: rate, patience: changingPatience}
		loads.Go(func() { visits[i] = load.run(loading) })
		for range streamsEach {
			open.open(func() error { return open.tunnel(ctx, addr, until) })
			open.open(func() error { return open.download(ctx, addr, until) })
		}
	}
	begun := time.Now()
	err = m.change(ctx, changes)
	took := time.Since(begun)
	open.running.Wait()
	stop()
	loads.Wait()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d puts and deletes of %d instances in %s\n", changes, changingHosts, took.Round(time.Millisecond))
	for i, what := range []string{"http", "tcp"} {
		var r failoverResult
		r.add(visits[i], begun)
		answered := map[string]bool{}
		for v := range visits[i] {
			answered[visits[i][v].from] = true
		}
		fmt.Fprintf(out, "  %s: %d requests answered by %d instances, %d failed %v, %d asked again by the client, p50 %s, p99 %s, slowest %s\n", what, r.sent, len(answered), r.failed, r.why, r.again,
			r.after.Quantile(0.5).Round(time.Microsecond), r.after.Quantile(0.99).Round(time.Microsecond), r.after.Max().Round(time.Microsecond))
		if r.failed > 0 || len(answered) != changingHosts {
			err = errors.Join(err, fmt.Errorf("%s: %d requests failed and %d instances answered, want none and all", what, r.failed, len(answered)))
		}
	}
	fmt.Fprintf(out, "  %d tunnels and downloads ended as they should, %d were cut; %d echoes\n", open.ended.Load(), len(open.cut), open.pings.Load())
	return errors.Join(append(open.cut, err, s.Ended())...)
}

// lastRequest is a request that is the last of its connection.
func lastRequest(int) string {
	return "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"
}

// members are the instances of the service web, all of which run; who is
// registered changes.
type members struct {
	etcd *fault.Etcd
	lab  *fault.Lab
	in   [changingHosts]bool
}

func startMembers(ctx context.Context, l *fault.Lab) (*members, error) {
	m := &members{lab: l}
	for n := range m.in {
		if _, err := l.StartBackend(ctx, m.host(n)); err != nil {
			return nil, err
		}
	}
	var err error
	if m.etcd, err = l.Etcd(ctx); err != nil {
		return nil, err
	}
	if _, err := m.etcd.Put(ctx, fault.Keys+"services/web", `{"policy":"round-robin","checks":[{"type":"http","path":"/","interval":"1s"}]}`); err != nil {
		return nil, err
	}
	for n := range m.in {
		if err := m.toggle(ctx, n); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// host is where the n-th instance is.
func (m *members) host(n int) byte { return failoverHosts[0] + byte(n) }

// toggle registers an instance, or deregisters it.
func (m *members) toggle(ctx context.Context, n int) (err error) {
	key := fault.Instance("web", fmt.Sprintf("web-%d", n))
	if m.in[n] {
		_, err = m.etcd.Delete(ctx, key)
	} else {
		_, err = m.etcd.Put(ctx, key, m.lab.BackendAddr(m.host(n)).String())
	}
	m.in[n] = !m.in[n]
	return err
}

// change makes so many changes, of any instance at a time.
func (m *members) change(ctx context.Context, changes int) error {
	tick := time.NewTicker(changesEvery)
	defer tick.Stop()
	for range changes {
		<-tick.C
		if err := ctx.Err(); err != nil {
			return err
		}
		n := rand.N(len(m.in))
		for m.in[n] && m.registered() <= changingLeast {
			n = rand.N(len(m.in))
		}
		if err := m.toggle(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// registered counts those that are.
func (m *members) registered() (count int) {
	for _, in := range m.in {
		if in {
			count++
		}
	}
	return count
}
