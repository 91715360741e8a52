package health_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
)

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	for _, c := range []struct {
		cfg  health.Config
		want string
	}{
		{health.Config{}, "Prober"},
		{health.Config{Prober: &fake{}, Concurrency: 1}, "Concurrency: 1"},
		{health.Config{Prober: &fake{}, Concurrency: -5}, "Concurrency: -5"},
	} {
		if _, err := health.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%+v): error %v, want one naming %q", c.cfg, err, c.want)
		}
	}
}

func TestMonitor_Run(t *testing.T) {
	t.Run("a second Run is an error", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.start()
			if err := r.Run(t.Context()); err == nil {
				t.Error("Run twice: no error")
			}
		})
	})
	t.Run("ends while probes hang", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.set(hanging)
			x := target(1)
			r.Add(x, health.Passing)
			r.start()
			r.after(10 * time.Millisecond)
			began := time.Now()
			r.stop()
			if took := time.Since(began); took != 0 {
				t.Errorf("Run took %v to end", took)
			}
			if s := r.status(x); s.Failures != 0 || !s.Last.IsZero() {
				t.Errorf("a check cut short by the end counted: %+v", s)
			}
		})
	})
	t.Run("a prober that panics has found a failure", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.set(func(context.Context, health.Target) health.Result { panic(errors.New("bad octet")) })
			x := target(1)
			r.Add(x, health.Passing)
			r.start()
			r.after(5 * time.Second)
			r.want(x, health.Failing)
		})
	})
}

func TestMonitor_FirstRound(t *testing.T) {
	closed := func(r *rig) bool {
		select {
		case <-r.FirstRound():
			return true
		default:
			return false
		}
	}
	t.Run("without targets it is over at once", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			if closed(r) {
				t.Error("over before Run")
			}
			r.start()
			if !closed(r) {
				t.Error("not over")
			}
		})
	})
	t.Run("waits for the slowest, not for heartbeats nor late comers", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			beat := target(9)
			beat.Type = health.TypeTTL
			r.Add(target(1), health.Unknown)
			r.Add(target(2), health.Unknown)
			r.Add(beat, health.Unknown)
			r.set(func(ctx context.Context, x health.Target) health.Result {
				if x == target(1) {
					return passing(ctx, x)
				}
				return hanging(ctx, x)
			})
			r.start()
			r.Add(target(3), health.Unknown)
			r.after(990 * time.Millisecond)
			if closed(r) {
				t.Error("over although target 2 has no result")
			}
			r.after(20 * time.Millisecond)
			if !closed(r) {
				t.Error("not over although 1 and 2 have their results")
			}
		})
	})
	t.Run("a removed target is not waited for", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.set(hanging)
			r.Add(target(1), health.Unknown)
			r.start()
			r.Remove(target(1))
			if !closed(r) {
				t.Error("not over")
			}
		})
	})
}

func TestMonitor_Add(t *testing.T) {
	t.Run("equal targets are probed once until all are removed", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.start()
			r.Add(x, health.Unknown)
			r.Add(x, health.Failing) // the seed of a target that is there is ignored
			r.after(time.Millisecond)
			r.want(x, health.Passing)
			if n := len(r.starts(x)); n != 1 {
				t.Errorf("%d checks, want 1", n)
			}
			r.Remove(x)
			r.want(x, health.Passing)
			r.Remove(x)
			if _, ok := r.Status(x); ok {
				t.Error("still there after the last Remove")
			}
			r.Remove(x) // one too many is harmless
			n := len(r.starts(x))
			r.after(10 * time.Second)
			if got := len(r.starts(x)); got != n {
				t.Errorf("%d checks after the last Remove", got-n)
			}
		})
	})
	t.Run("a new target is checked at once", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.start()
			r.after(time.Hour + 123*time.Millisecond)
			r.Add(target(1), health.Unknown)
			synctest.Wait()
			r.want(target(1), health.Passing)
		})
	})
	t.Run("many new targets are spread over 100 ms", func(t *testing.T) {
		run(t, health.Config{Concurrency: 4096}, func(t *testing.T, r *rig) {
			const n = 5000
			for i := range n {
				r.Add(target(i), health.Unknown)
			}
			r.after(time.Minute) // waiting for Run makes nobody late
			began := time.Since(r.began)
			r.start()
			r.after(102 * time.Millisecond)
			if s := r.Stats(); s.Passing != n {
				t.Errorf("%+v, want all %d passing", s, n)
			}
			early := 0
			for _, c := range r.checks {
				if c.start < began+50*time.Millisecond {
					early++
				}
			}
			if early < 450 || early > 550 {
				t.Errorf("%d checks in the first 50 ms, want about 500", early)
			}
		})
	})
	t.Run("a seed is a state and no transition", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			for _, seed := range []health.State{health.Unknown, health.Passing, health.Failing} {
				x := target(int(seed))
				r.Add(x, seed)
				if s := r.status(x); s.State != seed || s.Transitions != 0 || s.History != nil || !s.Last.IsZero() {
					t.Errorf("seeded %v: %+v", seed, s)
				}
			}
			if s := r.Stats(); s.Unknown != 1 || s.Passing != 1 || s.Failing != 1 {
				t.Errorf("%+v, want one of each", s)
			}
		})
	})
	t.Run("a probe under way at Remove says nothing of the target added next", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Fall = 1
			r.set(hanging)
			r.start()
			r.Add(x, health.Passing)
			r.after(500 * time.Millisecond)
			r.set(passing)
			r.Remove(x)
			r.Add(x, health.Passing)
			r.after(700 * time.Millisecond)
			r.want(x, health.Passing)
			if n := r.notified(x); n != 0 {
				t.Errorf("%d notifications of a target that did not change", n)
			}
		})
	})
}

func TestMonitor_Stats_FollowEveryWayThatATargetGoes(t *testing.T) {
	run(t, health.Config{}, func(t *testing.T, r *rig) {
		for i := range 30 {
			r.Add(target(i), health.State(i%3))
		}
		r.start()
		r.set(failing)
		r.after(7 * time.Second)
		if s := r.Stats(); s.Failing != 30 {
			t.Errorf("%+v, want 30 failing", s)
		}
		for i := range 29 {
			r.Remove(target(i))
		}
		if s := r.Stats(); s != (health.Stats{Failing: 1, Delayed: s.Delayed}) {
			t.Errorf("%+v, want one failing", s)
		}
	})
}

// TestMonitor_ManyCallers is for the race detector: everything at once.
func TestMonitor_ManyCallers(t *testing.T) {
	run(t, health.Config{Concurrency: 8}, func(t *testing.T, r *rig) {
		r.start()
		var callers sync.WaitGroup
		for c := range 8 {
			callers.Go(func() {
				for i := range 300 {
					x := target(i % 40)
					if i%3 == 0 {
						x.Type = health.TypeTTL
					}
					r.Add(x, health.Unknown)
					r.Report(x, health.Result{OK: (i+c)%2 == 0, Load: -1})
					r.Check(x)
					r.Status(x)
					r.Stats()
					time.Sleep(time.Duration(c+1) * time.Millisecond)
					r.Remove(x)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		if s := r.Stats(); s.Unknown+s.Passing+s.Failing+s.Running != 0 {
			t.Errorf("%+v left when all is removed", s)
		}
	})
}

func TestText(t *testing.T) {
	for _, s := range []health.State{health.Unknown, health.Passing, health.Failing} {
		var back health.State
		if text, err := s.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%v: text %q reads as %v (%v)", s, text, back, err)
		}
	}
	types := []health.Type{health.TypeNone, health.TypeHTTP, health.TypeHTTPS, health.TypeTCP, health.TypeGRPC, health.TypeDNS, health.TypeTTL}
	for _, x := range types {
		var back health.Type
		if text, err := x.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != x {
			t.Errorf("%v: text %q reads as %v (%v)", x, text, back, err)
		}
		if p, err := health.ParseType(x.String()); (err == nil) != (x != health.TypeNone) || p != x {
			t.Errorf("ParseType(%q) = %v, %v", x, p, err)
		}
	}
	for _, bad := range []string{"", "HTTP", "icmp"} {
		if _, err := health.ParseType(bad); err == nil || !strings.Contains(err.Error(), "grpc") {
			t.Errorf("ParseType(%q): %v, want an error that lists the types", bad, err)
		}
		if err := new(health.State).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("State %q was read", bad)
		}
	}
	if got := []string{health.State(7).String(), health.Type(99).String()}; !slices.Equal(got, []string{"state(7)", "type(99)"}) {
		t.Errorf("values without a name: %q", got)
	}
	if got := fmt.Sprint(health.Passing, health.TypeHTTPS); got != "passing https" {
		t.Errorf("printed %q", got)
	}
}
