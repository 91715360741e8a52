package dispatch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// results sends n requests to an instance, with one result.
func results(t *testing.T, b *dispatch.Backend, id string, n int, r dispatch.Result) {
	t.Helper()
	for range n {
		c, err := b.Choose(dispatch.Request{Keep: id}, nil)
		if err != nil || c.ID() != id {
			t.Fatalf("choosing %s: %s, %v", id, c.ID(), err)
		}
		c.Done(dispatch.Outcome{Result: r, Latency: time.Millisecond})
	}
	synctest.Wait()
}

// weight is the weight of an instance of web in DNS, in units of a registered 1.
func (e *env) weight(id string) float64 {
	s := e.pool.View().Find(1, pool.WireName("web"))
	return float64(s.Endpoint(uint32(s.Instance([]byte(id)))).Weight) / lb.WeightScale
}

func TestEjection(t *testing.T) {
	t.Run("after five failures in a row, for 30 s, then one request tries it", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b := e.web()
			results(t, b, "a", 4, dispatch.Failed)
			results(t, b, "a", 1, dispatch.OK)
			results(t, b, "a", 4, dispatch.Unreachable)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a b c" {
				t.Fatalf("no five in a row: %q are chosen, want all", got)
			}
			results(t, b, "a", 1, dispatch.OK)
			results(t, b, "a", 5, dispatch.TimedOut)
			if got := chosen(t, b, dispatch.Request{Keep: "a"}, nil); got != "b c" {
				t.Fatalf("ejected: %q are chosen, want b c", got)
			}
			if w := e.weight("a"); w < 0.09 || w > 0.11 {
				t.Errorf("its weight in DNS is %v, want a tenth", w)
			}
			time.Sleep(29 * time.Second)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "b c" {
				t.Errorf("after 29 s: %q are chosen, want b c", got)
			}
			time.Sleep(2 * time.Second)
			trial, err := b.Choose(dispatch.Request{Keep: "a"}, nil)
			if err != nil || trial.ID() != "a" {
				t.Fatalf("after 31 s it is %s, %v; want a", trial.ID(), err)
			}
			if got := chosen(t, b, dispatch.Request{Keep: "a"}, nil); got != "b c" {
				t.Errorf("while it is tried: %q are chosen, want b c", got)
			}
			trial.Done(dispatch.Outcome{Result: dispatch.Failed})
			time.Sleep(31 * time.Second)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "b c" {
				t.Errorf("31 s after its trial failed: %q are chosen; the second ejection lasts 60 s", got)
			}
			time.Sleep(31 * time.Second)
			results(t, b, "a", 1, dispatch.OK)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a b c" {
				t.Errorf("after a good trial: %q are chosen, want all", got)
			}
			if w := e.weight("a"); w != 1 {
				t.Errorf("its weight in DNS is %v, want 1", w)
			}
		})
	})
	t.Run("never the last, and no more than a third", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b")})
			b := e.web()
			for _, id := range []string{"a", "b"} {
				results(t, b, id, 5, dispatch.Failed)
			}
			if got := chosen(t, b, dispatch.Request{}, nil); got != "b" {
				t.Errorf("%q are chosen, want b, the last that failed", got)
			}
			e.apply(registry.Batch{Admin: admin("b=drain")})
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a" {
				t.Errorf("with the other drained %q are chosen, want a", got)
			}
		})
	})
	t.Run("who gives the service up takes the ejections back", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b")})
			b := e.web()
			results(t, b, "a", 5, dispatch.Failed)
			b.Release()
			synctest.Wait()
			if w := e.weight("a"); w != 1 {
				t.Errorf("its weight in DNS is %v, want 1", w)
			}
		})
	})
	t.Run("a share of failures in a round of 10 s is enough", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b := e.web()
			for range 20 { // 60 requests, a third of them failures
				results(t, b, "a", 1, dispatch.Failed)
				results(t, b, "a", 2, dispatch.OK)
			}
			time.Sleep(11 * time.Second)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a b c" {
				t.Errorf("a third of failures: %q are chosen, want all", got)
			}
			for range 20 {
				results(t, b, "a", 2, dispatch.Failed)
				results(t, b, "a", 1, dispatch.OK)
			}
			time.Sleep(11 * time.Second)
			if got := chosen(t, b, dispatch.Request{}, nil); got != "b c" {
				t.Errorf("two thirds of failures: %q are chosen, want b c", got)
			}
		})
	})
}

// ejected is a Backend of web with instance a ejected.
func (e *env) ejected(b *dispatch.Backend) {
	e.t.Helper()
	results(e.t, b, "a", 5, dispatch.Failed)
	if w := e.weight("a"); w > 0.11 {
		e.t.Fatalf("a's weight in DNS is %v after five failures, want a tenth", w)
	}
}

// TestEjection_ends: what holds an ejection up or forgets it must not leave the
// instance with a tenth of its weight, or out.
func TestEjection_ends(t *testing.T) {
	// Cause: a trial ended with its connection, which may last for days.
	t.Run("with the beginning of the trial's answer, not with its end", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b := e.web()
			e.ejected(b)
			time.Sleep(31 * time.Second)
			trial, err := b.Choose(dispatch.Request{Keep: "a"}, nil)
			if err != nil || trial.ID() != "a" {
				t.Fatalf("the trial goes to %s, %v; want a", trial.ID(), err)
			}
			if got := chosen(t, b, dispatch.Request{}, nil); got != "b c" {
				t.Errorf("while the trial waits: %q are chosen, want b c", got)
			}
			trial.Answered()
			synctest.Wait()
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a b c" {
				t.Errorf("after the trial's answer has begun: %q are chosen, want all", got)
			}
			trial.Done(dispatch.Outcome{Result: dispatch.Failed})
			synctest.Wait()
			if w := e.weight("a"); w != 1 {
				t.Errorf("after one failure more a's weight in DNS is %v, want 1", w)
			}
		})
	})
	// Cause: the pool knows an instance by its id, the Dispatcher by its address
	// too: who moved was never told to weigh all again.
	t.Run("when the instance moves", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			e.ejected(e.web())
			moved := insts("a b c")
			moved[0].Port = 81
			e.apply(registry.Batch{Instances: moved[:1]})
			if w := e.weight("a"); w != 1 {
				t.Errorf("after it has moved a's weight in DNS is %v, want 1", w)
			}
		})
	})
	// Cause: choices that were under way at Release ejected when nobody was left
	// to take that back.
	t.Run("when the Backend is released while in use", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b := e.web()
			var late []dispatch.Choice
			for range 10 {
				c, err := b.Choose(dispatch.Request{Keep: "a"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				late = append(late, c)
			}
			b.Release()
			for _, c := range late {
				c.Done(dispatch.Outcome{Result: dispatch.Failed})
			}
			time.Sleep(2 * time.Second)
			if w := e.weight("a"); w != 1 {
				t.Errorf("a's weight in DNS is %v, want 1", w)
			}
			if s := e.dispatch.Stats(); s.Backends != 0 {
				t.Errorf("%d Backends in the end, want 0", s.Backends)
			}
		})
	})
}
