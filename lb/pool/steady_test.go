package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// holding is tcpChecked with removals held for a minute.
func holding() pool.Config {
	cfg := defaults(registry.Service{Checks: []registry.Check{{Type: "tcp"}}})
	cfg.Settings.ChurnHold = time.Minute
	return cfg
}

// lease makes n instances of fill that are leased.
func (e *env) fillLeased(n int) {
	e.t.Helper()
	var list []registry.Instance
	for i := range n {
		in := inst(fmt.Sprintf("web/i%03d %s", i, addrOf(i)))
		in.Leased = true
		list = append(list, in)
	}
	e.apply(registry.Batch{Reset: true, Instances: list})
	e.setMany(0, n, health.Passing)
}

// remove deregisters instances from up to to; lost, with their leases.
func (e *env) remove(from, to int, lost bool) {
	e.t.Helper()
	var b registry.Batch
	for i := from; i < to; i++ {
		k := registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: fmt.Sprintf("i%03d", i)}
		b.Deleted = append(b.Deleted, k)
		if lost {
			b.Lost = append(b.Lost, k)
		}
	}
	e.apply(b)
}

// served is how many instances are answered.
func (e *env) served() int { e.t.Helper(); return len(strings.Fields(e.in())) }

func (e *env) wantServed(what string, want int) {
	e.t.Helper()
	if got := e.served(); got != want {
		e.t.Errorf("%s: %d are answered, want %d", what, got, want)
	}
}

func TestPool_Run_churnByHealth(t *testing.T) {
	bubble(t, holding(), func(t *testing.T, e *env) {
		e.fill(30)
		for i := range 14 { // one after the other, as checks find them
			e.setMany(i, i+1, health.Failing)
		}
		e.wantServed("14 of 30 have fallen", 16)
		e.setMany(14, 15, health.Failing)
		e.wantServed("15 of 30 have fallen: they are brought back", 30)
		if s := e.find("web"); s.Health(3) != health.Failing || !strings.Contains(s.Why(3), "too many fell at once") {
			t.Errorf("i003: %v, %q", s.Health(3), s.Why(3))
		}
		time.Sleep(30 * time.Second)
		e.setMany(20, 22, health.Failing)
		e.wantServed("while removals are held", 30)
		e.remove(25, 27, false)
		e.wantServed("what is deleted goes all the same", 28)
		e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "i028", State: registry.AdminDrain}}})
		e.wantServed("what is drained too", 27)
		e.setMany(0, 5, health.Passing)
		time.Sleep(31 * time.Second)
		e.wait()
		e.wantServed("after the hold", 15)
		if got := e.alarms(fromTheStart); got != "suspect held trusted released" {
			t.Errorf("alarms: %q", got)
		}
		if got := e.pool.Counters().ChurnHolds; got != 1 {
			t.Errorf("held %d times, want 1", got)
		}
	})
}

// A network that is well again takes nothing from those that die after it.
func TestPool_Run_churnThatPasses(t *testing.T) {
	bubble(t, holding(), func(t *testing.T, e *env) {
		e.fillLeased(30)
		e.setMany(0, 20, health.Failing)
		e.wantServed("20 of 30 have fallen", 30)
		e.setMany(0, 5, health.Passing)
		time.Sleep(time.Second)
		e.setMany(25, 26, health.Failing)
		e.wantServed("15 and one of 30 are ill still", 30)
		e.setMany(5, 18, health.Passing)
		time.Sleep(time.Second)
		e.setMany(29, 30, health.Failing)
		e.remove(28, 29, true)
		e.wantServed("three are ill still, and are held; two more fall", 28)
		time.Sleep(11 * time.Second)
		e.setMany(0, 14, health.Failing)
		e.wantServed("14 of 29 fall", 14)
		e.setMany(14, 15, health.Failing)
		e.wantServed("the 15th falls: they are brought back, and what fell long before is not", 25)
		time.Sleep(50 * time.Second)
		e.wait()
		e.wantServed("longer than the first hold", 25)
		time.Sleep(11 * time.Second)
		e.wait()
		e.wantServed("after the second", 10)
		if got := e.pool.Counters().ChurnHolds; got != 2 {
			t.Errorf("held %d times, want 2", got)
		}
	})
}

func TestPool_Run_churnByLeases(t *testing.T) {
	bubble(t, holding(), func(t *testing.T, e *env) {
		e.fillLeased(20)
		e.remove(0, 9, true)
		e.wantServed("9 of 20 are lost", 11)
		e.remove(9, 12, true)
		e.wantServed("12 of 20 are lost: they are brought back", 20)
		if s := e.find("web"); !strings.Contains(s.Why(3), "its lease is lost") {
			t.Errorf("i003: %q", s.Why(3))
		}
		again := inst("web/i003 " + addrOf(3) + " inc=9")
		again.Leased = true
		e.apply(registry.Batch{Instances: []registry.Instance{again}})
		e.setMany(3, 4, health.Passing)
		e.remove(12, 13, true)
		e.wantServed("one more is lost, and one is registered again", 20)
		if pages, _, err := e.pool.State(t.Context(), 1); err != nil || len(pages[0].Instances) != 8 {
			t.Errorf("the state to be kept has %d instances, %v; want the 8 that are registered", len(pages[0].Instances), err)
		}
		time.Sleep(61 * time.Second)
		e.wait()
		e.wantServed("after the hold", 8)
	})
}

func TestPool_Run_churnNot(t *testing.T) {
	t.Run("when they are deleted", func(t *testing.T) {
		bubble(t, holding(), func(t *testing.T, e *env) {
			e.fillLeased(20)
			e.remove(0, 12, false)
			e.wantServed("12 of 20 are deleted", 8)
		})
	})
	t.Run("below ten", func(t *testing.T) {
		bubble(t, holding(), func(t *testing.T, e *env) {
			e.fillLeased(9)
			e.remove(0, 8, true)
			e.wantServed("8 of 9 are lost", 1)
		})
	})
	t.Run("one after the other", func(t *testing.T) {
		bubble(t, holding(), func(t *testing.T, e *env) {
			e.fillLeased(20)
			for i := range 15 {
				e.remove(i, i+1, true)
				time.Sleep(2 * time.Second)
			}
			e.wantServed("15 of 20 are lost within 30 s", 5)
		})
	})
	t.Run("when one falls again and again", func(t *testing.T) {
		bubble(t, holding(), func(t *testing.T, e *env) {
			e.fillLeased(2)
			for n := range 30 {
				e.remove(0, 1, true)
				e.wantServed("one of two is lost", 1)
				again := inst(fmt.Sprintf("web/i000 %s inc=%d", addrOf(0), n+2))
				again.Leased = true
				e.apply(registry.Batch{Instances: []registry.Instance{again}})
				e.setMany(0, 1, health.Passing)
				e.wantServed("it is back", 2)
			}
		})
	})
	t.Run("when it is off", func(t *testing.T) {
		bubble(t, tcpChecked, func(t *testing.T, e *env) {
			e.fillLeased(20)
			e.remove(0, 12, true)
			e.wantServed("12 of 20 are lost", 8)
		})
	})
}

// TestPool_Run_churnInALaterState: after a time away, a source tells what is
// there and not why the others are gone.
func TestPool_Run_churnInALaterState(t *testing.T) {
	bubble(t, holding(), func(t *testing.T, e *env) {
		e.fillLeased(20)
		var left []registry.Instance
		for i := range 5 {
			in := inst(fmt.Sprintf("web/i%03d %s", i, addrOf(i)))
			in.Leased = true
			left = append(left, in)
		}
		e.apply(registry.Batch{Reset: true, Instances: left})
		e.wantServed("15 of 20 leased ones are gone", 20)
		e.apply(registry.Batch{Reset: true, Instances: left})
		e.wantServed("and the state once more", 20)
		time.Sleep(61 * time.Second)
		e.wait()
		e.wantServed("after the hold", 5)
	})
}

// A zone that is taken out of the configuration goes at once.
func TestPool_Reload_goesDuringAHold(t *testing.T) {
	bubble(t, holding(), func(t *testing.T, e *env) {
		e.fillLeased(20)
		e.remove(0, 12, true)
		e.wantServed("12 of 20 are lost, and held", 20)
		if err := e.pool.Reload(t.Context(), pool.Settings{ChurnHold: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if s := e.find("web"); s != nil {
			t.Errorf("the zone is gone, and %d instances are left", s.Len())
		}
		if n := e.targets(); n != 0 {
			t.Errorf("the zone is gone, and %d targets are left", n)
		}
	})
}

// TestPool_Run_flapping is FAULTS 12: an instance that falls each second.
func TestPool_Run_flapping(t *testing.T) {
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.fill(3)
		changes, last := 0, e.in()
		flap := func(n int) {
			for range n {
				for _, st := range []health.State{health.Failing, health.Passing} {
					e.setMany(0, 1, st)
					time.Sleep(500 * time.Millisecond)
					if now := e.in(); now != last {
						changes, last = changes+1, now
					}
				}
			}
		}
		flap(4)
		if changes != 7 {
			t.Errorf("%d changes until it is held back, want 7", changes)
		}
		flap(300)
		if changes != 7 {
			t.Errorf("%d more changes in 5 minutes at 1 Hz, want none", changes-7)
		}
		if s := e.find("web"); s.Why(0) != "passing, but held back: it falls too often" {
			t.Errorf("why: %q", s.Why(0))
		}
		e.setMany(1, 3, health.Failing)
		e.want("nothing else passes", "i000")
		e.setMany(1, 3, health.Passing)
		e.want("the others pass again", "i001 i002")
		began := time.Now()
		for e.served() < 3 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < time.Minute || took > health.DampMax {
			t.Errorf("it is back after %v, want more than a minute and %v at most", took, health.DampMax)
		}
		if got := e.pool.Counters().Damped; got != 1 {
			t.Errorf("held back %d times, want 1", got)
		}
	})
}

func TestPool_Run_freeze(t *testing.T) {
	for _, service := range []string{"web", registry.AllServices} {
		t.Run(service, func(t *testing.T) {
			bubble(t, tcpChecked, func(t *testing.T, e *env) {
				e.fill(4)
				e.setMany(0, 1, health.Failing)
				freeze := registry.Admin{Service: service, Instance: registry.Freeze, State: registry.AdminFreeze, Until: time.Now().Add(10 * time.Minute)}
				e.apply(registry.Batch{Admin: []registry.Admin{freeze}})
				e.setMany(0, 1, health.Passing)
				e.setMany(1, 2, health.Failing)
				for range 6 {
					e.setMany(2, 3, health.Failing)
					e.setMany(2, 3, health.Passing)
				}
				e.want("health moves nothing", "i001 i002 i003")
				if s := e.find("web"); s.Health(1) != health.Failing || s.Why(1) != "failing, but an administrator has frozen the answers" {
					t.Errorf("i001: %v, %q", s.Health(1), s.Why(1))
				}
				info, err := e.pool.Service(t.Context(), 1, "web")
				if err != nil || info.Detection != 0 || info.DetectionWhy != "an instance that dies stays in the answers while they are frozen" {
					t.Errorf("one that dies is found within %v: %q, %v", info.Detection, info.DetectionWhy, err)
				}
				if c := e.pool.Counters(); c.Frozen != 1 || c.Modes != [...]int{pool.ModeNormal: 1, pool.ModeEmpty: 0} {
					t.Errorf("%d services are frozen, modes %v", c.Frozen, c.Modes)
				}
				e.remove(3, 4, false)
				e.want("deletions do", "i001 i002")
				e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "i002", State: registry.AdminDrain}}})
				e.want("administrators do", "i001")
				time.Sleep(10*time.Minute + time.Second)
				e.wait()
				e.want("it ends by itself", "i000")
				if n := e.pool.Counters().Frozen; n != 0 {
					t.Errorf("%d services are frozen", n)
				}
				freeze.Until = time.Time{}
				e.apply(registry.Batch{Admin: []registry.Admin{freeze}})
				e.setMany(0, 1, health.Failing)
				e.want("frozen once more", "i000")
				e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindAdmin, Service: service, Name: registry.Freeze}}})
				e.want("and withdrawn: nothing passes", "i000 i001")
				e.remove(0, 4, false)
				if c := e.pool.Counters(); c.Frozen != 0 || c.Modes != [pool.ModeEmpty + 1]int{} {
					t.Errorf("nothing is registered: %d services are frozen, modes %v", c.Frozen, c.Modes)
				}
			})
		})
	}
}
