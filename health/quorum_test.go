package health_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
)

// votes are a letter each: p f u, in capitals of a suspect.
func votes(s string) []health.Vote {
	var list []health.Vote
	for _, c := range s {
		v := health.Vote{Suspect: c < 'a'}
		switch c {
		case 'p', 'P':
			v.State = health.Passing
		case 'f', 'F':
			v.State = health.Failing
		}
		list = append(list, v)
	}
	return list
}

func TestQuorum(t *testing.T) {
	const p, f, u = health.Passing, health.Failing, health.Unknown
	tests := []struct {
		name   string
		before health.State
		votes  string
		want   health.State
	}{
		{"a lone checker fails it", p, "f", f},
		{"a lone checker passes it", f, "p", p},
		{"a lone suspect is believed", p, "F", f},
		{"nobody has a say", p, "", p},
		{"nobody has found out", f, "uuu", f},
		{"one of three is outvoted", p, "fpp", p},
		{"two of three", p, "ffp", f},
		{"two of three pass it again", f, "fpp", p},
		{"one of two changes nothing", p, "fp", p},
		{"one of two changes nothing back", f, "fp", f},
		{"one has not found out, the others agree", p, "uff", f},
		{"one has not found out, the others do not agree", p, "ufp", p},
		{"the first word", u, "p", p},
		{"the first words differ", u, "fp", u},
		{"one of three is cut off", p, "Fpp", p},
		{"one of three is cut off, and it fails", p, "Fff", f},
		{"two of three are cut off, one sees it", p, "FFp", p},
		{"two of three are cut off, one sees it fail", p, "FFf", f},
		{"all of them are cut off, or it is true", p, "FFF", f},
		{"what failed does not pass by fewer than the suspects", f, "FFp", f},
		{"what failed passes by as many", f, "Fp", p},
		{"a suspect's success counts", p, "Pfp", p},
		{"a suspect's success alone", f, "Pu", p},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := health.Quorum(test.before, votes(test.votes)); got != test.want {
				t.Errorf("%v by %s: %v, want %v", test.before, test.votes, got, test.want)
			}
		})
	}
}

// TestQuorum_AnOrderOfVotesIsNone holds Quorum to two laws, for every set of
// up to four votes: their order does not matter, and unanimity decides.
func TestQuorum_AnOrderOfVotesIsNone(t *testing.T) {
	const letters = "pfuPFU"
	for n := range 6 * 6 * 6 * 6 {
		var s []byte
		for m := n; m > 0; m /= 6 {
			s = append(s, letters[m%6])
		}
		sorted := slices.Clone(s)
		slices.Sort(sorted)
		for _, before := range []health.State{health.Unknown, health.Passing, health.Failing} {
			got := health.Quorum(before, votes(string(s)))
			if want := health.Quorum(before, votes(string(sorted))); got != want {
				t.Errorf("%v by %s: %v, sorted %v", before, s, got, want)
			}
			for same, want := range map[string]health.State{"pPuU": health.Passing, "fFuU": health.Failing} {
				said := func(c byte) bool { return c != 'u' && c != 'U' }
				if slices.ContainsFunc(s, said) && !slices.ContainsFunc(s, func(c byte) bool { return !slices.Contains([]byte(same), c) }) && got != want {
					t.Errorf("%v by %s: %v, want %v", before, s, got, want)
				}
			}
		}
	}
}

func names(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("ns%02d-x", i))
	}
	return list
}

func TestShare_Checkers(t *testing.T) {
	const keys = 3000
	key := func(i int) uint64 { return rand.New(rand.NewPCG(7, uint64(i))).Uint64() }
	for _, n := range []int{1, 2, 3, 4, 5, 8, 20} {
		before, after := health.NewShare(names(n+1)), health.NewShare(names(n))
		load, moved := make([]int, n), 0
		for i := range keys {
			old, now := before.Checkers(nil, key(i)), after.Checkers(nil, key(i))
			if want := min(n, health.CheckersMax); len(now) != want || len(slices.Compact(slices.Sorted(slices.Values(now)))) != want {
				t.Fatalf("%d servers: %v check %d, want %d distinct ones", n, now, i, want)
			}
			for _, c := range now {
				load[c]++
			}
			had := slices.Contains(old, n)
			kept := 0
			for _, c := range old {
				if c != n && slices.Contains(now, c) {
					kept++
				}
			}
			switch {
			case had && kept != len(old)-1:
				t.Errorf("%d servers: of the checkers %v of %d only %d stay when one goes", n+1, old, i, kept)
			case !had && (kept != len(old) || len(now) != len(old)):
				t.Errorf("%d servers: the checkers of %d change without a reason: %v to %v", n+1, i, old, now)
			case had:
				moved++
			}
		}
		fair := float64(keys*min(n, health.CheckersMax)) / float64(n)
		for c, l := range load {
			if d := float64(l)/fair - 1; d > 0.15 || d < -0.15 {
				t.Errorf("%d servers: server %d checks %d, want %.0f within 15 %%", n, c, l, fair)
			}
		}
		t.Logf("%d servers: loads %v; %d of %d change when one goes", n, load, moved, keys)
	}
	if s := health.NewShare(names(health.SharersMax + 5)); s.Len() != health.SharersMax {
		t.Errorf("%d servers share, want %d", s.Len(), health.SharersMax)
	}
}

func at(seconds float64) int64 { return int64(1e18) + int64(seconds*float64(time.Second)) }

func TestFalls_Count(t *testing.T) {
	var f health.Falls
	for i := range 5 {
		f.Add(at(float64(i)))
	}
	f.Undo(at(2), at(4))
	for _, test := range []struct {
		at   float64
		want int
	}{{4, 4}, {9.4, 4}, {10.6, 3}, {11.1, 2}, {13.4, 1}, {14.6, 0}, {1000, 0}} {
		if got := f.Count(at(test.at)); got != test.want {
			t.Errorf("at %v s: %d, want %d", test.at, got, test.want)
		}
	}
	f.Undo(at(2), at(1000)) // long out of the window
	if got := f.Count(at(1000)); got != 0 {
		t.Errorf("after a late Undo: %d, want 0", got)
	}
}

func TestGuard_Suspect(t *testing.T) {
	fall := func(g *health.Guard, n int, when float64) {
		for range n {
			g.Add(at(when))
		}
	}
	t.Run("nine of nine are too few", func(t *testing.T) {
		var g health.Guard
		fall(&g, 9, 1)
		if g.Suspect(at(1), 9, 9) {
			t.Error("suspect")
		}
	})
	t.Run("half, until less than that fails", func(t *testing.T) {
		var g health.Guard
		fall(&g, 14, 1)
		if g.Suspect(at(1), 14, 30) {
			t.Error("14 of 30: suspect")
		}
		fall(&g, 1, 2)
		for _, now := range []float64{2, 60, 500} {
			if !g.Suspect(at(now), 15, 30) {
				t.Errorf("15 of 30 at %v s: no suspect", now)
			}
		}
		if g.Suspect(at(501), 14, 30) {
			t.Error("recovered, and suspect")
		}
		if g.Suspect(at(502), 30, 30) {
			t.Error("no new falls, and suspect")
		}
	})
	t.Run("not for falls one after the other", func(t *testing.T) {
		var g health.Guard
		for i := range 30 {
			fall(&g, 1, float64(i))
			if g.Suspect(at(float64(i)), i, 30) {
				t.Fatalf("suspect at %d", i)
			}
		}
	})
	t.Run("not for ever", func(t *testing.T) {
		var g health.Guard
		fall(&g, 30, 1)
		if !g.Suspect(at(1), 30, 30) || g.Suspect(at(1+health.SuspectMax.Seconds()), 30, 30) {
			t.Error("want a suspect at first, and none after SuspectMax")
		}
	})
}

func TestDamping_Held(t *testing.T) {
	var d health.Damping
	for i := range 3 {
		d.Fall(at(float64(i)))
	}
	if held, _ := d.Held(at(2)); held {
		t.Error("held after three falls")
	}
	d.Fall(at(3))
	held, until := d.Held(at(3))
	if left := time.Duration(until - at(3)); !held || left < 115*time.Second || left > 120*time.Second {
		t.Errorf("after four falls: held %t for %v, want about 2 min", held, left)
	}
	if held, _ := d.Held(until - 1); !held {
		t.Error("let go too early")
	}
	if held, _ := d.Held(until); held {
		t.Error("not let go")
	}
	for i := range 36_000 { // ten a second for an hour
		d.Fall(at(1000 + float64(i)/10))
	}
	last := at(1000 + 3599.9)
	if held, until := d.Held(last); !held || time.Duration(until-last) > health.DampMax {
		t.Errorf("after an hour of falls: held %t for %v, want at most %v", held, time.Duration(until-last), health.DampMax)
	}
	var slow health.Damping
	for i := range 100 { // one in a half-life: the penalty stays below 2000
		slow.Fall(at(float64(i) * 60))
		if held, _ := slow.Held(at(float64(i) * 60)); held {
			t.Fatal("held for one fall a minute")
		}
	}
}
