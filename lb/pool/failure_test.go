package pool_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// lastFailure is that of web; nil: none.
func (e *env) lastFailure() *pool.Failure {
	e.t.Helper()
	info, err := e.pool.Service(e.t.Context(), 1, "web")
	if err != nil {
		e.t.Fatal(err)
	}
	return info.LastFailure
}

// wantFailure compares the last failure of web with a line of what it is to be:
// its instance, its label and what it says.
func (e *env) wantFailure(want string) {
	e.t.Helper()
	got := "none"
	if f := e.lastFailure(); f != nil {
		got = f.Instance + " " + f.Label() + ": " + f.String()
	}
	if got != want {
		e.t.Errorf("last failure\n %s\nwant\n %s", got, want)
	}
}

// failing is the status of a check with its signs, so long ago.
func failingSince(first, good time.Duration) health.Status {
	st := health.Status{State: health.Failing, Output: "refused", FirstSign: time.Now().Add(-first)}
	if good > 0 {
		st.LastGood = time.Now().Add(-good)
	}
	return st
}

func TestPool_Service_lastFailure(t *testing.T) {
	pass := health.Status{State: health.Passing}
	run := func(name string, f func(t *testing.T, e *env)) {
		t.Run(name, func(t *testing.T) {
			bubble(t, tcpChecked, func(t *testing.T, e *env) {
				e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
				e.verdict("10.0.0.1", pass)
				e.verdict("10.0.0.2", pass)
				e.wantFailure("none")
				f(t, e)
			})
		})
	}
	gone := func(id string, lost bool) registry.Batch {
		k := registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: id}
		b := registry.Batch{Deleted: []registry.Key{k}}
		if lost {
			b.Lost = b.Deleted
		}
		return b
	}
	run("found by a check", func(t *testing.T, e *env) {
		e.verdict("10.0.0.1", failingSince(1200*time.Millisecond, 2100*time.Millisecond))
		e.wantFailure("a tcp: found by its tcp check: 1.2s from the first sign to the last wrong answer (at most 2.1s from the last good check), TTL 5s more in caches")
		f := e.lastFailure()
		if !f.At.Equal(time.Now()) || f.Wrong != 1200*time.Millisecond || f.Bound != 2100*time.Millisecond || f.Cached != 5*time.Second {
			t.Errorf("%+v", f)
		}
		e.verdict("10.0.0.1", pass)
		e.verdict("10.0.0.1", failingSince(900*time.Microsecond, 0))
		e.wantFailure("a tcp: found by its tcp check: 0.9ms from the first sign to the last wrong answer, TTL 5s more in caches")
		times := e.pool.FailureTimes()
		if len(times) != 1 || times[0].Cause != "tcp" || times[0].Wrong.Count != 2 || times[0].Bound.Count != 1 || times[0].Wrong.Sum != 1200900*time.Microsecond {
			t.Fatalf("counted: %+v", times)
		}
		for i, bound := range pool.TimeBounds() {
			want := uint64(1)
			if bound > 1200*time.Millisecond {
				want = 2
			}
			if got := times[0].Wrong.Within[i]; got != want {
				t.Errorf("%d took %v at most, want %d", got, bound, want)
			}
		}
	})
	run("what an administrator takes out has not failed", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminDrain}}})
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		e.apply(gone("a", false))
		e.wantFailure("none")
	})
	run("a lease that ended, with a check that passed", func(_ *testing.T, e *env) {
		e.verdict("10.0.0.1", health.Status{State: health.Passing, Passes: 1, Last: time.Now().Add(-time.Second), Latency: 100 * time.Millisecond})
		e.apply(gone("a", true))
		e.wantFailure("a lease: its lease ended: 0ms from the registry's word to the last wrong answer (at most 1.1s from the last good check), TTL 5s more in caches")
	})
	run("a lease that ended, with a check that had begun to fail", func(_ *testing.T, e *env) {
		st := failingSince(time.Second, 2*time.Second)
		st.State = health.Passing
		e.verdict("10.0.0.1", st)
		e.apply(gone("a", true))
		e.wantFailure("a lease: its lease ended: 1s from the first sign to the last wrong answer (at most 2s from the last good check), TTL 5s more in caches")
	})
	run("deleted while it was answered", func(_ *testing.T, e *env) {
		e.apply(gone("a", false))
		e.wantFailure("a deleted: deregistered while it was answered: 0ms from the registry's word to the last wrong answer, TTL 5s more in caches")
	})
	run("deleted after it went out", func(_ *testing.T, e *env) {
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		time.Sleep(time.Minute)
		e.apply(gone("a", false))
		e.wantFailure("a tcp: found by its tcp check: 1s from the first sign to the last wrong answer, TTL 5s more in caches")
	})
	run("kept by fail-open, until another passes", func(_ *testing.T, e *env) {
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		e.verdict("10.0.0.2", failingSince(time.Second, 0))
		e.want("fail-open", "a b")
		time.Sleep(time.Minute)
		e.verdict("10.0.0.2", pass)
		e.wantFailure("a kept: kept in the answers though it failed: 1m1s from the first sign to the last wrong answer, TTL 5s more in caches")
	})
	run("the longest is kept beside the last, but not what was kept on purpose", func(t *testing.T, e *env) {
		worst := func() time.Duration {
			info, err := e.pool.Service(e.t.Context(), 1, "web")
			if err != nil || info.WorstFailure == nil {
				t.Fatalf("the worst failure: %+v, %v", info.WorstFailure, err)
			}
			return info.WorstFailure.Wrong
		}
		for _, first := range []time.Duration{time.Second, 3 * time.Second, 2 * time.Second} {
			e.verdict("10.0.0.1", failingSince(first, 0))
			e.verdict("10.0.0.1", pass)
		}
		if last := e.lastFailure().Wrong; last != 2*time.Second || worst() != 3*time.Second {
			t.Errorf("the last took %v and the worst %v, want 2s and 3s", last, worst())
		}
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		e.verdict("10.0.0.2", failingSince(time.Second, 0))
		time.Sleep(time.Minute)
		e.verdict("10.0.0.2", pass)
		if last := e.lastFailure().Wrong; last < time.Minute || worst() != 3*time.Second {
			t.Errorf("the last took %v and the worst %v, want a minute and 3s", last, worst())
		}
	})
	run("of a service that is gone, nothing is kept but its number", func(t *testing.T, e *env) {
		e.apply(gone("a", false))
		e.apply(gone("b", false))
		e.apply(registry.Batch{Instances: insts("web/a 10.0.0.1")})
		e.wantFailure("none")
		if times := e.pool.FailureTimes(); len(times) != 1 || times[0].Wrong.Count != 2 {
			t.Errorf("counted: %+v", times)
		}
	})
	run("an event tells of it, after that of its going out", func(t *testing.T, e *env) {
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var kinds []pool.EventKind
		for ev := range e.pool.Events(ctx, fromTheStart) {
			kinds = append(kinds, ev.Kind)
			if ev.Kind == pool.EventFailure && (ev.Service != "web" || ev.Instance != "a" || ev.Failure.Wrong != time.Second || !strings.HasPrefix(ev.Reason, "found by its tcp check: 1s from")) {
				t.Errorf("the event says %+v", ev)
			}
		}
		if n := len(kinds); n < 2 || kinds[n-1] != pool.EventFailure || kinds[n-2] != pool.EventServing {
			t.Errorf("events end with %v", kinds)
		}
	})
}

func TestPool_Service_lastFailureTakenBack(t *testing.T) {
	wait := make(chan chan struct{}, 1)
	cfg := pool.Config{Settings: oneSource, Encode: func(*pool.Service) any {
		select {
		case hold := <-wait:
			<-hold
		default:
		}
		return nil
	}}
	bubble(t, cfg, func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
		hold := make(chan struct{})
		wait <- hold
		for _, b := range []registry.Batch{
			{Instances: insts("other/a 10.0.0.3")}, // the writer is held by this one, and takes the others together
			{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "a"}}},
			{Instances: insts("web/a 10.0.0.1")},
		} {
			b.Source = 1
			if err := e.sink(b); err != nil {
				e.t.Fatal(err)
			}
			synctest.Wait()
		}
		close(hold)
		e.wait()
		e.wantFailure("none")
	})
}

func TestPool_Service_lastFailureOfMany(t *testing.T) {
	bubble(t, holding(), func(_ *testing.T, e *env) {
		e.fill(20)
		e.setMany(0, 12, health.Failing)
		e.wantServed("12 of 20 fall: they are held", 20)
		time.Sleep(2 * time.Minute)
		e.wantServed("the hold has ended", 8)
		if f := e.lastFailure(); f.Cause != pool.CauseKept {
			e.t.Errorf("%+v, want one that was kept", f)
		}
	})
}

// TestPool_Service_lastFailureSeenByOthers has three servers, of which this is a.
func TestPool_Service_lastFailureSeenByOthers(t *testing.T) {
	pass := health.Status{State: health.Passing}
	failing := func(from, id string, first, good time.Duration) registry.Report {
		r := report(from + " " + id + " f")
		r.Since = time.Now()
		if first != 0 {
			r.FirstSign, r.LastGood = time.Now().Add(-first), time.Now().Add(-good)
		}
		return r
	}
	run := func(name string, f func(t *testing.T, e *env)) {
		t.Run(name, func(t *testing.T) {
			bubble(t, tcpChecked, func(t *testing.T, e *env) {
				e.peers("abc")
				e.apply(registry.Batch{Reset: true, Instances: insts("web/x 10.0.0.1", "web/y 10.0.0.2")})
				e.verdict("10.0.0.1", pass)
				e.verdict("10.0.0.2", pass)
				e.reports("b x p", "c x p", "b y p", "c y p")
				f(t, e)
			})
		})
	}
	run("the first to see it, and the last to see it well", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", 3*time.Second, 5*time.Second)}})
		e.apply(registry.Batch{Reports: []registry.Report{failing("c", "x", 2*time.Second, 4*time.Second)}})
		e.wantFailure("x report: found by other servers: 3s from the first sign to the last wrong answer (at most 4s from the last good check), TTL 5s more in caches")
	})
	run("this server sees it first", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", 3*time.Second, 4*time.Second)}})
		e.verdict("10.0.0.1", failingSince(3500*time.Millisecond, 6*time.Second))
		e.wantFailure("x tcp: found by its tcp check: 3.5s from the first sign to the last wrong answer (at most 4s from the last good check), TTL 5s more in caches")
	})
	run("what one saw while another saw it well is no sign", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", time.Hour, 2*time.Hour)}})
		e.verdict("10.0.0.1", failingSince(time.Second, 2*time.Second))
		e.wantFailure("x tcp: found by its tcp check: 1s from the first sign to the last wrong answer (at most 2s from the last good check), TTL 5s more in caches")
	})
	run("one of two whose clock is ahead", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", 3*time.Second, 4*time.Second)}})
		e.apply(registry.Batch{Reports: []registry.Report{failing("c", "x", -time.Hour, -time.Hour)}})
		e.wantFailure("x report: found by other servers: 3s from the first sign to the last wrong answer (at most 4s from the last good check), TTL 5s more in caches")
	})
	run("what was taken back is no sign", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", time.Minute, 2*time.Minute)}})
		e.reports("b x p")
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", time.Second, 2*time.Second)}})
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindHealth, Service: "web", Name: "x", Sub: "ns-b"}}})
		e.apply(registry.Batch{Reports: []registry.Report{failing("c", "x", 0, 0)}})
		time.Sleep(3 * time.Second)
		e.verdict("10.0.0.1", failingSince(time.Second, 0))
		e.wantFailure("x report: found by other servers: 3s from the first sign to the last wrong answer, TTL 5s more in caches")
	})
	run("a server whose clock is ahead", func(_ *testing.T, e *env) {
		e.apply(registry.Batch{Reports: []registry.Report{failing("b", "x", -time.Hour, -time.Hour), failing("c", "x", -time.Hour, -time.Hour)}})
		e.wantFailure("x report: found by other servers: 0ms from the first sign to the last wrong answer, TTL 5s more in caches")
	})
	run("what it tells the others", func(t *testing.T, e *env) {
		e.pool.TakeSaid(10)
		e.verdict("10.0.0.1", failingSince(time.Second, 2*time.Second))
		said := e.pool.TakeSaid(10)
		if len(said) != 1 || time.Since(said[0].Report.FirstSign) != time.Second || time.Since(said[0].Report.LastGood) != 2*time.Second {
			t.Errorf("told: %+v", said)
		}
	})
}

// prober passes until its instance dies.
type prober struct{ dead atomic.Bool }

func (p *prober) Probe(context.Context, health.Target) health.Result {
	if p.dead.Load() {
		return health.Result{Refused: true, Output: "refused", Load: -1}
	}
	return health.Result{OK: true, Load: -1}
}

// TestFailure_Wrong_IsWhatAClientSees kills at moments that the checks know
// nothing of, with a client that looks each millisecond.
func TestFailure_Wrong_IsWhatAClientSees(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var p prober
			var notify func(health.Target)
			m, err := health.New(health.Config{Prober: &p, Notify: func(t health.Target) { notify(t) }})
			if err != nil {
				t.Fatal(err)
			}
			cfg := defaults(registry.Service{Checks: []registry.Check{{Type: "tcp", Interval: time.Second}}, Fail: "closed"})
			cfg.Checker = m
			e, stop := start(t, cfg)
			defer stop()
			notify = e.pool.Notify
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- m.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
			time.Sleep(10*time.Second + rand.N(time.Second))
			p.dead.Store(true)
			killed, last := time.Now(), time.Now()
			for ; e.in() != ""; time.Sleep(time.Millisecond) {
				last = time.Now()
			}
			saw, f := last.Sub(killed), e.lastFailure()
			// The death lies between the last good check and the first sign, which
			// are an interval and its jitter apart.
			const look = 2 * time.Millisecond
			if saw > f.Bound+look || saw < f.Wrong-look || f.Bound-f.Wrong > 1200*time.Millisecond || f.Wrong > time.Second {
				t.Errorf("a client was answered wrongly for %v; told: %v from the first sign, at most %v", saw, f.Wrong, f.Bound)
			}
		})
	}
}
