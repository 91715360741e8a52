package pool_test

import (
	"testing"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// TestView_Routes/a source's routes are one sorted list, replaced whole.
func TestView_Routes(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		names := func() (list string) {
			for _, r := range e.pool.View().Routes(1) {
				list += r.Name + ">" + r.Service + " "
			}
			return list
		}
		route := func(name, service string) registry.Route { return registry.Route{Name: name, Service: service} }
		want := func(when, list string) {
			t.Helper()
			if got := names(); got != list {
				t.Errorf("%s: %q, want %q", when, got, list)
			}
		}
		want("at first", "")
		e.apply(registry.Batch{Reset: true, Routes: []registry.Route{route("b", "web"), route("a", "api")}})
		want("after the state", "a>api b>web ")
		before, published := e.pool.View().Routes(1), e.pool.Published()
		e.apply(registry.Batch{
			Routes:  []registry.Route{route("a", "other")},
			Deleted: []registry.Key{{Source: 1, Kind: registry.KindRoute, Name: "b"}, {Source: 1, Kind: registry.KindRoute, Name: "none"}},
		})
		want("after a change", "a>other ")
		if !closed(published) {
			t.Error("who follows the view is not woken")
		}
		if len(before) != 2 || before[0].Service != "api" {
			t.Errorf("a list that was handed out was written to: %+v", before)
		}
		pages, _, err := e.pool.State(t.Context(), 1)
		if err != nil || len(pages[0].Routes) != 1 {
			t.Errorf("the state has routes %+v, %v", pages[0].Routes, err)
		}
		kept := []registry.Key{{Source: 1, Kind: registry.KindRoute, Name: "a"}, {Source: 1, Kind: registry.KindRoute, Name: "none"}}
		e.apply(registry.Batch{Kept: kept})
		want("after a value that cannot be used", "a>other ")
		e.apply(registry.Batch{Reset: true, Kept: kept, Routes: []registry.Route{route("c", "web")}})
		want("after a state with a value that cannot be used", "a>other c>web ")
		e.apply(registry.Batch{Reset: true})
		want("after a state without routes", "")
		if got := e.pool.View().Routes(9); got != nil {
			t.Errorf("a source that there is not has routes %+v", got)
		}
	})
	t.Run("one that cannot be used after a restart is as the snapshot has it", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Snapshot: true, Routes: []registry.Route{{Name: "a", Service: "api"}, {Name: "gone", Service: "api"}}})
			e.apply(registry.Batch{Reset: true, Kept: []registry.Key{{Source: 1, Kind: registry.KindRoute, Name: "a"}}})
			if got := e.pool.View().Routes(1); len(got) != 1 || got[0].Name != "a" || got[0].Service != "api" {
				t.Errorf("%+v", got)
			}
		})
	})
}
