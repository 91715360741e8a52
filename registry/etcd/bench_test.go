package etcd_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/registrytest"
)

// BenchmarkSource_Watch measures a list of 100,000 instances, from the call to
// the last page.
func BenchmarkSource_Watch(b *testing.B) {
	const n = 100_000
	for _, server := range backends() {
		b.Run(server.name, func(b *testing.B) {
			url, _ := server.start(b, b.TempDir(), "127.0.0.1:0")
			fill(b, connect(b, url), prefix, n)
			source := newSource(b, 1, prefix, url)
			for b.Loop() {
				got := 0
				_ = source.Watch(b.Context(), func(batch registry.Batch) error {
					if got += len(batch.Instances); !batch.More {
						return errDone
					}
					return nil
				})
				if got != n {
					b.Fatalf("%d instances, want %d", got, n)
				}
			}
		})
	}
}

var errDone = fmt.Errorf("all pages are there")

// BenchmarkSource_Latency measures from a put's return to the batch that has
// it.
func BenchmarkSource_Latency(b *testing.B) {
	for _, server := range backends() {
		b.Run(server.name, func(b *testing.B) {
			url, _ := server.start(b, b.TempDir(), "127.0.0.1:0")
			s := store{b, connect(b, url)}
			r := registrytest.Record(b, newSource(b, 1, prefix, url), 1)
			r.Await("the state", func(s registrytest.State) bool { return s.Resets == 1 })
			key := registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "a"}
			var waits []time.Duration
			for i := 0; b.Loop(); i++ {
				port := uint16(i%60000 + 1)
				s.Put(prefix+"/instances/web/a", fmt.Sprintf("10.0.0.1:%d", port))
				waits = append(waits, r.Await("the put", func(s registrytest.State) bool { return s.Instances[key].Port == port }))
			}
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "us-p50")
			b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds()), "us-p99")
		})
	}
}
