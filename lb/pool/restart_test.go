package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestPool_Sink_seeds(t *testing.T) {
	settings := oneSource
	settings.Sources = slices.Clone(settings.Sources)
	settings.Sources[0].Seed = func(service, instance string) health.State {
		if service != "web" {
			t.Errorf("asked for service %q", service)
		}
		return map[string]health.State{"a": health.Passing, "b": health.Failing}[instance]
	}
	bubble(t, pool.Config{Settings: settings}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 check=http", "web/b 10.0.0.2 check=http", "web/c 10.0.0.3")})
		s := e.find("web")
		if got, want := in(s, s.Set().Group(pool.FamilyA)), "a c"; got != want {
			t.Errorf("after a restart %q are in, want %q: those that passed before", got, want)
		}
		_, marks, err := e.pool.State(t.Context(), 1)
		want := []registry.HealthMark{
			{Service: "web", Instance: "a", State: uint8(health.Passing)}, {Service: "web", Instance: "b", State: uint8(health.Failing)},
		}
		if err != nil || !slices.Equal(marks, want) {
			t.Errorf("marked %v, error %v, want %v", marks, err, want)
		}
		e.apply(registry.Batch{Instances: insts("web/d 10.0.0.4 check=http")})
		if got, want := in(e.find("web"), e.find("web").Set().Group(pool.FamilyA)), "a c"; got != want {
			t.Errorf("%q are in, want %q: what is registered later has no past", got, want)
		}
	})
}

func TestPool_WaitFor(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.pool.WaitFor(soon, 1, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the first state: error %v, want a timeout", err)
		}
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
		if err := e.pool.WaitFor(t.Context(), 1, 0); err != nil {
			t.Errorf("once there is a state: %v", err)
		}
		st, err := e.pool.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- e.pool.WaitFor(t.Context(), 1, st[0].Revision+1) }()
		e.wait()
		select {
		case err := <-done:
			t.Errorf("before the revision: returned %v", err)
		default:
		}
		e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2")})
		if err := <-done; err != nil {
			t.Errorf("at the revision: %v", err)
		}
	})
}
