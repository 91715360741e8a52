package dispatch_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestBackend_Choose(t *testing.T) {
	t.Run("it picks what DNS would answer with, by the same rules", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			b := e.web()
			if _, err := b.Choose(dispatch.Request{}, nil); !errors.Is(err, dispatch.ErrNone) || !strings.Contains(err.Error(), "web is not registered") {
				t.Errorf("before it is registered: %v, want ErrNone that says so", err)
			}
			for _, step := range []struct{ instances, admin, want string }{
				{"a b c", "", "a b c"},
				{"a b c", "a=drain", "b c"},
				{"a b c", "a=down b=drain", "c"},
				{"a b c", "a=down b=down c=down", "a b c"}, // fail-open
				{"a b c", "a=down b=down c=drain", "a b"},  // but never what is drained
				{"a b/1", "", "a"},
				{"a b/1", "a=down", "b"},
			} {
				e.apply(registry.Batch{Reset: true, Instances: insts(step.instances), Admin: admin(step.admin)})
				if got := chosen(t, b, dispatch.Request{}, nil); got != step.want {
					t.Errorf("of %q with %q: %q, want %q", step.instances, step.admin, got, step.want)
				}
			}
		})
	})
	t.Run("the Choice says where to connect", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a")})
			named, err := e.dispatch.Acquire(dispatch.Ref{Source: 1, Service: "web", Port: "admin"})
			if err != nil {
				t.Fatal(err)
			}
			for b, want := range map[*dispatch.Backend]string{e.web(): "10.0.0.97:80", named: "10.0.0.97:9000"} {
				c, err := b.Choose(dispatch.Request{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.Addr() != netip.MustParseAddrPort(want) {
					t.Errorf("%s, want %s", c.Addr(), want)
				}
				c.Done(dispatch.Outcome{})
			}
		})
	})
	t.Run("what was tried is not chosen again, under any policy", func(t *testing.T) {
		for _, policy := range registry.ProxyPolicies() {
			bubble(t, func(t *testing.T, e *env) {
				e.apply(registry.Batch{Reset: true, Instances: insts("a b c d e"), Services: []registry.Service{{Name: "web", Policy: policy}}})
				b := e.web()
				var tried dispatch.Tried
				var ids []string
				for range 5 {
					c, err := b.Choose(dispatch.Request{Hash: 7}, &tried)
					if err != nil {
						t.Fatalf("%s: after %v: %v", policy, ids, err)
					}
					tried.Add(c)
					ids = append(ids, c.ID())
					c.Done(dispatch.Outcome{})
				}
				slices.Sort(ids)
				if got := strings.Join(ids, " "); got != "a b c d e" {
					t.Errorf("%s: five tries go to %s, want each once", policy, got)
				}
				if _, err := b.Choose(dispatch.Request{Hash: 7}, &tried); !errors.Is(err, dispatch.ErrTried) {
					t.Errorf("%s: a sixth: %v, want ErrTried", policy, err)
				}
			})
		}
	})
	t.Run("a client keeps to its instance while that may be served", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b := e.web()
			if got := chosen(t, b, dispatch.Request{Keep: "b"}, nil); got != "b" {
				t.Errorf("%q, want b", got)
			}
			e.apply(registry.Batch{Admin: admin("b=drain")})
			if got := chosen(t, b, dispatch.Request{Keep: "b"}, nil); got != "a c" {
				t.Errorf("drained: %q, want the others", got)
			}
		})
	})
	t.Run("hash sends a hash to one instance", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c"), Services: []registry.Service{{Name: "web", Policy: "hash"}}})
			b, all := e.web(), map[string]bool{}
			for client := range uint8(50) {
				r := dispatch.Request{Hash: dispatch.HashAddr(netip.AddrFrom4([4]byte{192, 0, 2, client}))}
				id, _, certain := b.Preview(r)
				if got := chosen(t, b, r, nil); got != id || !certain {
					t.Errorf("client %d goes to %q, and Preview says %q, %v", client, got, id, certain)
				}
				all[id] = true
			}
			if len(all) != 3 {
				t.Errorf("50 clients reach %d instances, want 3", len(all))
			}
		})
	})
	t.Run("least-loaded goes by what is in flight", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c"), Services: []registry.Service{{Name: "web", Policy: "least-loaded"}}})
			b := e.web()
			for range 30 {
				if _, err := b.Choose(dispatch.Request{}, nil); err != nil {
					t.Fatal(err)
				}
			}
			for _, i := range b.Info().Instances {
				if i.Active != 10 {
					t.Errorf("%s has %d of 30, want 10", i.ID, i.Active)
				}
			}
		})
	})
	t.Run("proxy_policy is for proxies alone, and hash_bound bounds what one client's hash gets", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c d"), Services: []registry.Service{{Name: "web", Policy: "weighted", ProxyPolicy: "hash"}}})
			b := e.web()
			flying := func(n int) (most int64) {
				var list []dispatch.Choice
				for range n {
					c, err := b.Choose(dispatch.Request{Hash: 42}, nil)
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, c)
				}
				for _, i := range b.Info().Instances {
					most = max(most, i.Active)
				}
				for _, c := range list {
					c.Done(dispatch.Outcome{})
				}
				return most
			}
			if most := flying(100); most != 100 {
				t.Errorf("one has %d of 100, want all", most)
			}
			e.apply(registry.Batch{Services: []registry.Service{{Name: "web", ProxyPolicy: "hash", HashBound: 1.25}}})
			if most := flying(100); most > 32 || most < 31 {
				t.Errorf("bounded at 1.25 one has %d of 100, want 1.25 times its 25, rounded up", most)
			}
		})
	})
	t.Run("with all at their limit it is ErrBusy", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("a b")})
			b, r := e.web(), dispatch.Request{ActiveMax: 2}
			var last dispatch.Choice
			for n := range 4 {
				c, err := b.Choose(r, nil)
				if err != nil {
					t.Fatalf("choice %d: %v", n, err)
				}
				last = c
			}
			if _, err := b.Choose(r, nil); !errors.Is(err, dispatch.ErrBusy) {
				t.Errorf("a fifth: %v, want ErrBusy", err)
			}
			last.Done(dispatch.Outcome{})
			if _, err := b.Choose(r, nil); err != nil {
				t.Errorf("after one is done: %v", err)
			}
		})
	})
}

func TestChoice_OnEnd(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("a b c d/1")})
		b := e.web()
		ends := map[string]dispatch.End{}
		var mu sync.Mutex
		follow := func(id string) (stop func()) {
			c, err := b.Choose(dispatch.Request{Keep: id}, nil)
			if err != nil || c.ID() != id {
				t.Fatalf("choosing %s: %v, %v", id, c, err)
			}
			return c.OnEnd(func(end dispatch.End) {
				mu.Lock()
				defer mu.Unlock()
				ends[id] = end
			})
		}
		check := func(when string, want map[string]dispatch.End) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for id, end := range want {
				if ends[id] != end {
					t.Errorf("%s: %s is %s, want %s", when, id, ends[id], end)
				}
			}
			if len(ends) != len(want) {
				t.Errorf("%s: %v, want %v", when, ends, want)
			}
			clear(ends)
		}
		for _, id := range []string{"a", "b", "c"} {
			follow(id)
		}
		e.apply(registry.Batch{Admin: admin("a=down b=drain")})
		check("marked", map[string]dispatch.End{"a": dispatch.EndDown, "b": dispatch.EndDrain})
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "c"}}})
		check("deregistered", map[string]dispatch.End{"c": dispatch.EndGone})
		follow("d") // the second tier has taken over
		e.apply(registry.Batch{Admin: admin("a=up")})
		check("the first tier is back, and the second not ill", nil)
		stop := follow("a")
		stop()
		e.apply(registry.Batch{Admin: admin("a=down")})
		check("nobody waits any more", nil)
		// Cause: an end by draining was the last that was told.
		e.apply(registry.Batch{Admin: admin("b=up"), Instances: insts("c")})
		follow("b")
		follow("c")
		e.apply(registry.Batch{Admin: admin("b=drain c=drain")})
		check("drained", map[string]dispatch.End{"b": dispatch.EndDrain, "c": dispatch.EndDrain})
		e.apply(registry.Batch{
			Admin:   admin("b=down"),
			Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "c"}},
		})
		check("down and gone after that", map[string]dispatch.End{"b": dispatch.EndDown, "c": dispatch.EndGone})
		e.apply(registry.Batch{Admin: admin("b=up")})
		follow("b")
		e.apply(registry.Batch{Admin: admin("b=drain")})
		e.apply(registry.Batch{Admin: admin("b=up")})
		check("drained, and back", map[string]dispatch.End{"b": dispatch.EndDrain})
		e.apply(registry.Batch{Admin: admin("b=down")})
		check("down after it was back", map[string]dispatch.End{"b": dispatch.EndDown})
	})
}

// TestBackend_Choose_concurrently changes the service while many choose: no
// place in flight may be lost, and none given to an instance that is not there.
func TestBackend_Choose_concurrently(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("a b c d")})
		b := e.web()
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for { // at least once, however busy the machine is
					c, err := b.Choose(dispatch.Request{}, nil)
					if err != nil {
						t.Errorf("Choose: %v", err)
						return
					}
					leave := c.OnEnd(func(dispatch.End) {})
					c.Done(dispatch.Outcome{Result: dispatch.OK, Latency: 1})
					leave()
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		states := []string{"a=down", "a=up b=drain", "b=up c=down d=down", "c=up d=up"}
		for n := range 200 {
			e.rev++
			if err := e.sink(registry.Batch{Source: 1, Revision: e.rev, Admin: admin(states[n%len(states)])}); err != nil {
				t.Error(err)
			}
			if err := e.pool.WaitFor(t.Context(), 1, e.rev); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		wg.Wait()
		if s := e.dispatch.Stats(); s.Active != 0 || s.None != 0 || s.Choices == 0 {
			t.Errorf("%d in flight and %d choices of nothing after %d, want none", s.Active, s.None, s.Choices)
		}
	})
}

func TestDispatcher_Acquire(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		a, b := e.web(), e.web()
		if a != b {
			t.Error("the same Ref gives two Backends")
		}
		a.Release()
		if s := e.dispatch.Stats(); s.Backends != 1 {
			t.Errorf("%d Backends while one is used, want 1", s.Backends)
		}
		b.Release()
		if s := e.dispatch.Stats(); s.Backends != 0 {
			t.Errorf("%d Backends in the end, want 0", s.Backends)
		}
		for _, r := range []dispatch.Ref{{Service: "web"}, {Source: 1}, {Source: 1, Service: "web", Port: "http", Tag: "v1"}} {
			if _, err := e.dispatch.Acquire(r); err == nil {
				t.Errorf("%+v is taken", r)
			}
		}
	})
}

func TestBackend_Info(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		list := insts("a b c")
		list[0].Weight = 2
		e.apply(registry.Batch{Reset: true, Instances: list, Admin: admin("c=drain")})
		b := e.web()
		c, err := b.Choose(dispatch.Request{Keep: "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.AddBytes(10, 20)
		info := b.Info()
		if info.Policy != "weighted" || info.Mode != pool.ModeNormal || info.Active != 1 || len(info.Instances) != 2 {
			t.Fatalf("Info = %+v", info)
		}
		i := info.Instances[0]
		if i.ID != "a" || !i.In || i.Share < 0.66 || i.Share > 0.67 || i.Active != 1 || i.BytesIn != 10 || i.BytesOut != 20 || i.Why != "passing" {
			t.Errorf("a is %+v", i)
		}
	})
}

func TestBackend_Members(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		b := e.web()
		show := func() string {
			var out []string
			for _, m := range b.Members() {
				out = append(out, fmt.Sprintf("%s:%d:%s", m.ID, m.Weight, m.End))
			}
			return strings.Join(out, " ")
		}
		list := insts("a b c d/1")
		list[0].Weight = 3
		for _, step := range []struct{ admin, want string }{
			{"", "a:3072:in b:1024:in c:1024:in"},
			{"b=down", "a:3072:in b:0:failing c:1024:in"}, // no weight moves with the others
			{"a=drain", "a:0:draining b:0:failing c:1024:in"},
			{"a=up b=up", "a:3072:in b:1024:in c:1024:in"},
		} {
			e.apply(registry.Batch{Instances: list, Admin: admin(step.admin)})
			if got := show(); got != step.want {
				t.Errorf("after %q: %s, want %s", step.admin, got, step.want)
			}
		}
		e.apply(registry.Batch{Services: []registry.Service{{Name: "web", Spill: "proportional"}}, Admin: admin("b=down c=down")})
		// A third of tier 0 is healthy: 140/3 = 46 % stay, the rest spills.
		got := b.Members()
		if len(got) != 4 || got[3].ID != "d" {
			t.Fatalf("%+v, want four with d", got)
		}
		if part := float64(got[3].Weight) / float64(got[0].Weight+got[3].Weight); part < 0.53 || part > 0.55 {
			t.Errorf("the second tier has %.2f of the weight, want its load of 54 %%", part)
		}
	})
}

func TestDispatcher_Figures(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
		whole := e.web()
		part, err := e.dispatch.Acquire(dispatch.Ref{Source: 1, Service: "web", Port: "admin"})
		if err != nil {
			t.Fatal(err)
		}
		for most, want := range map[int]struct{ whole, part, left int }{9: {3, 3, 0}, 6: {3, 3, 0}, 4: {3, 1, 2}, 2: {2, 0, 4}} {
			list, left := e.dispatch.Figures(most)
			if len(list) != 2 || list[0].Ref != whole.Ref() || list[1].Ref != part.Ref() {
				t.Fatalf("of two backends there is %+v", list)
			}
			if len(list[0].Instances) != want.whole || len(list[1].Instances) != want.part || left != want.left {
				t.Errorf("%d at most: %d and %d, and %d left out; want %+v", most, len(list[0].Instances), len(list[1].Instances), left, want)
			}
		}
		results(t, whole, "b", 5, dispatch.Failed)
		list, _ := e.dispatch.Figures(9)
		if b := list[0].Instances[1]; b.ID != "b" || !b.Ejected || b.Ejections != 1 || b.Failures != 5 || b.Why != "" {
			t.Errorf("b is %+v, want ejected once", b)
		}
	})
}
