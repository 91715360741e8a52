package pool_test

import (
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// cached is how long caches may hold an instance of web.
func (e *env) cached(id string) time.Duration {
	e.t.Helper()
	info, err := e.pool.Service(e.t.Context(), 1, "web")
	if err != nil {
		e.t.Fatal(err)
	}
	for i := range info.Instances {
		if info.Instances[i].ID == id {
			return info.Instances[i].Cached
		}
	}
	e.t.Fatalf("no instance %s", id)
	return 0
}

func TestPool_Service_cached(t *testing.T) {
	drained := func(id string) registry.Batch {
		return registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: id, State: registry.AdminDrain}}}
	}
	policy := func(ttl time.Duration) registry.Batch {
		return registry.Batch{Services: []registry.Service{{Name: "web", TTL: ttl}}}
	}
	run := func(name string, f func(t *testing.T, e *env, want func(id string, seconds float64))) {
		t.Run(name, func(t *testing.T) {
			bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
				e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2 ttl=9 tags=old", "web/c 10.0.0.3 check=tcp")})
				e.verdict("10.0.0.3", health.Status{State: health.Passing})
				time.Sleep(time.Hour) // what was before the start is nothing any more
				f(t, e, func(id string, seconds float64) {
					t.Helper()
					if got := e.cached(id).Seconds(); got != seconds {
						t.Errorf("%s: caches may hold it for %v s, want %v", id, got, seconds)
					}
				})
			})
		})
	}
	run("the base TTL from the drain on", func(_ *testing.T, e *env, want func(string, float64)) {
		want("a", 9) // the least TTL of the instances that have one
		e.apply(drained("a"))
		want("a", 9)
		time.Sleep(4 * time.Second)
		want("a", 5)
		time.Sleep(6 * time.Second)
		want("a", 0)
	})
	run("a TTL that was lowered lately", func(_ *testing.T, e *env, want func(string, float64)) {
		e.apply(drained("b")) // the others have no TTL of their own
		e.apply(policy(100 * time.Second))
		time.Sleep(time.Minute)
		want("b", 0)
		want("a", 100)
		e.apply(policy(2 * time.Second))
		want("a", 100)
		time.Sleep(30 * time.Second)
		e.apply(drained("a"))
		want("a", 70)
		time.Sleep(71 * time.Second)
		want("a", 0)
		want("c", 2)
	})
	run("the others' coming and going changes nothing", func(_ *testing.T, e *env, want func(string, float64)) {
		e.apply(drained("b"))
		time.Sleep(3 * time.Second)
		e.apply(registry.Batch{Instances: insts("web/aa 10.0.0.9")})
		want("b", 6)
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "a"}}})
		want("b", 6)
		want("aa", 5)
	})
	run("what has been out for long", func(_ *testing.T, e *env, want func(string, float64)) {
		e.verdict("10.0.0.3", health.Status{State: health.Failing})
		time.Sleep(10 * time.Second)
		want("c", 0)
		e.apply(drained("c"))
		want("c", 0)
	})
	run("a filter that serves it all the same", func(_ *testing.T, e *env, want func(string, float64)) {
		// b is of weight 0: out, but for the tag that it alone has.
		e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2 ttl=9 tags=old w=0")})
		time.Sleep(time.Minute)
		want("b", 9)
		e.apply(drained("b"))
		time.Sleep(2 * time.Second)
		want("b", 7)
	})
}

// TestPool_Service_cachedOwnTTLs: SkyDNS records are answered by their own names too,
// each with its own TTL, which may be far above the least of their service's.
func TestPool_Service_cachedOwnTTLs(t *testing.T) {
	own := pool.Settings{Sources: []pool.Source{{ID: 1, Zone: zone, OwnTTLs: true}}}
	bubble(t, pool.Config{Settings: own}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 ttl=300", "web/b 10.0.0.2 ttl=60", "web/c 10.0.0.3 ttl=60")})
		want := func(id string, seconds float64) {
			t.Helper()
			if got := e.cached(id).Seconds(); got != seconds {
				t.Errorf("%s: caches may hold it for %v s, want %v", id, got, seconds)
			}
		}
		want("a", 300)
		want("b", 60)
		time.Sleep(time.Hour) // what was before the start is nothing any more
		e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminDrain}}})
		time.Sleep(100 * time.Second)
		want("a", 200)
		want("b", 60)
		e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2 ttl=5")})
		time.Sleep(10 * time.Second)
		want("b", 50)
		want("c", 60)
	})
}

// Nothing is known of what was answered before a restart.
func TestPool_Service_cachedBeforeTheStart(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{
			Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2"),
			Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminDrain}},
		})
		if got := e.cached("a"); got != 5*time.Second {
			t.Errorf("drained before the start: caches may hold it for %v, want 5s", got)
		}
		time.Sleep(6 * time.Second)
		if got := e.cached("a"); got != 0 {
			t.Errorf("drained before the start, 6 s ago: caches may hold it for %v, want 0s", got)
		}
	})
}
