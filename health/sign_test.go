package health_test

import (
	"context"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

// wantSign compares a target's signs with times since the bubble's begin;
// negative: none.
func (r *rig) wantSign(x health.Target, first, good time.Duration) {
	r.t.Helper()
	since := func(at time.Time) time.Duration {
		if at.IsZero() {
			return -1
		}
		return at.Sub(r.began)
	}
	s := r.status(x)
	if f, g := since(s.FirstSign), since(s.LastGood); f != first || g != good {
		r.t.Errorf("at %v: first sign at %v, last good check at %v; want %v and %v", time.Since(r.began), f, g, first, good)
	}
}

func TestMonitor_Status_signs(t *testing.T) {
	// begin has a target pass, and answer otherwise from then on: after n checks.
	begin := func(r *rig, answer func(context.Context, health.Target) health.Result) (x health.Target, n int) {
		x = target(1)
		r.Add(x, health.Unknown)
		r.start()
		r.after(200 * time.Millisecond)
		r.wantSign(x, -1, -1)
		r.set(answer)
		return x, len(r.starts(x))
	}
	t.Run("of the first check of a run that failed, and of the last that passed", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, n := begin(r, refused)
			r.until(x, health.Failing, 5*time.Second)
			starts := r.starts(x)
			r.wantSign(x, starts[n], starts[n-1])
			r.after(time.Minute)
			r.wantSign(x, starts[n], starts[n-1])
		})
	})
	t.Run("of a check that timed out, from its beginning", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, n := begin(r, hanging)
			r.until(x, health.Failing, 10*time.Second)
			starts := r.starts(x)
			r.wantSign(x, starts[n], starts[n-1])
		})
	})
	t.Run("of what never passed", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.set(failing)
			r.Add(x, health.Unknown)
			r.start()
			r.until(x, health.Failing, 5*time.Second)
			r.wantSign(x, r.starts(x)[0], -1)
		})
	})
	t.Run("are kept until it passes again, and then forgotten", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, n := begin(r, refused)
			r.until(x, health.Failing, 5*time.Second)
			starts := r.starts(x)
			r.set(passing)
			for r.status(x).Passes == 0 {
				r.after(5 * time.Millisecond)
			}
			r.wantSign(x, starts[n], starts[n-1])
			r.set(refused)
			for r.status(x).Failures == 0 {
				r.after(5 * time.Millisecond)
			}
			r.wantSign(x, starts[n], starts[n-1])
			r.set(passing)
			r.until(x, health.Passing, 10*time.Second)
			r.wantSign(x, -1, -1)
		})
	})
	t.Run("go with the target", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, _ := begin(r, refused)
			r.until(x, health.Failing, 5*time.Second)
			r.Remove(x)
			r.set(passing)
			r.Add(x, health.Passing)
			r.wantSign(x, -1, -1)
		})
	})
	t.Run("of a connection that ended, until the check that follows passes", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, n := begin(r, func(ctx context.Context, x health.Target) health.Result {
				time.Sleep(100 * time.Millisecond)
				return passing(ctx, x)
			})
			good := r.starts(x)[n-1]
			lost := time.Since(r.began)
			r.Lost(x)
			r.after(50 * time.Millisecond) // the check is under way
			r.wantSign(x, lost, good)
			lost = time.Since(r.began)
			r.Lost(x) // once more: that check does not know of it
			r.after(60 * time.Millisecond)
			r.wantSign(x, lost-50*time.Millisecond, good)
			r.after(time.Second)
			r.wantSign(x, -1, -1)
		})
	})
	t.Run("of a failure seen elsewhere that the next check confirms", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, n := begin(r, refused)
			seen := time.Since(r.began)
			r.Report(x, health.Result{Output: "a request failed", Load: -1})
			r.until(x, health.Failing, 5*time.Second)
			r.wantSign(x, seen, r.starts(x)[n-1])
		})
	})
	t.Run("of a failure seen elsewhere that the next check denies", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x, _ := begin(r, passing)
			r.Report(x, health.Result{Output: "a request failed", Load: -1})
			r.after(time.Second)
			r.wantSign(x, -1, -1)
		})
	})
	t.Run("of heartbeats that stay away", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := health.Target{Type: health.TypeTTL, Name: "1/web/a", Interval: time.Second}
			r.Add(x, health.Unknown)
			r.start()
			r.after(200 * time.Millisecond)
			r.Report(x, health.Result{OK: true, Load: -1})
			r.after(2 * time.Second)
			r.wantSign(x, 1200*time.Millisecond, 200*time.Millisecond)
			r.Report(x, health.Result{OK: true, Load: -1})
			r.wantSign(x, -1, -1)
		})
	})
}
