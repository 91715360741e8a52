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
}

// Measure loads the state from an etcd that has it, and changes it.
func (sc Scale) Measure(ctx context.Context, l *Lab, changes int) (ScaleResult, error) {
	var r ScaleResult
	e, err := l.Etcd(ctx)
	if err != nil {
		return r, err
	}
	defer e.Close()
	if err := e.Load(ctx, Instances(sc.Services, sc.Each)); err != nil {
		return r, err
	}
	if err := l.Configure(Settings{Etcd: e.URL, Profiles: true}); err != nil {
		return r, err
	}
	s, err := l.Serve()
	if err != nil {
		return r, err
	}
	if err := sc.sweep(ctx, s, &r); err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.LogTail())
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
	return r, sc.change(ctx, e, s, changes, &r)
}

// sweep asks for each service until it is answered right.
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
	for i := range sc.Services {
		if _, err := c.Await(ctx, ServiceName(i)+"."+Zone, dns.TypeA, judge); err != nil {
			return err
		}
	}
	last := fmt.Sprintf("i%d.%s.%s", sc.Each-1, ServiceName(sc.Services-1), Zone)
	_, err = c.Await(ctx, last, dns.TypeA, Has(Address(sc.Services*sc.Each-1)))
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
	busy, err := s.cpuOf(ctx, changes, func(n int) error {
		service := n * 7919 % sc.Services // a prime: neighbours are far apart
		_, err := e.Put(ctx, Instance(ServiceName(service), "i0"), fmt.Sprintf(`{"address":%q,"port":%d}`, Address(service*sc.Each), 1000+n%60000))
		return err
	})
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
