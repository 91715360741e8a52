package pool_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// fill returns a running pool with services of instances each, with a tag, a
// zone and a named port.
func fill(b *testing.B, services, instances int, policy string) (*pool.Pool, func(registry.Batch) error) {
	b.Helper()
	return fillOf(b, services, instances, pool.Config{Settings: pool.Settings{Sources: []pool.Source{
		{ID: 1, Zone: zone, Defaults: []registry.Service{{Name: "*", Policy: policy}}},
	}}})
}

func fillOf(b *testing.B, services, instances int, cfg pool.Config) (*pool.Pool, func(registry.Batch) error) {
	b.Helper()
	p, err := pool.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	sink := p.Sink(ctx)
	page := registry.Batch{Source: 1, Reset: true, AsOf: time.Now()}
	for s := range services {
		for i := range instances {
			page.Instances = append(page.Instances, benchInstance(s, i))
			if len(page.Instances) == registry.PageMax {
				page.More = true
				if err := sink(page); err != nil {
					b.Fatal(err)
				}
				page = registry.Batch{Source: 1}
			}
		}
	}
	if err := sink(page); err != nil {
		b.Fatal(err)
	}
	wait(b, p)
	return p, sink
}

func benchInstance(s, i int) registry.Instance {
	n := s*16 + i
	return registry.Instance{
		Service: fmt.Sprintf("service-%05d", s), ID: fmt.Sprintf("instance-%05d", i),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})},
		Port:      8080, Ports: []registry.Port{{Name: "http", Number: 8080, Proto: "tcp"}},
		Weight: 1, Tags: []string{fmt.Sprintf("v%d", i%2)}, Zone: fmt.Sprintf("eu-1%c", 'a'+i%3), Incarnation: 1,
	}
}

func wait(b *testing.B, p *pool.Pool) {
	if _, err := p.Status(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPool_change is the cost of one change of one instance, from the sink
// to the published service, for services that are small and many, and for a
// large one.
func BenchmarkPool_change(b *testing.B) {
	for _, size := range []struct{ services, instances int }{{100, 10}, {10_000, 10}, {1, 1_000}, {1, 10_000}} {
		for _, kind := range []string{"port", "weight", "drain", "leave-and-join"} {
			b.Run(fmt.Sprintf("%s/services=%d/instances=%d", kind, size.services, size.instances), func(b *testing.B) {
				p, sink := fill(b, size.services, size.instances, "weighted")
				b.ReportAllocs()
				n := 0
				began := cpu(b)
				for b.Loop() {
					n++
					i := benchInstance(n%size.services, n%size.instances)
					batch := registry.Batch{Source: 1}
					switch kind {
					case "port":
						i.Port = uint16(2000 + n%2)
						batch.Instances = []registry.Instance{i}
					case "weight":
						i.Weight = uint16(2 + n%2)
						batch.Instances = []registry.Instance{i}
					case "drain":
						i = benchInstance(0, 5)
						st := []registry.AdminState{registry.AdminDrain, registry.AdminUp}[n%2]
						batch.Admin = []registry.Admin{{Service: i.Service, Instance: i.ID, State: st}}
					default:
						i = benchInstance(0, 5)
						if batch.Instances = []registry.Instance{i}; n%2 == 0 {
							batch = registry.Batch{Source: 1, Deleted: []registry.Key{
								{Source: 1, Kind: registry.KindInstance, Service: i.Service, Name: i.ID},
							}}
						}
					}
					if err := sink(batch); err != nil {
						b.Fatal(err)
					}
					wait(b, p)
				}
				b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkPool_memory states what an instance takes at 100,000 instances in
// 10,000 services, the writer's side and the view's together.
func BenchmarkPool_memory(b *testing.B) {
	for _, reverse := range []bool{false, true} {
		b.Run(fmt.Sprintf("reverse=%v", reverse), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				p, _ := fill(b, 10_000, 10, "weighted")
				if reverse {
					s := pool.Settings{Reverse: true, Sources: []pool.Source{{ID: 1, Zone: zone}}}
					if err := p.Reload(b.Context(), s); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(heap()-before)/100_000, "B/instance")
				runtime.KeepAlive(p)
			}
		})
	}
}

// cpu is the time that the process has computed, its collector included.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
