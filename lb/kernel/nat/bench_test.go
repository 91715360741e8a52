package nat_test

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

// instances makes n of them.
func instances(n int) []kernel.Instance {
	out := make([]kernel.Instance, n)
	for i := range out {
		addr := netip.AddrFrom4([4]byte{10, 2, byte(1 + i/250), byte(1 + i%250)})
		out[i] = kernel.Instance{ID: fmt.Sprintf("web-%d", i), Addr: netip.AddrPortFrom(addr, 8080), Weight: 1}
	}
	return out
}

// cpu is what this process has used, with the kernel's work on its behalf.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// moved counts the slots that differ.
func moved(a, b kernel.Service) int {
	n := 0
	before, after := a.Table(), b.Table()
	for slot := range before {
		if a.Instances[before[slot]].Addr != b.Instances[after[slot]].Addr {
			n++
		}
	}
	return n
}

// BenchmarkPlane_Apply takes one of n instances away and gives it back: of 34
// about 2,000 slots move.
func BenchmarkPlane_Apply(b *testing.B) {
	for _, n := range []int{3, 34, 100, 1000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			l := newLab(b, 0)
			with := kernel.Service{Name: "web", VIP: vip4, Protocol: kernel.TCP, Instances: instances(n)}
			without := with
			without.Instances = slices.Delete(slices.Clone(with.Instances), n/2, n/2+1)
			l.apply(b, with)
			current := without
			best, began, rounds := time.Hour, cpu(), 0
			for b.Loop() {
				start := time.Now()
				l.apply(b, current)
				best = min(best, time.Since(start))
				rounds++
				if len(current.Instances) == n {
					current = without
				} else {
					current = with
				}
			}
			b.ReportMetric(float64(moved(with, without)), "slots/op")
			b.ReportMetric(float64((cpu()-began).Microseconds())/1000/float64(rounds), "cpu-ms/op")
			b.ReportMetric(float64(best.Microseconds())/1000, "best-ms")
		})
	}
}

// BenchmarkPlane_Kill is the time of a whole Kill of one of n instances without
// connections, and of the Apply that brings it back.
func BenchmarkPlane_Kill(b *testing.B) {
	l := newLab(b, 0)
	s := kernel.Service{Name: "web", VIP: vip4, Protocol: kernel.TCP, Instances: instances(34)}
	for b.Loop() {
		l.apply(b, s)
		l.kill(b.Context(), b, "web", s.Instances[7].Addr)
	}
}

func BenchmarkPlane_Explain(b *testing.B) {
	l := newLab(b, 0)
	l.apply(b, kernel.Service{Name: "web", VIP: vip4, Protocol: kernel.TCP, Instances: instances(34)})
	for b.Loop() {
		if _, err := l.plane.Explain("web", netip.MustParseAddrPort("10.1.0.2:4242")); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(lb.MaglevSlots, "slots")
}
