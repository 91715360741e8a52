package health_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
)

// check is one probe that a fake has seen, in time since the bubble's begin.
type check struct {
	target     health.Target
	start, end time.Duration
}

// fake is a Prober whose answers are set by the test.
type fake struct {
	began  time.Time
	answer func(ctx context.Context, t health.Target) health.Result

	mu      sync.Mutex
	checks  []check
	running int
	most    int // probes at a time
}

func (f *fake) Probe(ctx context.Context, t health.Target) health.Result {
	start := time.Since(f.began)
	f.mu.Lock()
	f.running++
	f.most = max(f.most, f.running)
	answer := f.answer
	f.mu.Unlock()
	r := answer(ctx, t)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	f.checks = append(f.checks, check{t, start, time.Since(f.began)})
	return r
}

// set changes the answer from now on.
func (f *fake) set(answer func(context.Context, health.Target) health.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// starts are the times at which a target was checked.
func (f *fake) starts(t health.Target) (starts []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.checks {
		if c.target == t {
			starts = append(starts, c.start)
		}
	}
	return starts
}

func passing(context.Context, health.Target) health.Result {
	return health.Result{OK: true, Output: "200 OK", Load: -1}
}

func failing(context.Context, health.Target) health.Result {
	return health.Result{Output: "503 Service Unavailable", Load: -1}
}

func refused(context.Context, health.Target) health.Result {
	return health.Result{Refused: true, Output: "connection refused", Load: -1}
}

// hanging answers nothing until the target's timeout, as a Prober must.
func hanging(ctx context.Context, t health.Target) health.Result {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	<-ctx.Done()
	return health.Result{Output: "no answer", Load: -1}
}

// target is the n-th of many, with the defaults of the product.
func target(n int) health.Target {
	return health.Target{
		Type: health.TypeHTTP, Path: "/healthz",
		Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 80),
		Interval: 2 * time.Second, FastInterval: 500 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3,
	}
}

// rig is a Monitor in a bubble with its fake and what it has told.
type rig struct {
	*health.Monitor
	*fake
	t     *testing.T
	stop  func()
	mu    sync.Mutex
	told  map[health.Target]int
	loads []float64
}

// run calls test in a bubble, with a Monitor that has not begun to run and a
// fake that passes everything; what is left of the Monitor is ended after it.
func run(t *testing.T, cfg health.Config, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, fake: &fake{began: time.Now(), answer: passing}, told: map[health.Target]int{}, stop: func() {}}
		cfg.Prober = r.fake
		cfg.Notify = func(x health.Target) {
			r.Status(x) // would deadlock if a lock were held
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told[x]++
		}
		cfg.Load = func(_ health.Target, load float64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.loads = append(r.loads, load)
		}
		m, err := health.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.Monitor = m
		defer func() { r.stop() }() // whatever it is by then
		test(t, r)
	})
}

// start begins Run.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.stop = func() {}
	}
	synctest.Wait()
}

// after lets time pass and everything settle.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) status(x health.Target) health.Status {
	r.t.Helper()
	s, ok := r.Status(x)
	if !ok {
		r.t.Fatalf("Status(%v): not there", x.Addr)
	}
	return s
}

func (r *rig) want(x health.Target, want health.State) {
	r.t.Helper()
	if s := r.status(x); s.State != want {
		r.t.Errorf("at %v: state %v (failures %d, passes %d), want %v", time.Since(r.began), s.State, s.Failures, s.Passes, want)
	}
}

// until lets time pass until the target is in a state, and returns how long it
// took.
func (r *rig) until(x health.Target, want health.State, limit time.Duration) time.Duration {
	r.t.Helper()
	start := time.Now()
	for r.status(x).State != want {
		if time.Since(start) > limit {
			r.t.Fatalf("not %v after %v", want, limit)
		}
		r.after(time.Millisecond)
	}
	return time.Since(start)
}

func (r *rig) notified(x health.Target) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[x]
}

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

func TestMonitor_Schedule(t *testing.T) {
	t.Run("checks are 0.9 to 1.1 intervals apart, start to start", func(t *testing.T) {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			const took = 700 * time.Millisecond
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
					if gap < 1800*time.Millisecond-time.Millisecond || gap > 2200*time.Millisecond+time.Millisecond {
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
