package pool_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

var tcpChecked = defaults(registry.Service{Checks: []registry.Check{{Type: "tcp"}}})

// members are servers by a letter each, in capitals suspects.
func members(letters string) []registry.Member {
	var list []registry.Member
	for _, c := range letters {
		list = append(list, registry.Member{Name: "ns-" + strings.ToLower(string(c)), Suspect: c < 'a'})
	}
	return list
}

// peers says who lives; the first is this server.
func (e *env) peers(letters string) {
	e.t.Helper()
	if err := e.pool.SetPeers(e.t.Context(), "ns-a", members(letters)); err != nil {
		e.t.Fatal(err)
	}
}

// report is what server c finds of web/id: "b x f".
func report(line string) registry.Report {
	f := strings.Fields(line)
	return registry.Report{Service: "web", Instance: f[1], Checker: "ns-" + f[0], Passing: f[2] == "p", Reason: "as " + f[0] + " says", Incarnation: 1}
}

func (e *env) reports(lines ...string) {
	e.t.Helper()
	var b registry.Batch
	for _, l := range lines {
		b.Reports = append(b.Reports, report(l))
	}
	e.apply(b)
}

// targets is how many targets the checker has.
func (e *env) targets() int {
	e.checker.mu.Lock()
	defer e.checker.mu.Unlock()
	return len(e.checker.status)
}

// in is who is answered for web.
func (e *env) in() string {
	e.t.Helper()
	s := e.find("web")
	return in(s, s.Set().Group(pool.FamilyA))
}

func (e *env) want(what, want string) {
	e.t.Helper()
	if got := e.in(); got != want {
		e.t.Errorf("%s: %q is answered, want %q", what, got, want)
	}
}

// fill registers n instances i000, i001, ... at 10.0.0.0 and on, which pass.
func (e *env) fill(n int) {
	e.t.Helper()
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("web/i%03d %s", i, addrOf(i)))
	}
	e.apply(registry.Batch{Reset: true, Instances: insts(lines...)})
	for i := range n {
		e.checker.set(addrOf(i), health.Status{State: health.Passing})
	}
	e.notifyAll()
}

func addrOf(i int) string { return fmt.Sprintf("10.0.%d.%d", i>>8, i&255) }

func (e *env) notifyAll() {
	e.t.Helper()
	e.checker.mu.Lock()
	var all []health.Target
	for t := range e.checker.status {
		all = append(all, t)
	}
	e.checker.mu.Unlock()
	for _, t := range all {
		e.pool.Notify(t)
	}
	e.wait()
}

// setMany gives instances from up to to a state at once.
func (e *env) setMany(from, to int, st health.State) {
	e.t.Helper()
	for i := from; i < to; i++ {
		e.checker.set(addrOf(i), health.Status{State: st, Output: "said so"})
	}
	e.notifyAll()
}

// alarms lists what alarms said since the event numbered so.
func (e *env) alarms(since uint64) string {
	e.t.Helper()
	var list []string
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Millisecond) // of the bubble's clock
	defer cancel()
	for ev := range e.pool.Events(ctx, since) {
		if ev.Kind == pool.EventAlarm {
			list = append(list, ev.To)
		}
	}
	return strings.Join(list, " ")
}

const fromTheStart = 1 // a number before all that are kept

func TestPool_SetPeers(t *testing.T) {
	t.Run("who is alone checks everything and tells nobody", func(t *testing.T) {
		bubble(t, tcpChecked, func(t *testing.T, e *env) {
			e.fill(20)
			e.peers("a")
			if n := e.targets(); n != 20 {
				t.Errorf("%d targets, want 20", n)
			}
			if said := e.pool.TakeSaid(100); len(said) != 0 {
				t.Errorf("told: %v", said)
			}
		})
	})
	t.Run("five servers check three fifths each, and only what must moves", func(t *testing.T) {
		bubble(t, tcpChecked, func(t *testing.T, e *env) {
			e.fill(200)
			e.peers("abcde")
			five := e.has()
			if n := len(five); n < 102 || n > 138 {
				t.Errorf("%d of 200 are checked here, want 120 within 15 %%", n)
			}
			e.peers("abcd")
			four := e.has()
			for a := range five {
				if !four[a] {
					t.Errorf("%s is not checked here any more, since another server left", a)
				}
			}
			if n := len(four); n < 127 || n > 173 {
				t.Errorf("%d of 200 are checked here, want 150 within 15 %%", n)
			}
			e.peers("abc")
			if n := e.targets(); n != 200 {
				t.Errorf("%d targets with three servers, want 200", n)
			}
			e.peers("bcde") // this server has not joined, or has lost its lease
			if n := e.targets(); n != 0 {
				t.Errorf("%d targets while this server is no member, want 0", n)
			}
		})
	})
}

// has is the addresses of what is checked here.
func (e *env) has() map[string]bool {
	e.checker.mu.Lock()
	defer e.checker.mu.Unlock()
	set := map[string]bool{}
	for t := range e.checker.status {
		set[t.Addr.String()] = true
	}
	return set
}

// TestPool_Run_quorum changes one thing after the other among three servers, of
// which this is a.
func TestPool_Run_quorum(t *testing.T) {
	pass, fail := health.Status{State: health.Passing}, health.Status{State: health.Failing, Output: "refused"}
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.peers("abc")
		e.apply(registry.Batch{Reset: true, Instances: insts("web/x 10.0.0.1", "web/y 10.0.0.2")})
		e.verdict("10.0.0.1", pass)
		e.verdict("10.0.0.2", pass)
		e.want("this server alone has found out", "x y")
		e.reports("b x p", "c x p", "b y p", "c y p")
		e.verdict("10.0.0.1", fail)
		e.want("this server is outvoted", "x y")
		e.reports("b x f")
		e.want("two of three", "y")
		if s := e.find("web"); s.Health(0) != health.Failing {
			t.Errorf("health of x: %v", s.Health(0))
		}
		e.reports("b x p")
		e.want("one of three", "x y")
		e.reports("c x f")
		e.want("two of three again", "y")
		e.peers("aBc")
		e.want("b suspects itself, its success counts", "y")
		e.peers("aC")
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindHealth, Service: "web", Name: "x", Sub: "ns-b"}}})
		e.want("b is gone; a believes itself", "y")
		e.verdict("10.0.0.1", pass)
		e.want("a passes it; c is a suspect and fails it", "x y")
		e.peers("ac")
		e.want("one for and one against: it stays", "x y")
		e.reports("c x p", "c y f")
		e.want("one for and one against y: it stays", "x y")
		e.verdict("10.0.0.2", fail)
		e.want("both", "x")
		again := inst("web/y 10.0.0.2 inc=2")
		e.apply(registry.Batch{Instances: []registry.Instance{again}})
		e.verdict("10.0.0.2", pass)
		e.want("a report on an earlier life of y is nothing", "x y")
	})
}

func TestPool_Run_sharedStart(t *testing.T) {
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.peers("abcde")
		var lines []string
		var b registry.Batch
		for i := range 50 {
			lines = append(lines, fmt.Sprintf("web/i%03d %s", i, addrOf(i)))
			for _, c := range "bcde" {
				b.Reports = append(b.Reports, report(fmt.Sprintf("%c i%03d %c", c, i, "pf"[i%2])))
			}
		}
		b.Reset, b.Instances = true, insts(lines...)
		e.apply(b)
		s := e.find("web")
		for i := range 50 {
			want := []health.State{health.Passing, health.Failing}[i%2]
			if got := s.Health(uint32(i)); got != want {
				t.Errorf("i%03d begins %v, want what the others say: %v", i, got, want)
			}
		}
		info, err := e.pool.Service(t.Context(), 1, "web")
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range info.Instances {
			if _, here := e.has()[in.Checks[0].Target.Addr.String()]; !here && in.Health == health.Failing && !strings.Contains(in.Checks[0].Status.Output, " says (found by ns-") {
				t.Errorf("%s fails by what others found: %+v", in.ID, in.Checks[0].Status)
			}
		}
		e.checker.mu.Lock()
		defer e.checker.mu.Unlock()
		for target, st := range e.checker.status {
			if want := []health.State{health.Passing, health.Failing}[target.Addr.Addr().As4()[3]%2]; st.State != want {
				t.Errorf("the check of %v begins %v, want %v", target.Addr, st.State, want)
			}
		}
	})
}

func TestPool_Run_cutOffFromTheRegistry(t *testing.T) {
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.peers("abcde")
		e.fill(40)
		var all []string
		for i := range 40 {
			for _, c := range "bcde" {
				all = append(all, fmt.Sprintf("%c i%03d %c", c, i, "ppppf"[i%5]))
			}
		}
		e.reports(all...)
		e.setMany(1, 2, health.Failing) // this server is outvoted about i001
		before, mine := e.in(), e.targets()
		if mine >= 40 || strings.Contains(before, "i004") {
			t.Fatalf("%d checked here, %q answered", mine, before)
		}
		time.Sleep(12 * time.Second) // without a proof of the state's age
		e.wait()
		if n := e.targets(); n != 40 {
			t.Errorf("%d checked here, want all 40 since the registry is away", n)
		}
		e.want("at the hand-over nothing flips", before)
		e.setMany(0, 1, health.Failing)
		e.want("then the own checks decide", strings.TrimPrefix(before, "i000 "))
		e.pool.TakeSaid(1000)
		e.apply(registry.Batch{}) // a proof
		time.Sleep(2 * time.Second)
		e.want("the reports of before have no say yet", strings.TrimPrefix(before, "i000 "))
		e.setMany(39, 40, health.Failing)
		told := map[string]bool{}
		for _, s := range e.pool.TakeSaid(1000) {
			told[s.Report.Instance] = true
		}
		if e.targets() != 40 || len(told) > 2 {
			t.Errorf("%d checked here, told of %v; want still all 40, and what is new to the others", e.targets(), told)
		}
		time.Sleep(5 * time.Second)
		e.wait()
		if n := e.targets(); n != mine {
			t.Errorf("%d checked here, want %d again", n, mine)
		}
	})
}

func TestPool_TakeSaid(t *testing.T) {
	told := func(e *env) []string {
		var list []string
		for _, s := range e.pool.TakeSaid(1000) {
			r := s.Report
			word := "f"
			switch {
			case s.Withdrawn:
				word = "withdrawn"
			case r.Passing:
				word = "p"
			}
			list = append(list, strings.Join([]string{r.Checker, r.Instance, word, r.Reason}, " "))
		}
		slices.Sort(list)
		return list
	}
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		want := func(what string, want ...string) {
			t.Helper()
			if got := told(e); !slices.Equal(got, want) {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		e.peers("ab")
		e.apply(registry.Batch{Reset: true, Instances: insts("web/x 10.0.0.1", "web/y 10.0.0.2 inc=7")})
		want("nothing is known yet")
		e.verdict("10.0.0.1", health.Status{State: health.Passing, Output: "200"})
		e.verdict("10.0.0.2", health.Status{State: health.Failing, Output: "503"})
		want("first verdicts", "ns-a x p 200", "ns-a y f 503")
		e.verdict("10.0.0.1", health.Status{State: health.Passing, Output: "204"})
		want("the same again")
		e.verdict("10.0.0.1", health.Status{State: health.Failing, Output: "503"})
		list := e.pool.TakeSaid(10)
		e.verdict("10.0.0.1", health.Status{State: health.Passing, Output: "201"})
		e.pool.ReturnSaid(list)
		want("a newer word before one that was not written", "ns-a x p 201")
		e.peers("a")
		want("b has left")
		e.verdict("10.0.0.1", health.Status{State: health.Failing, Output: "gone"})
		want("what was told is kept right", "ns-a x f gone")
		if err := e.pool.SayAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("to nobody nothing is told again")
		e.peers("ab")
		want("b is back", "ns-a x f gone", "ns-a y f 503")
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "x"}}})
		want("x is deregistered", "ns-a x withdrawn ")
	})
}

// TestPool_Run_massFailure is FAULTS 14: this server's own network is down.
func TestPool_Run_massFailure(t *testing.T) {
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.peers("abc")
		e.fill(20)
		var all []string
		for i := range 20 {
			all = append(all, fmt.Sprintf("b i%03d p", i), fmt.Sprintf("c i%03d p", i))
		}
		e.reports(all...)
		before := e.in()
		e.setMany(0, 9, health.Failing)
		if e.pool.Suspect() {
			t.Error("9 of 20 fail: this server is a suspect")
		}
		e.setMany(9, 20, health.Failing)
		if !e.pool.Suspect() {
			t.Error("20 of 20 fail: this server is no suspect")
		}
		e.want("the others see them", before)
		e.reports("b i003 f")
		e.want("b alone fails one, c passes it, this server has no say", before)
		e.reports("c i003 f")
		e.want("b and c fail one", strings.Replace(before, "i003 ", "", 1))
		e.reports("b i003 p", "c i003 p")
		e.setMany(0, 20, health.Passing)
		if e.pool.Suspect() {
			t.Error("all pass: this server is a suspect")
		}
		e.want("all is well", before)
		if got := e.alarms(fromTheStart); got != "suspect trusted" {
			t.Errorf("alarms: %q", got)
		}
		if got := e.pool.Counters().Suspected; got != 1 {
			t.Errorf("counted %d times, want 1", got)
		}
	})
}

// TestPool_Run_heartbeats: heartbeats come to one server, and the others must
// not take an instance out for want of them.
func TestPool_Run_heartbeats(t *testing.T) {
	bubble(t, defaults(registry.Service{Fail: "closed"}), func(t *testing.T, e *env) {
		e.peers("abcde")
		x := inst("web/x 10.0.0.1")
		x.Checks = []registry.Check{{Type: "ttl", Interval: 5 * time.Second}}
		e.apply(registry.Batch{Reset: true, Instances: []registry.Instance{x}})
		beat := func(st health.State) {
			t.Helper()
			e.checker.mu.Lock()
			var all []health.Target
			for target := range e.checker.status {
				e.checker.status[target] = health.Status{State: st}
				all = append(all, target)
			}
			e.checker.mu.Unlock()
			if len(all) != 1 {
				t.Fatalf("%d targets, want 1", len(all))
			}
			e.pool.Notify(all[0])
			e.wait()
		}
		beat(health.Failing)
		e.want("nobody hears it", "")
		e.reports("b x p", "c x f", "d x f")
		e.want("b hears it", "x")
		e.reports("b x f")
		e.want("nobody hears it any more", "")
		beat(health.Passing)
		e.want("this server hears it", "x")
	})
}
