package health_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

// different are targets that differ by every part that one can have.
func different() []health.Target {
	var list []health.Target
	for n := range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(n)}), 80)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), 80)
		zoned := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fe80::%x%%eth0", n+1)), 80)
		list = append(list,
			health.Target{Type: health.TypeTCP, Addr: addr},
			health.Target{Type: health.TypeTCP, Addr: netip.AddrPortFrom(addr.Addr(), 81)},
			health.Target{Type: health.TypeTCP, Addr: mapped},
			health.Target{Type: health.TypeTCP, Addr: zoned},
			health.Target{Type: health.TypeTCP, Addr: netip.AddrPortFrom(netip.Addr{}, uint16(n))},
			health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/a"},
			health.Target{Type: health.TypeDNS, Addr: addr, Name: fmt.Sprint(n)},
			health.Target{Type: health.TypeTTL, Name: fmt.Sprint(n)},
			health.Target{Type: health.TypeTTL, Name: fmt.Sprint(n), Addr: addr})
	}
	return list
}

// TestMonitor_Find/finds what was added and not removed, by every part of a
// target, whatever had its ID before.
func TestMonitor_Find(t *testing.T) {
	m, err := health.New(health.Config{Prober: &instant{}})
	if err != nil {
		t.Fatal(err)
	}
	targets := different()
	ids := map[health.Target]health.ID{}
	add := func(x health.Target) {
		ids[x] = m.Add(x, health.Unknown)
		if got := m.Target(ids[x]); got != x {
			t.Fatalf("the ID of %v is that of %v", x, got)
		}
	}
	for _, x := range targets {
		add(x)
	}
	for round := range 3 {
		for i, x := range targets {
			if i%3 == round {
				m.Remove(x)
				delete(ids, x)
			}
		}
		for i, x := range targets {
			id, there := m.Find(x)
			if want, is := ids[x]; id != want || there != is {
				t.Errorf("round %d: %v, the %d-th, finds %d %v, want %d %v", round, x, i, id, there, want, is)
			}
		}
		for i, x := range slices.Backward(targets) {
			if i%3 == round {
				add(x)
			}
		}
	}
	for x, id := range ids {
		if int(id) > len(targets) {
			t.Errorf("%v has the ID %d: those of %d targets are used again", x, id, len(targets))
		}
	}
}

// TestMonitor_Status_output/is what the check of just that target said, where
// well targets say the same but for their addresses, through its changes.
func TestMonitor_Status_output(t *testing.T) {
	says := []string{"", "%s", "TCP %s: connected", "%s and again %s", "200 OK", "200 OK", "TCP %s: ", ": %s"}
	run(t, health.Config{}, func(t *testing.T, r *rig) {
		said := func(step int, x health.Target) string {
			text := says[step%len(says)]
			for range 2 {
				if i := slices.Index([]byte(text), '%'); i >= 0 {
					text = text[:i] + x.Addr.String() + text[i+2:]
				}
			}
			return text
		}
		var mu sync.Mutex
		step := map[health.Target]int{}
		var targets []health.Target
		for n := range 20 {
			x := target(n)
			if n%2 == 1 {
				x.Addr = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)), 80)
			}
			targets = append(targets, x)
			step[x] = n
		}
		r.set(func(_ context.Context, x health.Target) health.Result {
			mu.Lock()
			defer mu.Unlock()
			step[x]++
			return health.Result{OK: true, Output: said(step[x], x), Load: -1}
		})
		for _, x := range targets {
			r.Add(x, health.Unknown)
		}
		r.start()
		for range 12 {
			r.after(2 * time.Second)
			mu.Lock()
			for n, x := range targets {
				st := r.status(x)
				if want := said(step[x], x); st.Output != want {
					t.Errorf("%v: output %q, want %q", x.Addr, st.Output, want)
				}
				if want := said(n+1, x); len(st.History) != 1 || st.History[0].Output != want {
					t.Errorf("%v: history %v, want one transition by %q", x.Addr, st.History, want)
				}
			}
			mu.Unlock()
		}
		r.Remove(targets[0])
		r.Add(targets[0], health.Passing)
		if st := r.status(targets[0]); st.Output != "" || st.History != nil || st.Transitions != 0 {
			t.Errorf("added anew, it has %+v", st)
		}
	})
}

// TestMonitor_Status_history/has the first transition too, which takes no room
// until there is another.
func TestMonitor_Status_history(t *testing.T) {
	for _, c := range []struct {
		seed   health.State
		script string
		want   []health.Transition
	}{
		{health.Unknown, "p", []health.Transition{{To: health.Passing, Output: "200 OK"}}},
		{health.Unknown, "fff", []health.Transition{{To: health.Failing, Output: "503 Service Unavailable"}}},
		{health.Unknown, "pfff", []health.Transition{
			{To: health.Passing, Output: "200 OK"}, {From: health.Passing, To: health.Failing, Output: "503 Service Unavailable"},
		}},
		{health.Passing, "fff", []health.Transition{{From: health.Passing, To: health.Failing, Output: "503 Service Unavailable"}}},
		{health.Passing, "fffpp", []health.Transition{
			{From: health.Passing, To: health.Failing, Output: "503 Service Unavailable"}, {From: health.Failing, To: health.Passing, Output: "200 OK"},
		}},
	} {
		run(t, health.Config{}, func(t *testing.T, r *rig) {
			x := target(1)
			r.script(c.script)
			r.Add(x, c.seed)
			r.start()
			r.after(20 * time.Second)
			st := r.status(x)
			if len(st.History) != len(c.want) || int(st.Transitions) != len(c.want) {
				t.Fatalf("%v %s: %d transitions, history %v, want %v", c.seed, c.script, st.Transitions, st.History, c.want)
			}
			if last := st.History[len(c.want)-1]; !last.At.Equal(st.Since) {
				t.Errorf("%v %s: the last transition was at %v, the state is since %v", c.seed, c.script, last.At, st.Since)
			}
			for i, got := range st.History {
				if i > 0 && !got.At.After(st.History[i-1].At) {
					t.Errorf("%v %s: transition %d was not after the one before", c.seed, c.script, i)
				}
				if got.At = (time.Time{}); got != c.want[i] {
					t.Errorf("%v %s: transition %d is %v, want %v", c.seed, c.script, i, got, c.want[i])
				}
			}
		})
	}
}

// TestMonitor_Verdict/is that of the Status, whatever goes on.
func TestMonitor_Verdict(t *testing.T) {
	run(t, health.Config{}, func(t *testing.T, r *rig) {
		x := target(1)
		r.script("ppffpfffppp")
		id := r.Add(x, health.Unknown)
		r.start()
		seen := map[string]bool{}
		for range 400 {
			r.after(50 * time.Millisecond)
			st := r.status(x)
			state, at := r.Verdict(id)
			if state != st.State || !at.Equal(st.VerdictAt) {
				t.Fatalf("Verdict: %v at %v, want %v at %v", state, at, st.State, st.VerdictAt)
			}
			seen[fmt.Sprint(state, at.IsZero())] = true
		}
		if len(seen) != 3 {
			t.Errorf("seen %v: want passing, passing with a verdict that nears, and failing", seen)
		}
	})
}
