package health_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
)

// final fails so that nothing needs to confirm it.
func final(context.Context, health.Target) health.Result {
	return health.Result{Final: true, Output: "gone", Load: -1}
}

func TestMonitor_Lost_checks_at_once(t *testing.T) {
	run(t, health.Config{}, func(t *testing.T, r *rig) {
		x := target(1)
		r.Add(x, health.Passing)
		r.start()
		time.Sleep(3 * time.Second)
		before, at := len(r.starts(x)), time.Since(r.began)
		r.set(final)
		r.Lost(x)
		synctest.Wait()
		if starts := r.starts(x); len(starts) != before+1 || starts[before]-at > time.Millisecond {
			t.Errorf("checked at %v, lost at %v", starts, at)
		}
		if st, _ := r.Status(x); st.State != health.Failing || st.Failures != 1 {
			t.Errorf("%v after %d failures, although the one was final", st.State, st.Failures)
		}
		r.Lost(target(2)) // not there
	})
}

func TestMonitor_Lost_during_a_check_repeats_it(t *testing.T) {
	run(t, health.Config{}, func(t *testing.T, r *rig) {
		x := target(1)
		x.Interval = 1000 * time.Hour // its phase is any moment of that
		r.Add(x, health.Passing)
		r.set(func(ctx context.Context, x health.Target) health.Result {
			time.Sleep(100 * time.Millisecond)
			return passing(ctx, x)
		})
		r.start()
		time.Sleep(50 * time.Millisecond)
		r.Lost(x)
		time.Sleep(100 * time.Millisecond)
		starts := r.starts(x)
		if len(starts) != 1 {
			t.Fatalf("checked at %v", starts)
		}
		time.Sleep(100 * time.Millisecond)
		if starts = r.starts(x); len(starts) != 2 || starts[1]-starts[0] > 102*time.Millisecond {
			t.Errorf("checked at %v, the second is to follow the first", starts)
		}
		time.Sleep(500 * time.Millisecond)
		if n := len(r.starts(x)); n != 2 {
			t.Errorf("%d checks for one loss", n)
		}
	})
}

// keeper is a fake that is told what to forget.
type keeper struct {
	*fake
	forgotten []health.Target
}

func (k *keeper) Forget(t health.Target) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgotten = append(k.forgotten, t)
}

func (k *keeper) want(t *testing.T, when string, want ...health.Target) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(k.forgotten, want) {
		t.Errorf("%s: forgotten: %v, want %v", when, k.forgotten, want)
	}
}

func TestMonitor_Remove_forgets_what_is_kept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{fake: &fake{began: time.Now(), answer: hanging}}
		m, err := health.New(health.Config{Prober: k})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		probed, waiting, twice, readded := target(1), target(2), target(3), target(4)
		for _, x := range []health.Target{probed, twice, twice, readded} {
			m.Add(x, health.Unknown)
		}
		time.Sleep(200 * time.Millisecond)
		m.Add(waiting, health.Unknown)
		m.Remove(waiting) // before its first check
		m.Remove(twice)
		m.Remove(probed)
		m.Remove(readded)
		m.Add(readded, health.Unknown)
		k.want(t, "before the checks under way have ended", waiting)
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		k.want(t, "after them", waiting, probed)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
