package health_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

// instant is a Prober that counts and passes.
type instant struct {
	checks atomic.Int64
	limit  int64
	done   chan struct{}
}

func (p *instant) Probe(context.Context, health.Target) health.Result {
	if p.checks.Add(1) == p.limit {
		close(p.done)
	}
	return health.Result{OK: true, Output: "GET http://10.0.0.1:80/healthz: 200 OK", Latency: time.Millisecond, Load: -1}
}

// BenchmarkMonitor_Check is the cost of scheduling one check: more targets than
// can be checked in their interval keep the workers busy. CPU a check is ns/op
// times the cores used.
func BenchmarkMonitor_Check(b *testing.B) {
	for _, c := range []struct {
		name    string
		targets int
	}{{"targets=20000", 20_000}, {"targets=200000", 200_000}} {
		b.Run(c.name, func(b *testing.B) {
			p := &instant{limit: int64(b.N), done: make(chan struct{})}
			m, err := health.New(health.Config{Prober: p, Concurrency: 2 * runtime.GOMAXPROCS(0)})
			if err != nil {
				b.Fatal(err)
			}
			for i := range c.targets {
				x := target(i)
				x.Interval = health.IntervalMin
				m.Add(x, health.Passing)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- m.Run(ctx) }()
			<-p.done
			b.StopTimer()
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
		})
	}
}

// BenchmarkMonitor_Add adds and removes a target beside 100,000 others, and
// reports what a target weighs.
func BenchmarkMonitor_Add(b *testing.B) {
	const targets = 100_000
	m, err := health.New(health.Config{Prober: &instant{}})
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	for i := range targets {
		m.Add(target(i), health.Unknown)
	}
	weight := float64(heap()-before) / targets
	x := target(targets)
	b.ReportAllocs()
	for b.Loop() {
		m.Add(x, health.Unknown)
		m.Remove(x)
	}
	b.ReportMetric(weight, "B/target")
}

// BenchmarkMonitor_Status is what the pool pays for each target it looks at.
func BenchmarkMonitor_Status(b *testing.B) {
	m, err := health.New(health.Config{Prober: &instant{}})
	if err != nil {
		b.Fatal(err)
	}
	x := target(1)
	m.Add(x, health.Passing)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.Status(x); !ok {
			b.Fatal("not there")
		}
	}
}

func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
