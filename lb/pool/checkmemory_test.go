package pool_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// checkHeapLimit is how much live heap a check of an instance may take, octets:
// what the monitor and the pool know of it, of an instance that is well.
const checkHeapLimit = 250

// connector passes everything, and says so as a tcp check does.
type connector struct{ checks atomic.Int64 }

func (c *connector) Probe(_ context.Context, t health.Target) health.Result {
	c.checks.Add(1)
	return health.Result{OK: true, Output: "TCP " + t.Addr.String() + ": connected", Latency: time.Millisecond, Load: -1}
}

// BenchmarkPool_checkMemory states what a check takes at 100,000 instances in
// 10,000 services, each with one that has passed, beside the same instances
// without, and fails above checkHeapLimit; and what is allocated for a check in
// all its first life: added, made, told of and published.
func BenchmarkPool_checkMemory(b *testing.B) {
	const services, each = 10_000, 10
	for b.Loop() {
		plain, plainObjects, _ := weighChecked(b, services, each, nil)
		checked, checkedObjects, passed := weighChecked(b, services, each, []registry.Check{{Type: "tcp", Interval: time.Hour}})
		if passed < services*each {
			b.Fatalf("%d checks of %d were made", passed, services*each)
		}
		check := (checked - plain) / (services * each)
		b.ReportMetric(check, "B/check")
		b.ReportMetric((checkedObjects-plainObjects)/(services*each), "objects/check")
		if check > checkHeapLimit {
			b.Errorf("a check takes %.0f octets of live heap: more than the limit of %d", check, checkHeapLimit)
		}
	}
}

// weighChecked is what a pool of services, with checks, and its monitor take of
// the heap: octets and objects that live, and the checks that were made.
func weighChecked(b *testing.B, services, each int, checks []registry.Check) (octets, objects float64, made int64) {
	b.Helper()
	octetsBefore, objectsBefore := live()
	var prober connector
	var notify func(health.Target)
	m, err := health.New(health.Config{Prober: &prober, Notify: func(t health.Target) { notify(t) }})
	if err != nil {
		b.Fatal(err)
	}
	p, _ := fillOf(b, services, each, pool.Config{Checker: m, Settings: pool.Settings{Sources: []pool.Source{
		{ID: 1, Zone: zone, Defaults: []registry.Service{{Name: "*", Checks: checks}}},
	}}})
	notify = p.Notify
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	<-m.FirstRound()
	wait(b, p)
	wait(b, p)
	if got := m.Stats().Passing; checks != nil && got != services*each {
		b.Fatalf("%d targets of %d pass", got, services*each)
	}
	octetsAfter, objectsAfter := live()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	runtime.KeepAlive(p)
	return octetsAfter - octetsBefore, objectsAfter - objectsBefore, prober.checks.Load()
}

// live is what of the heap lives: octets and objects.
func live() (octets, objects float64) {
	octets = float64(heap())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return octets, float64(m.HeapObjects)
}
