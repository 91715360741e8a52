package lb_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/lb"
)

// loaded are n endpoints of weight 1 with their loads.
func loaded(n int) []lb.Endpoint {
	out := make([]lb.Endpoint, n)
	for i := range out {
		out[i] = lb.Endpoint{ID: uint64(i + 1), Weight: lb.WeightScale, Load: new(lb.Load)}
	}
	return out
}

// first picks one.
func first(t *testing.T, p lb.Picker, r lb.Request) uint32 {
	t.Helper()
	picked := p.Pick(nil, 1, r)
	if len(picked) != 1 {
		t.Fatalf("Pick gives %v, want one", picked)
	}
	return picked[0]
}

func TestLeastRequests(t *testing.T) {
	// 100 hosts and 1,000 in flight, one at random ending for each that comes:
	// the mean greatest count is 18.8 by chance and 12.7 by two choices.
	t.Run("1,000 requests in flight lie evenly on 100 endpoints", func(t *testing.T) {
		for _, c := range []struct {
			policy   lb.Policy
			min, max float64
		}{{lb.Weighted, 16, 30}, {lb.LeastRequests, 10, 14.5}} {
			endpoints := loaded(100)
			p := c.policy(endpoints)
			rng := rand.New(rand.NewPCG(1, 2))
			var flying []uint32
			worst := 0.0
			const rounds = 20_000
			for n := range rounds {
				if len(flying) == 1000 {
					at := rng.IntN(len(flying))
					endpoints[flying[at]].Load.Active.Add(-1)
					flying = slices.Delete(flying, at, at+1)
				}
				e := first(t, p, lb.Request{Rand: rng.Uint64()})
				endpoints[e].Load.Active.Add(1)
				flying = append(flying, e)
				if n >= rounds/2 {
					most := int64(0)
					for i := range endpoints {
						most = max(most, endpoints[i].Load.Active.Load())
					}
					worst += float64(most) / (rounds / 2)
				}
			}
			if worst < c.min || worst > c.max {
				t.Errorf("the mean greatest count is %.1f, want %v to %v", worst, c.min, c.max)
			}
		}
	})
	t.Run("while all are idle the weights decide", func(t *testing.T) {
		for _, n := range []int{3, 40} {
			endpoints := loaded(n)
			observed, expected := make([]int, n), make([]float64, n)
			total := 0.0
			for i := range endpoints {
				endpoints[i].Weight *= uint32(i%3 + 1)
				total += float64(i%3 + 1)
			}
			const draws = 100_000
			p := lb.LeastRequests(endpoints)
			rng := rand.New(rand.NewPCG(3, uint64(n)))
			for range draws {
				observed[first(t, p, lb.Request{Rand: rng.Uint64()})]++
			}
			for i := range expected {
				expected[i] = float64(i%3+1) / total
			}
			chiSquare(t, fmt.Sprintf("%d idle endpoints", n), observed, expected)
		}
	})
	t.Run("in flight, each has its weight's part", func(t *testing.T) {
		endpoints := loaded(4)
		endpoints[3].Weight *= 5
		p := lb.LeastRequests(endpoints)
		rng := rand.New(rand.NewPCG(4, 4))
		for range 800 {
			endpoints[first(t, p, lb.Request{Rand: rng.Uint64()})].Load.Active.Add(1)
		}
		for i, want := range []int64{100, 100, 100, 500} {
			if got := endpoints[i].Load.Active.Load(); got < want-1 || got > want+1 {
				t.Errorf("endpoint %d has %d of 800, want %d", i, got, want)
			}
		}
	})
	t.Run("k are picked, distinct, the least busy first", func(t *testing.T) {
		endpoints := loaded(20)
		for i := range endpoints {
			endpoints[i].Load.Active.Store(int64(i))
		}
		p := lb.LeastRequests(endpoints)
		rng := rand.New(rand.NewPCG(5, 5))
		for _, k := range []int{1, 2, 7, 20, 30} {
			picked := p.Pick(nil, k, lb.Request{Rand: rng.Uint64()})
			if len(picked) != min(k, 20) {
				t.Errorf("%d are picked, want %d", len(picked), min(k, 20))
			}
			slices.Sort(picked)
			if len(slices.Compact(picked)) != min(k, 20) {
				t.Errorf("%v has one twice", picked)
			}
		}
	})
}

func TestPeakCost(t *testing.T) {
	const tau = 10 * time.Second
	if got := lb.PeakCost(0.1, 0.5, time.Millisecond, tau); got != 0.5 {
		t.Errorf("a peak gives cost %v, want its latency, 0.5", got)
	}
	if got, want := lb.PeakCost(1, 0, tau, tau), 1/math.E; math.Abs(got-want) > 1e-9 {
		t.Errorf("after tau a cost of 1 is %v, want 1/e", got)
	}
	if got := lb.PeakCost(1, 0.25, 0, tau); got != 1 {
		t.Errorf("with no time gone a lower latency gives %v, want the old cost", got)
	}
}

// A simulation in steps of 1 ms at 1,000 requests a second, endpoint 0 being
// ten times slower for the first 30 s.
func TestPeakEWMA_LeavesTheSlowOneAlone(t *testing.T) {
	const hosts, tau = 10, 10 * time.Second
	endpoints := loaded(hosts)
	p := lb.PeakEWMA(endpoints)
	rng := rand.New(rand.NewPCG(7, 7))
	type flight struct{ host, began int }
	ends := map[int][]flight{}
	last := [hosts]int{}
	var slowPart, backPart [2]int // of endpoint 0, of all
	observe := func(host, now int, seconds float64) {
		l := endpoints[host].Load
		elapsed := time.Duration(now-last[host]) * time.Millisecond
		last[host] = now
		l.Cost.Store(math.Float64bits(lb.PeakCost(math.Float64frombits(l.Cost.Load()), seconds, elapsed, tau)))
	}
	for now := range 65_000 {
		for _, f := range ends[now] {
			endpoints[f.host].Load.Active.Add(-1)
			observe(f.host, now, float64(now-f.began)/1000)
		}
		delete(ends, now)
		if now%1000 == 0 && now-last[0] >= 1000 {
			observe(0, now, 0) // what the owner does for one that nobody asks
		}
		host := int(first(t, p, lb.Request{Rand: rng.Uint64()}))
		endpoints[host].Load.Active.Add(1)
		latency := 20
		if host == 0 && now < 30_000 {
			latency = 200
		}
		ends[now+latency] = append(ends[now+latency], flight{host, now})
		switch {
		case now > 1000 && now < 30_000:
			slowPart[1]++
			if host == 0 {
				slowPart[0]++
			}
		case now >= 60_000: // 3 tau after it is well again
			backPart[1]++
			if host == 0 {
				backPart[0]++
			}
		}
	}
	if part := float64(slowPart[0]) / float64(slowPart[1]); part >= 0.03 {
		t.Errorf("while slow it gets %.3f of the requests, want less than 0.03", part)
	}
	if part := float64(backPart[0]) / float64(backPart[1]); part < 0.05 {
		t.Errorf("3 tau after it is well again it gets %.3f of the requests, want its tenth or near", part)
	}
}

// 20 endpoints, keys by Zipf's law with exponent 1.1: by plain hashing the
// owner of the first key would have a fifth of all requests.
func TestBoundedHash(t *testing.T) {
	for _, factor := range []float64{1.25, 1.5, 2} {
		endpoints := loaded(20)
		var total atomic.Int64
		p := lb.BoundedHash(endpoints, factor, &total)
		rng := rand.New(rand.NewPCG(9, 9))
		zipf := rand.NewZipf(rng, 1.1, 1, 10_000)
		for range 2000 {
			hash := zipf.Uint64()
			e := first(t, p, lb.Request{Hash: hash})
			bound := int64(math.Ceil(factor * float64(total.Load()+1) / 20))
			if got := endpoints[e].Load.Active.Add(1); got > bound {
				t.Fatalf("factor %v: endpoint %d has %d of %d, above its bound of %d", factor, e, got, total.Load()+1, bound)
			}
			total.Add(1)
		}
		most := int64(0)
		for i := range endpoints {
			most = max(most, endpoints[i].Load.Active.Load())
		}
		if share := float64(most) / 100; share > factor+0.01 || share < factor-0.05 {
			t.Errorf("factor %v: the busiest has %.2f times the mean, want the factor", factor, share)
		}
	}
	t.Run("with nothing in flight it is the hash", func(t *testing.T) {
		endpoints := loaded(20)
		var total atomic.Int64
		bounded, plain := lb.BoundedHash(endpoints, 1.25, &total), lb.Hash(endpoints)
		for hash := range uint64(1000) {
			for _, k := range []int{1, 3} {
				r := lb.Request{Hash: hash}
				if got, want := bounded.Pick(nil, k, r), plain.Pick(nil, k, r); !slices.Equal(got, want) {
					t.Fatalf("hash %d, k %d: %v, want %v", hash, k, got, want)
				}
			}
		}
	})
}

func TestOutliers(t *testing.T) {
	rates := func(parts ...uint32) (out []lb.OutlierSample) {
		for _, p := range parts {
			out = append(out, lb.OutlierSample{OK: p, Failed: 100 - p})
		}
		return out
	}
	deviations := lb.OutlierRule{Deviations: 1.9, RateHosts: 5, RateRequests: 100, EjectedPercent: 50}
	share := lb.OutlierRule{FailurePercent: 85, FailureRequests: 50, EjectedPercent: 50}
	row := lb.OutlierRule{Consecutive: 5, EjectedPercent: 10}
	for _, c := range []struct {
		name    string
		samples []lb.OutlierSample
		rule    lb.OutlierRule
		want    []int
	}{
		{"rates 1 1 1 1 .6: mean .92, deviation .16, cut .616", rates(100, 100, 100, 100, 60), deviations, []int{4}},
		{"two equally bad of five are at most 1.22 deviations off", rates(100, 100, 100, 60, 60), deviations, nil},
		{"four endpoints are too few to compare", rates(100, 100, 100, 0), deviations, nil},
		{"one of four that nearly always fails goes by its share", rates(100, 100, 100, 10), share, []int{3}},
		{"a share of few requests says nothing", []lb.OutlierSample{{Failed: 49}, {OK: 49}}, share, nil},
		{"the worst goes first", rates(10, 100, 0, 100), share, []int{2, 0}},
		{"failures in a row", []lb.OutlierSample{{Row: 5}, {Row: 4}}, row, []int{0}},
		{"one of two may go, whatever the percentage", []lb.OutlierSample{{Row: 5}, {Row: 9}}, row, []int{0}},
		{"the last one never", []lb.OutlierSample{{Row: 50}}, row, nil},
		{"those that are out already count", []lb.OutlierSample{{Row: 5}, {Ejected: true}, {}}, row, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lb.Outliers(c.samples, c.rule); !slices.Equal(got, c.want) {
				t.Errorf("Outliers = %v, want %v", got, c.want)
			}
		})
	}
}
