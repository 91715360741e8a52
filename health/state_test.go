package health_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

// script answers with one letter after the other: p passes, f fails, r is
// refused, the last for ever.
func (r *rig) script(letters string) {
	next := 0
	r.set(func(ctx context.Context, x health.Target) health.Result {
		letter := letters[min(next, len(letters)-1)]
		next++
		switch letter {
		case 'p':
			return passing(ctx, x)
		case 'r':
			return refused(ctx, x)
		}
		return failing(ctx, x)
	})
}

func TestMonitor_RiseAndFall(t *testing.T) {
	for _, c := range []struct {
		name   string
		seed   health.State
		script string // each letter one check; the state after all of them
		want   health.State
	}{
		{"unknown passes with its first success", health.Unknown, "p", health.Passing},
		{"unknown stays so after fewer failures than fall", health.Unknown, "ff", health.Unknown},
		{"unknown fails after fall failures", health.Unknown, "fff", health.Failing},
		{"unknown passes with a success after failures", health.Unknown, "ffp", health.Passing},
		{"passing stays so after fewer failures than fall", health.Passing, "ff", health.Passing},
		{"passing fails after fall failures in a row", health.Passing, "fff", health.Failing},
		{"a success in between starts the count again", health.Passing, "ffpff", health.Passing},
		{"a refused connection counts one", health.Passing, "rr", health.Passing},
		{"refused connections count like others", health.Passing, "rfr", health.Failing},
		{"failing stays so after fewer successes than rise", health.Failing, "p", health.Failing},
		{"failing passes after rise successes in a row", health.Failing, "pp", health.Passing},
		{"a failure in between starts the count again, there too", health.Failing, "pfp", health.Failing},
		{"down and up again", health.Passing, "fffpp", health.Passing},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, health.Config{}, func(t *testing.T, r *rig) {
				x := target(1)
				r.script(c.script)
				r.Add(x, c.seed)
				r.start()
				for len(r.starts(x)) < len(c.script) {
					r.after(time.Millisecond)
				}
				r.want(x, c.want)
			})
		})
	}
	t.Run("rise and fall below 1 are 1", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Rise, x.Fall = 0, -1
			r.script("fp")
			r.Add(x, health.Passing)
			r.start()
			r.want(x, health.Failing)
			r.after(2201 * time.Millisecond)
			r.want(x, health.Passing)
		})
	})
}

// TestMonitor_Detection holds the bounds from the moment of failure to the
// verdict, over many phases of that moment.
func TestMonitor_Detection(t *testing.T) {
	oneSecond := target(1)
	oneSecond.Interval, oneSecond.Fall = time.Second, 2
	defaults := target(2)
	hung := 2200*time.Millisecond + 3*time.Second // an interval, then fall timeouts end to end
	for _, c := range []struct {
		name   string
		target health.Target
		answer func(context.Context, health.Target) health.Result
		limit  time.Duration
	}{
		{"refused, 1 s and fall 2", oneSecond, refused, 1300 * time.Millisecond},
		{"refused, defaults", defaults, refused, 2500 * time.Millisecond},
		{"wrong status, 1 s and fall 2", oneSecond, failing, 1700 * time.Millisecond},
		{"wrong status, defaults", defaults, failing, 3300 * time.Millisecond},
		{"no answer, defaults", defaults, hanging, hung + 10*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, health.Config{}, func(t *testing.T, r *rig) {
				r.Add(c.target, health.Unknown)
				r.start()
				for range 30 {
					r.set(passing)
					r.until(c.target, health.Passing, 5*time.Second)
					r.after(time.Duration(rand.Int64N(int64(10 * time.Second))))
					r.set(c.answer)
					if took := r.until(c.target, health.Failing, time.Minute); took > c.limit {
						t.Errorf("verdict after %v, want %v at most", took, c.limit)
					}
				}
			})
		})
	}
	t.Run("recovery takes an interval and a fast one", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			r.set(failing)
			r.Add(defaults, health.Failing)
			r.start()
			r.after(17 * time.Second)
			r.set(passing)
			if took := r.until(defaults, health.Passing, time.Minute); took > 2710*time.Millisecond {
				t.Errorf("passing after %v", took)
			}
		})
	})
}

func TestMonitor_FastRechecks(t *testing.T) {
	for _, c := range []struct {
		name   string
		seed   health.State
		script string
		gap    time.Duration // between the first two checks
	}{
		{"after a first failure", health.Passing, "fp", 500 * time.Millisecond},
		{"after a refused connection", health.Passing, "rp", 100 * time.Millisecond},
		{"after the first failure of an unknown target", health.Unknown, "fp", 500 * time.Millisecond},
		{"after the first success of a failing target", health.Failing, "pp", 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, health.Config{}, func(t *testing.T, r *rig) {
				x := target(1)
				r.script(c.script)
				r.Add(x, c.seed)
				r.start()
				r.after(time.Second)
				starts := r.starts(x)
				if len(starts) < 2 {
					t.Fatalf("checks at %v", starts)
				}
				if gap := starts[1] - starts[0]; gap < c.gap || gap > c.gap+2*time.Millisecond {
					t.Errorf("re-check after %v, want %v", gap, c.gap)
				}
			})
		})
	}
	t.Run("a failing target that is refused is checked at its interval", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.set(refused)
			r.Add(x, health.Failing)
			r.start()
			r.after(20 * time.Second)
			if n := len(r.starts(x)); n > 12 {
				t.Errorf("%d checks in 20 s", n)
			}
		})
	})
}

func TestMonitor_Status(t *testing.T) {
	t.Run("VerdictAt is when the missing failures could have come, at the soonest", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.script("pfffp")
			r.Add(x, health.Unknown)
			r.start()
			if s := r.status(x); !s.VerdictAt.IsZero() || s.Passes != 1 {
				t.Errorf("without failures: %+v", s)
			}
			for r.status(x).Failures == 0 {
				r.after(time.Millisecond)
			}
			// The next check is 500 ms after this one; it can be refused, and
			// the one that decides follows after 100 ms.
			if in := time.Until(r.status(x).VerdictAt); in < 598*time.Millisecond || in > 600*time.Millisecond {
				t.Errorf("one failure of three: verdict in %v, want 600ms", in)
			}
			r.after(501 * time.Millisecond)
			if in := time.Until(r.status(x).VerdictAt); in < 497*time.Millisecond || in > 500*time.Millisecond {
				t.Errorf("two failures of three: verdict in %v, want 500ms", in)
			}
			if n := r.notified(x); n != 3 {
				t.Errorf("%d notifications of passing and two failures, want 3", n)
			}
			r.after(501 * time.Millisecond)
			if s := r.status(x); s.State != health.Failing || !s.VerdictAt.IsZero() {
				t.Errorf("after three failures: %+v", s)
			}
		})
	})
	t.Run("no verdict comes before VerdictAt", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.set(func(ctx context.Context, x health.Target) health.Result {
				return []func(context.Context, health.Target) health.Result{passing, failing, refused, hanging}[rand.IntN(4)](ctx, x)
			})
			r.Add(x, health.Passing)
			r.start()
			var verdictAt time.Time
			falls := 0
			for range 20_000 {
				r.after(time.Millisecond)
				s := r.status(x)
				if s.State == health.Failing && !verdictAt.IsZero() {
					falls++
					if s.Since.Before(verdictAt) {
						t.Fatalf("failing %v before VerdictAt", verdictAt.Sub(s.Since))
					}
				}
				verdictAt = s.VerdictAt
			}
			if falls == 0 {
				t.Error("never failed: nothing was tested")
			}
		})
	})
	t.Run("a success after failures takes VerdictAt back and tells so", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.script("fp")
			r.Add(x, health.Passing)
			r.start()
			r.after(600 * time.Millisecond)
			if s := r.status(x); !s.VerdictAt.IsZero() || s.State != health.Passing {
				t.Errorf("%+v", s)
			}
			if n := r.notified(x); n != 2 {
				t.Errorf("%d notifications, want 2", n)
			}
			r.after(time.Minute)
			if n := r.notified(x); n != 2 {
				t.Errorf("%d notifications after a minute of success, want none more", n)
			}
		})
	})
	t.Run("history holds the last transitions, oldest first, with their reasons", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			x.Rise, x.Fall = 1, 1
			r.script("pfpfpfpfpfpff")
			r.Add(x, health.Unknown)
			began := time.Now()
			r.start()
			first := r.status(x).History
			if len(first) != 1 || first[0].From != health.Unknown || first[0].To != health.Passing || !first[0].At.Equal(began) {
				t.Errorf("first transition: %+v at %v", first, began)
			}
			for r.status(x).Transitions < 10 {
				r.after(time.Millisecond)
			}
			handedOut := r.status(x).History
			copied := slices.Clone(handedOut)
			r.after(time.Minute)
			s := r.status(x)
			if s.Transitions != 12 || len(s.History) != health.HistoryMax || s.State != health.Failing {
				t.Fatalf("%d transitions, %d kept, %v", s.Transitions, len(s.History), s.State)
			}
			for i, h := range s.History {
				from, to, output := health.Failing, health.Passing, "200 OK"
				if i%2 == 1 {
					from, to, output = to, from, "503 Service Unavailable"
				}
				if h.From != from || h.To != to || h.Output != output || i > 0 && h.At.Before(s.History[i-1].At) {
					t.Errorf("transition %d: %+v", i, h)
				}
			}
			if last := s.History[len(s.History)-1]; !last.At.Equal(s.Since) || !s.Last.After(s.Since) || s.Failures < 2 {
				t.Errorf("since %v, last result %v, last transition %v", s.Since, s.Last, last.At)
			}
			if !slices.Equal(handedOut, copied) {
				t.Error("a history that was handed out has changed")
			}
		})
	})
}

// counting is a Metrics.
type counting struct {
	checked, ok, changed, delayed atomic.Int64
}

func (c *counting) Checked(_ health.Type, ok bool, _ time.Duration) {
	c.checked.Add(1)
	if ok {
		c.ok.Add(1)
	}
}
func (c *counting) Delayed(time.Duration)              { c.delayed.Add(1) }
func (c *counting) Changed(health.State, health.State) { c.changed.Add(1) }

func TestMonitor_Metrics(t *testing.T) {
	var c counting
	run(t, health.Config{Metrics: &c, Concurrency: 2}, func(t *testing.T, r *rig) {
		r.set(hanging)
		r.Add(target(1), health.Passing)
		r.Add(target(2), health.Passing)
		r.Add(target(3), health.Passing)
		r.start()
		r.after(20 * time.Second)
		if got, want := c.checked.Load(), int64(len(r.checks)); got != want || c.ok.Load() != 0 {
			t.Errorf("%d checks and %d successes counted, of %d that failed", got, c.ok.Load(), want)
		}
		if c.changed.Load() != 3 {
			t.Errorf("%d changes counted, want 3", c.changed.Load())
		}
		if got, want := c.delayed.Load(), int64(r.Stats().Delayed); got != want || got == 0 {
			t.Errorf("%d delayed checks counted, Stats has %d", got, want)
		}
	})
}
