package health_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
)

func TestMonitor_Check(t *testing.T) {
	t.Run("brings the next check to the fast interval, and no nearer however often it is called", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Interval = time.Hour
			r.Add(x, health.Unknown)
			r.start()
			for range 3000 {
				r.Check(x)
				r.after(time.Millisecond)
			}
			starts := r.starts(x)
			if len(starts) < 6 || len(starts) > 7 {
				t.Errorf("checks in 3 s: %v, want one each 500 ms", starts)
			}
		})
	})
	t.Run("is at once when the last check is long ago", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Interval = time.Hour
			r.Add(x, health.Unknown)
			for i := range 50 { // whose checks are due sooner
				other := target(i + 2)
				other.Interval = 20 * time.Minute
				r.Add(other, health.Passing)
			}
			r.start()
			r.after(90 * time.Minute)
			n := len(r.starts(x))
			if !r.Report(x, health.Result{OK: false, Load: -1}) { // a passive failure is a Check
				t.Error("Report: not there")
			}
			synctest.Wait()
			if got := len(r.starts(x)) - n; got != 1 {
				t.Errorf("%d checks, want 1", got)
			}
			r.want(x, health.Passing)
		})
	})
	t.Run("counts during a check", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Interval = time.Hour
			r.set(func(ctx context.Context, x health.Target) health.Result {
				time.Sleep(300 * time.Millisecond)
				return passing(ctx, x)
			})
			r.Add(x, health.Passing)
			r.start()
			r.after(100 * time.Millisecond)
			r.Check(x)
			r.after(time.Second)
			if starts := r.starts(x); len(starts) != 2 || starts[1] != starts[0]+500*time.Millisecond {
				t.Errorf("checks at %v, want two 500 ms apart", starts)
			}
		})
	})
	t.Run("of a target that is not there does nothing", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.start()
			r.Check(target(1))
			if r.Report(target(1), health.Result{Load: 1}) {
				t.Error("Report: there")
			}
			r.after(time.Minute)
			if len(r.checks) != 0 || len(r.told) != 0 || len(r.loads) != 0 {
				t.Errorf("checks %v, notifications %v, loads %v", r.checks, r.told, r.loads)
			}
		})
	})
}

func TestMonitor_Report(t *testing.T) {
	beat := target(1)
	beat.Type, beat.Name, beat.Interval = health.TypeTTL, "1/web/web-1", 15*time.Second
	well := health.Result{OK: true, Output: "fine", Load: 0.5}

	t.Run("heartbeats keep a target passing, silence fails it at once", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.Add(beat, health.Unknown)
			r.start()
			r.want(beat, health.Unknown)
			for range 20 {
				if !r.Report(beat, well) {
					t.Error("Report: not there")
				}
				r.want(beat, health.Passing)
				r.after(14 * time.Second)
			}
			if n := r.notified(beat); n != 1 {
				t.Errorf("%d notifications of a steady target, want 1", n)
			}
			r.want(beat, health.Passing)
			r.after(time.Second + time.Millisecond)
			r.want(beat, health.Failing)
			if s := r.status(beat); s.Output != "no heartbeat for 15s" || r.notified(beat) != 2 {
				t.Errorf("output %q, %d notifications", s.Output, r.notified(beat))
			}
			r.after(time.Minute)
			r.Report(beat, well)
			r.want(beat, health.Passing)
			if len(r.checks) != 0 {
				t.Errorf("a heartbeat target was probed: %v", r.checks)
			}
			if len(r.loads) != 21 || r.loads[0] != 0.5 {
				t.Errorf("loads %v, want 21 of 0.5", r.loads)
			}
		})
	})
	t.Run("a bad report fails at once and stays until a good one", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.Add(beat, health.Passing)
			r.start()
			r.Report(beat, health.Result{Output: "disk full", Load: 0.1})
			r.want(beat, health.Failing)
			r.after(time.Minute)
			if s := r.status(beat); s.Output != "disk full" || s.Transitions != 1 {
				t.Errorf("%+v", s)
			}
			if len(r.loads) != 0 {
				t.Errorf("loads %v of a failed report", r.loads)
			}
		})
	})
	t.Run("one that never beats fails after its interval, from Run on", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.Add(beat, health.Unknown)
			r.after(time.Hour)
			r.start()
			r.after(14 * time.Second)
			r.want(beat, health.Unknown)
			r.after(2 * time.Second)
			r.want(beat, health.Failing)
		})
	})
	t.Run("each of many expires at its own time, whatever is reported of and done to the others", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			const n = 500
			r.start()
			begun, expires := time.Now(), map[health.Target]time.Time{}
			many := func(i int) health.Target {
				x := target(i)
				x.Type, x.Interval = health.TypeTTL, time.Duration(1+i*37%n)*time.Second
				return x
			}
			for range 6000 {
				r.after(time.Duration(rand.Int64N(int64(100 * time.Millisecond))))
				x := many(rand.IntN(n))
				at, there := expires[x]
				switch state := r.status; {
				case !there:
					r.Add(x, health.Passing)
				case time.Now().Before(at):
					if s := state(x); s.State != health.Passing {
						t.Fatalf("%v: failing %v too early", x.Interval, time.Until(at))
					}
					if rand.IntN(3) == 0 {
						r.Remove(x)
						delete(expires, x)
						continue
					}
					r.Report(x, well)
				case time.Since(at) > tick:
					if s := state(x); s.State != health.Failing || s.Since.Before(at) || s.Since.Sub(at) > tick {
						t.Fatalf("%v: %v since %v, want failing since %v", x.Interval, s.State, s.Since.Sub(begun), at.Sub(begun))
					}
					r.Report(x, well)
				default:
					continue // it expires about now
				}
				expires[x] = time.Now().Add(x.Interval)
			}
		})
	})
	t.Run("one that was removed does not expire", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.Add(beat, health.Passing)
			r.start()
			r.Remove(beat)
			r.after(time.Minute)
			if n := r.notified(beat); n != 0 || r.Stats() != (health.Stats{}) {
				t.Errorf("%d notifications, %+v", n, r.Stats())
			}
		})
	})
	t.Run("a passive success reports load and changes nothing", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.set(failing)
			r.Add(x, health.Failing)
			r.start()
			for range 10 {
				r.Report(x, well)
			}
			r.want(x, health.Failing)
			if s := r.status(x); s.Passes != 0 || len(r.loads) != 10 {
				t.Errorf("%d passes, loads %v", s.Passes, r.loads)
			}
		})
	})
}
