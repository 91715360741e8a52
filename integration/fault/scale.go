package fault

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// changeInterval is the interval between two changes whose cost is measured:
// short enough that what the server does anyway hardly counts, and long enough
// that each change is one by itself.
const changeInterval = 2 * time.Millisecond

// Scale is a state of many instances.
type Scale struct {
	Services, Each int
	// Checked says that each has a check of its port, so seldom that each is
	// made once. One process answers them all; see StartTargets.
	Checked bool
	// Busy measures answers while changes are applied, too.
	Busy bool
}

// ScaleResult is what a state costs.
type ScaleResult struct {
	Load     time.Duration // from the server's start until each service was answered right
	RSS      int64         // bytes, after the load
	Heap     int64         // bytes that live, after the load
	Profile  []byte        // of the heap then, for go tool pprof
	HeapIdle int64         // bytes of the heap that are not in use
	Change   time.Duration // CPU of one change
	Idle     time.Duration // CPU in the time of one change when nothing changes
	Batches  float64       // the server saw for each change; 1: none were merged

	Busy ScaleBusy // if it was to be measured
}

// Measure loads the state from an etcd that has it, and changes it.
func (sc Scale) Measure(ctx context.Context, l *Lab, changes int) (ScaleResult, error) {
	var r ScaleResult
	e, err := l.Etcd(ctx)
	if err != nil {
		return r, err
	}
	defer e.Close()
	settings := Settings{Etcd: e.URL, Profiles: true}
	records := Instances(sc.Services, sc.Each)
	if sc.Checked {
		c := Checked{Targets: sc.Services * sc.Each, Interval: time.Hour, Each: sc.Each}
		if err := l.StartTargets(ctx, &c); err != nil {
			return r, err
		}
		records = c.records("")
		settings.More = fmt.Sprintf("services:\n  - {zone: %s, name: \"*\", checks: [{type: tcp, interval: 1h}]}\n", Zone)
	}
	if err := e.Load(ctx, records); err != nil {
		return r, err
	}
	if err := l.Configure(settings); err != nil {
		return r, err
	}
	s, err := l.Serve()
	if err != nil {
		return r, err
	}
	if err := sc.sweep(ctx, s, &r); err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	if sc.Checked {
		if err := s.passed(ctx, sc.Services*sc.Each); err != nil {
			return r, err
		}
	}
	if r.Profile, err = s.Heap(ctx); err != nil {
		return r, err
	}
	for _, m := range []struct {
		name  string
		bytes *int64
	}{{"go_memstats_heap_alloc_bytes", &r.Heap}, {"go_memstats_heap_idle_bytes", &r.HeapIdle}} {
		v, err := s.Metric(ctx, m.name)
		if err != nil {
			return r, err
		}
		*m.bytes = int64(v)
	}
	if r.RSS, err = s.RSS(); err != nil {
		return r, err
	}
	if sc.Checked {
		return r, nil // what changes goes to addresses that nobody may probe
	}
	if err := sc.change(ctx, e, s, changes, &r); err != nil || !sc.Busy {
		return r, err
	}
	r.Busy, err = sc.busy(ctx, e, s)
	return r, err
}

// passed waits until so many instances pass.
func (s *Server) passed(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*startTimeout)
	defer cancel()
	return Until(ctx, 100*time.Millisecond, func() error {
		got, err := s.Metric(ctx, `muster_health_targets{state="passing"}`)
		if err == nil && int(got) < n {
			err = fmt.Errorf("%g targets of %d pass\n%s", got, n, s.LogTail())
		}
		return err
	})
}

// sweepMax is up to how many services are asked for: the first complete state
// is answered from as a whole, and a million questions take longer than it.
const sweepMax = 10_000

// stride is from one service that is asked for to the next.
func (sc Scale) stride() int { return max(sc.Services/sweepMax, 1) }

// sweep asks for services all over the state until each is answered right.
func (sc Scale) sweep(ctx context.Context, s *Server, r *ScaleResult) error {
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*startTimeout)
	defer cancel()
	judge := right(sc.Each)
	if sc.Each > answersMax {
		judge = Answered
	}
	for i := 0; i < sc.Services; i += sc.stride() {
		if _, err := c.Await(ctx, ServiceName(i)+"."+Zone, dns.TypeA, judge); err != nil {
			return err
		}
	}
	last, address := fmt.Sprintf("i%d.%s.%s", sc.Each-1, ServiceName(sc.Services-1), Zone), Address(sc.Services*sc.Each-1)
	if sc.Checked {
		address = Target(sc.Services*sc.Each - 1)
	}
	_, err = c.Await(ctx, last, dns.TypeA, Has(address))
	r.Load = s.Age()
	return err
}

// answersMax is how many instances of equal weight an answer has at most by
// default.
const answersMax = 8

// change changes instances of services all over the state, each by itself, and
// counts what that costs.
func (sc Scale) change(ctx context.Context, e *Etcd, s *Server, changes int, r *ScaleResult) error {
	if err := s.Ready(ctx); err != nil {
		return err
	}
	if err := s.knows(ctx, e); err != nil {
		return err
	}
	idle, err := s.cpuOf(ctx, changes, func(int) error { return nil })
	if err != nil {
		return err
	}
	batches, err := s.Metric(ctx, "muster_pool_batches_total")
	if err != nil {
		return err
	}
	busy, err := s.cpuOf(ctx, changes, func(n int) error { return sc.put(ctx, e, Keys, n) })
	if err != nil {
		return err
	}
	after, err := s.Metric(ctx, "muster_pool_batches_total")
	if err != nil {
		return err
	}
	if err := s.knows(ctx, e); err != nil {
		return err
	}
	r.Idle, r.Change, r.Batches = idle, busy-idle, (after-batches)/float64(changes)
	return nil
}

// put changes the port of some service's first instance, in the server's keys or
// in others.
func (sc Scale) put(ctx context.Context, e *Etcd, keys string, n int) error {
	service := n * 7919 % sc.Services // a prime: neighbours are far apart
	_, err := e.Put(ctx, fmt.Sprintf("%sinstances/%s/i0", keys, ServiceName(service)), fmt.Sprintf(`{"address":%q,"port":%d}`, Address(service*sc.Each), 1000+n%60000))
	return err
}

// cpuOf is the CPU that the server uses for each of n calls, changeInterval
// apart.
func (s *Server) cpuOf(ctx context.Context, n int, call func(int) error) (time.Duration, error) {
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(changeInterval)
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := call(i); err != nil {
			return 0, err
		}
	}
	after, err := s.CPU()
	return (after - before) / time.Duration(n), err
}

// Bytes is a number of bytes an instance.
func (sc Scale) Bytes(total int64) float64 { return float64(total) / float64(sc.Services*sc.Each) }
