package pool_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestPool_ObservePassive(t *testing.T) {
	tcp := []registry.Check{{Type: "tcp"}}
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2"), Services: []registry.Service{{Name: "web", Checks: tcp}}})
		e.verdict("10.0.0.1", health.Status{State: health.Passing})
		e.verdict("10.0.0.2", health.Status{State: health.Passing})

		e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "a", Failed: true})
		e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "a", Factor: 0.1})
		e.wait()
		s := e.find("web")
		if n := len(e.checker.reports); n != 1 || e.checker.reports[0].OK {
			t.Errorf("the checker has %d reports, want one of a failure", n)
		}
		if w := s.Endpoint(0).Weight; w != lb.EffectiveWeight(1, 0.1) {
			t.Errorf("weight %d, want a tenth of %d", w, lb.WeightScale)
		}
		if !s.In(0) || !strings.Contains(s.Why(0), "lowered") {
			t.Errorf("it is in: %v, since %q; want in, with its weight lowered", s.In(0), s.Why(0))
		}
		e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "a", Factor: 1})
		e.wait()
		if w := e.find("web").Endpoint(0).Weight; w != lb.WeightScale {
			t.Errorf("taken back: weight %d, want %d", w, lb.WeightScale)
		}
		e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "b", Silent: true})
		e.wait()
		if n := len(e.checker.reports); n != 2 || e.checker.reports[1].OK || e.checker.reports[1].Output != "a request through the proxy waits for its answer" {
			t.Errorf("after a silence: %d reports, want another, of it: %+v", n, e.checker.reports)
		}
		if w := e.find("web").Endpoint(1).Weight; w != lb.WeightScale {
			t.Errorf("silence has changed the weight to %d", w)
		}
		// Of what is not there it is nothing.
		for _, o := range []pool.Passive{{Source: 9, Service: "web", Instance: "a"}, {Source: 1, Service: "no", Instance: "a"}, {Source: 1, Service: "web", Instance: "no"}} {
			o.Factor = 0.1
			changed := e.pool.Published()
			e.pool.ObservePassive(o)
			e.wait()
			if closed(changed) {
				t.Errorf("%+v changed the view", o)
			}
		}
	})
}

// TestPool_ObservePassive_side_by_side is for the race detector. Cause: a writer
// that was woken by a verdict, with nothing observed, went through the map that
// observations go into.
func TestPool_ObservePassive_side_by_side(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1"), Services: []registry.Service{{Name: "web", Checks: []registry.Check{{Type: "tcp"}}}}})
		var observers sync.WaitGroup
		for range 4 {
			observers.Go(func() {
				for i := range 1000 {
					e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "a", Factor: []float64{0.1, 1}[i%2]})
				}
			})
		}
		for i := range 1000 {
			e.verdict("10.0.0.1", health.Status{State: []health.State{health.Passing, health.Failing}[i%2]})
		}
		observers.Wait()
		e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: "a", Factor: 1})
		e.wait()
		if w := e.find("web").Endpoint(0).Weight; w != lb.WeightScale {
			t.Errorf("weight %d in the end, want %d", w, lb.WeightScale)
		}
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestPool_Published(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
		first, second := e.pool.Published(), e.pool.Published()
		e.apply(registry.Batch{Instances: insts("web/a 10.0.0.1")}) // nothing new
		if closed(first) {
			t.Error("closed, though nothing was published")
		}
		e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2")})
		if !closed(first) || !closed(second) || closed(e.pool.Published()) {
			t.Error("after a publication who waited is to be woken, and nobody else")
		}
	})
}
