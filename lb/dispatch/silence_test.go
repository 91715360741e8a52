package dispatch_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// ear is a pool that notes what proxies have seen.
type ear struct {
	*pool.Pool
	mu    sync.Mutex // guards heard
	heard []pool.Passive
}

// ObservePassive notes, and passes on.
func (e *ear) ObservePassive(o pool.Passive) {
	e.mu.Lock()
	e.heard = append(e.heard, o)
	e.mu.Unlock()
	e.Pool.ObservePassive(o)
}

// silences is how often an instance's silence was told. Anything else that was
// told fails the test.
func (e *ear) silences(t *testing.T, id string) (n int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.heard {
		switch {
		case o != (pool.Passive{Source: 1, Service: "web", Instance: o.Instance, Silent: true}):
			t.Errorf("%+v was told, which is no silence", o)
		case o.Instance == id:
			n++
		}
	}
	return n
}

func TestChoice_Silent(t *testing.T) {
	listen := func(t *testing.T, f func(e *env, b *dispatch.Backend, heard *ear)) {
		bubble(t, func(t *testing.T, e *env) {
			heard := &ear{Pool: e.pool}
			d, err := dispatch.New(dispatch.Config{Pool: heard})
			if err != nil {
				t.Fatal(err)
			}
			e.apply(registry.Batch{Reset: true, Instances: insts("a b c")})
			b, err := d.Acquire(dispatch.Ref{Source: 1, Service: "web"})
			if err != nil {
				t.Fatal(err)
			}
			f(e, b, heard)
		})
	}
	to := func(t *testing.T, b *dispatch.Backend, id string) dispatch.Choice {
		t.Helper()
		c, err := b.Choose(dispatch.Request{Keep: id}, nil)
		if err != nil || c.ID() != id {
			t.Fatalf("choosing %s: %v", id, err)
		}
		return c
	}
	t.Run("is told after a second, once a second at most, and ejects nobody", func(t *testing.T) {
		listen(t, func(e *env, b *dispatch.Backend, heard *ear) {
			c := to(t, b, "a")
			if c.Silent(999*time.Millisecond, time.Now()) || heard.silences(t, "a") != 0 {
				t.Error("silence of less than a second is told")
			}
			for range 100 { // as many requests as wait
				if !c.Silent(time.Second, time.Now()) {
					t.Fatal("a second of silence is not taken")
				}
			}
			if n := heard.silences(t, "a"); n != 1 {
				t.Errorf("told %d times, want once", n)
			}
			for range 100 {
				time.Sleep(time.Second)
				c.Silent(time.Minute, time.Now())
			}
			synctest.Wait()
			if n := heard.silences(t, "a"); n != 101 {
				t.Errorf("told %d times in 100 s, want once a second", n)
			}
			if got := chosen(t, b, dispatch.Request{}, nil); got != "a b c" {
				t.Errorf("%q are chosen: silence is not to eject", got)
			}
			if w := e.weight("a"); w != 1 {
				t.Errorf("its weight in DNS is %v: silence is not to lower it", w)
			}
			if n := heard.silences(t, "b"); n != 0 {
				t.Errorf("of b, which was not asked, it is told %d times", n)
			}
			c.Done(dispatch.Outcome{})
		})
	})
	t.Run("is twice as long as answers take where they take long", func(t *testing.T) {
		listen(t, func(_ *env, b *dispatch.Backend, heard *ear) {
			poll := to(t, b, "a")
			poll.Done(dispatch.Outcome{Result: dispatch.OK, Latency: 20 * time.Second})
			c := to(t, b, "a")
			if c.Silent(39*time.Second, time.Now()) || heard.silences(t, "a") != 0 {
				t.Error("a wait like those before is told")
			}
			if !c.Silent(40*time.Second, time.Now()) || heard.silences(t, "a") != 1 {
				t.Error("a wait twice as long as those before is not told")
			}
			c.Done(dispatch.Outcome{})
		})
	})
}
