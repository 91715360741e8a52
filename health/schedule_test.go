package health_test

import (
	"context"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

func TestMonitor_Schedule(t *testing.T) {
	t.Run("checks are 0.9 to 1.1 intervals apart, start to start", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			const took = 700 * time.Millisecond
			const slack = 5 * time.Millisecond // dispatch sleeps 4 ms at least
			r.set(func(ctx context.Context, x health.Target) health.Result {
				time.Sleep(took)
				return passing(ctx, x)
			})
			for i := range 50 {
				r.Add(target(i), health.Passing)
			}
			r.start()
			r.after(10 * time.Minute)
			varies := map[time.Duration]bool{}
			for i := range 50 {
				starts := r.starts(target(i))
				if len(starts) < 298 || len(starts) > 303 {
					t.Fatalf("target %d: %d checks in 600 s at 2 s", i, len(starts))
				}
				for j := 3; j < len(starts); j++ { // the first may end after the slot of the second
					gap := starts[j] - starts[j-1]
					varies[gap.Round(10*time.Millisecond)] = true
					if gap < 1800*time.Millisecond-slack || gap > 2200*time.Millisecond+slack {
						t.Fatalf("target %d: %v between checks", i, gap)
					}
				}
			}
			if len(varies) < 20 {
				t.Errorf("only %d different gaps: no jitter", len(varies))
			}
		})
	})
	t.Run("targets added together are checked spread over the interval", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			const n, parts = 2000, 10
			for i := range n {
				r.Add(target(i), health.Passing)
			}
			r.start()
			r.after(14 * time.Second)
			var in [parts]int
			for _, c := range r.checks {
				if c.start >= 10*time.Second && c.start < 12*time.Second {
					in[(c.start-10*time.Second)*parts/(2*time.Second)]++
				}
			}
			for i, got := range in {
				if got < n/parts*7/10 || got > n/parts*13/10 {
					t.Errorf("part %d of the interval has %d checks of %d: %v", i, got, n, in)
				}
			}
		})
	})
	t.Run("an interval of nothing is no busy loop", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Interval, x.FastInterval, x.Timeout = 0, 0, 0
			r.Add(x, health.Passing)
			r.start()
			r.after(time.Second)
			if n := len(r.starts(x)); n < 80 || n > 115 {
				t.Errorf("%d checks in a second at the least interval of 10 ms", n)
			}
		})
	})
	t.Run("a check longer than the interval is followed by the next, never overtaken", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Interval, x.Timeout = time.Second, 3*time.Second
			r.set(hanging)
			r.Add(x, health.Passing)
			r.start()
			r.after(30 * time.Second)
			if r.most != 1 {
				t.Errorf("%d checks of one target at a time", r.most)
			}
			if n := len(r.starts(x)); n < 9 {
				t.Errorf("%d checks of 3 s in 30 s", n)
			}
		})
	})
}

func TestMonitor_Concurrency(t *testing.T) {
	t.Run("no more probes at a time than allowed, the rest wait", func(t *testing.T) {
		run(t, health.Config{Concurrency: 8}, func(t *testing.T, r *rig) {
			r.set(hanging)
			for i := range 40 {
				r.Add(target(i), health.Unknown)
			}
			r.start()
			r.after(500 * time.Millisecond)
			if s := r.Stats(); s.Running != 8 || s.Waiting != 32 {
				t.Errorf("%+v, want 8 running and 32 waiting", s)
			}
			r.after(20 * time.Second)
			if r.most != 8 {
				t.Errorf("%d probes at a time, want 8", r.most)
			}
			if s := r.Stats(); s.Delayed == 0 {
				t.Error("nothing counted as delayed")
			}
		})
	})
	t.Run("a target removed while it waits is not probed", func(t *testing.T) {
		run(t, health.Config{Concurrency: 2}, func(t *testing.T, r *rig) {
			r.set(hanging)
			for i := range 10 {
				r.Add(target(i), health.Unknown)
			}
			r.start()
			r.after(500 * time.Millisecond)
			for i := range 10 {
				r.Remove(target(i))
			}
			r.after(20 * time.Second)
			if n := len(r.checks); n != 2 {
				t.Errorf("%d checks, want the 2 that were under way", n)
			}
		})
	})
	t.Run("targets that hang do not keep healthy ones from being checked", func(t *testing.T) {
		run(t, health.Config{Concurrency: 16}, func(t *testing.T, r *rig) {
			const hung, well = 200, 50
			r.set(func(ctx context.Context, x health.Target) health.Result {
				if x.Path == "/hang" {
					return hanging(ctx, x)
				}
				time.Sleep(2 * time.Millisecond)
				return passing(ctx, x)
			})
			for i := range hung {
				x := target(i)
				x.Path = "/hang"
				r.Add(x, health.Unknown)
			}
			for i := range well {
				r.Add(target(i), health.Unknown)
			}
			r.start()
			r.after(90 * time.Second)
			for i := range well {
				starts := r.starts(target(i))
				starts = starts[len(starts)-20:]
				for j := 1; j < len(starts); j++ {
					if gap := starts[j] - starts[j-1]; gap > 2200*time.Millisecond+5*time.Millisecond {
						t.Fatalf("healthy target %d waited %v for its check", i, gap)
					}
				}
			}
			if s := r.Stats(); s.Failing != hung || s.Passing != well {
				t.Errorf("%+v, want %d failing and %d passing", s, hung, well)
			}
		})
	})
	t.Run("healthy targets that fill every worker do not keep ill ones from recovering", func(t *testing.T) {
		run(t, health.Config{Concurrency: 4}, func(t *testing.T, r *rig) {
			slow := func(ctx context.Context, x health.Target) health.Result {
				time.Sleep(900 * time.Millisecond)
				return passing(ctx, x)
			}
			ill := target(1 << 20)
			r.set(func(ctx context.Context, x health.Target) health.Result {
				if x == ill {
					return failing(ctx, x)
				}
				return slow(ctx, x)
			})
			for i := range 100 {
				r.Add(target(i), health.Passing)
			}
			r.Add(ill, health.Failing)
			r.start()
			r.after(60 * time.Second)
			r.set(slow)
			r.until(ill, health.Passing, 8*time.Second)
		})
	})
}
