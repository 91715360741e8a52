package pool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// TestPool_Run/states says who is in, for each rule of states: a line an
// instance with its health and the administrator's word.
func TestPool_Run_states(t *testing.T) {
	tcp := []registry.Check{{Type: "tcp"}}
	half := 0.5
	tests := []struct {
		name    string
		policy  registry.Service
		insts   []string
		health  string // a letter an instance: p f u
		admin   map[string]registry.AdminState
		want    string
		mode    pool.Mode
		answers int
	}{
		{"all pass", registry.Service{}, []string{"a", "b"}, "pp", nil, "a b", pool.ModeNormal, 2},
		{"one fails", registry.Service{}, []string{"a", "b"}, "pf", nil, "a", pool.ModeNormal, 1},
		{"unknown waits while one passes", registry.Service{}, []string{"a", "b"}, "pu", nil, "a", pool.ModeNormal, 1},
		{"unknown is served where nothing passes", registry.Service{}, []string{"a", "b"}, "fu", nil, "b", pool.ModeUnknown, 1},
		{"fail open", registry.Service{}, []string{"a", "b"}, "ff", nil, "a b", pool.ModeFailOpen, 2},
		{"fail closed", registry.Service{Fail: "closed"}, []string{"a", "b"}, "ff", nil, "", pool.ModeClosed, 0},
		{"fail tier", registry.Service{Fail: "tier"}, []string{"a", "b p=1"}, "fp", nil, "b", pool.ModeTier, 1},
		{"fail tier then closed", registry.Service{Fail: "tier"}, []string{"a", "b p=1"}, "ff", nil, "", pool.ModeClosed, 0},
		{"the first tier serves", registry.Service{}, []string{"a", "b p=1"}, "pp", nil, "a", pool.ModeNormal, 1},
		{"the next tier takes over", registry.Service{}, []string{"a", "b p=1"}, "fp", nil, "b", pool.ModeTier, 1},
		{
			"proportional spill",
			registry.Service{Spill: "proportional"},
			[]string{"a", "b", "c p=1"},
			"pfp", nil, "a|c", pool.ModeTier, 1,
		},
		{"fail-open has a tier by itself", registry.Service{}, []string{"a", "b p=1"}, "ff", nil, "a|b", pool.ModeFailOpen, 1},
		{"weight 0 waits", registry.Service{}, []string{"a", "b w=0"}, "pp", nil, "a", pool.ModeNormal, 1},
		{"weight 0 when nothing else is left", registry.Service{}, []string{"a", "b w=0"}, "fp", nil, "b", pool.ModeNormal, 1},
		{
			"a lower tier comes before weight 0",
			registry.Service{},
			[]string{"a w=0", "b p=1"},
			"pp", nil, "b", pool.ModeNormal, 1,
		},
		{
			"panic below the threshold",
			registry.Service{PanicThreshold: &half},
			[]string{"a", "b", "c"},
			"pff", nil, "a b c", pool.ModeFailOpen, 3,
		},
		{
			"no panic at the threshold",
			registry.Service{PanicThreshold: &half},
			[]string{"a", "b"},
			"pf", nil, "a", pool.ModeNormal, 1,
		},
		{
			"drain",
			registry.Service{},
			[]string{"a", "b"},
			"pp",
			map[string]registry.AdminState{"a": registry.AdminDrain},
			"b", pool.ModeNormal, 1,
		},
		{
			"drained is never failed open to",
			registry.Service{},
			[]string{"a", "b"},
			"pf",
			map[string]registry.AdminState{"a": registry.AdminDrain},
			"b", pool.ModeFailOpen, 1,
		},
		{
			"maintenance of all",
			registry.Service{},
			[]string{"a", "b"},
			"pp",
			map[string]registry.AdminState{"*": registry.AdminMaintenance},
			"", pool.ModeEmpty, 0,
		},
		{
			"a word on one comes before that on all",
			registry.Service{},
			[]string{"a", "b"},
			"ff",
			map[string]registry.AdminState{"*": registry.AdminMaintenance, "b": registry.AdminUp},
			"b", pool.ModeNormal, 1,
		},
		{
			"up",
			registry.Service{},
			[]string{"a", "b"},
			"pf",
			map[string]registry.AdminState{"b": registry.AdminUp},
			"a b", pool.ModeNormal, 2,
		},
		{
			"down",
			registry.Service{},
			[]string{"a", "b"},
			"pp",
			map[string]registry.AdminState{"b": registry.AdminDown},
			"a", pool.ModeNormal, 1,
		},
		{"unequal weights answer one", registry.Service{}, []string{"a w=2", "b"}, "pp", nil, "a b", pool.ModeNormal, 1},
		{"hash answers one", registry.Service{Policy: "hash"}, []string{"a", "b"}, "pp", nil, "a b", pool.ModeNormal, 1},
		{"least-loaded answers one", registry.Service{Policy: "least-loaded"}, []string{"a", "b"}, "pp", nil, "a b", pool.ModeNormal, 1},
		{"all answers all", registry.Service{Policy: "all"}, []string{"a w=2", "b"}, "pp", nil, "a b", pool.ModeNormal, 2},
		{
			"eight of nine",
			registry.Service{},
			[]string{"a", "b", "c", "d", "e", "f", "g", "h", "i"},
			"ppppppppp", nil, "a b c d e f g h i", pool.ModeNormal, 8,
		},
		{"as many as asked for", registry.Service{MaxAnswers: 3}, []string{"a w=9", "b", "c", "d"}, "pppp", nil, "a b c d", pool.ModeNormal, 3},
	}
	states := map[byte]health.State{'p': health.Passing, 'f': health.Failing, 'u': health.Unknown}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
				tt.policy.Name, tt.policy.Checks = "web", tcp
				b := registry.Batch{Reset: true, Services: []registry.Service{tt.policy}}
				addr := func(i int) string { return "10.0.0." + string(rune('1'+i)) }
				for i, line := range tt.insts {
					id, rest, _ := strings.Cut(line, " ")
					b.Instances = append(b.Instances, inst("web/"+id+" "+addr(i)+" "+rest))
				}
				for id, st := range tt.admin {
					b.Admin = append(b.Admin, registry.Admin{Service: "web", Instance: id, State: st})
				}
				e.apply(b)
				for i := range tt.insts {
					e.verdict(addr(i), health.Status{State: states[tt.health[i]]})
				}
				s := e.find("web")
				g := s.Set().Group(pool.FamilyA)
				if got := in(s, g); got != tt.want {
					t.Errorf("in: %q, want %q", got, tt.want)
				}
				if s.Mode() != tt.mode {
					t.Errorf("mode: %s, want %s", s.Mode(), tt.mode)
				}
				info, err := e.pool.Service(t.Context(), 1, "web")
				if err != nil || info.Answers != tt.answers {
					t.Errorf("answers: %d, want %d (error %v)", info.Answers, tt.answers, err)
				}
				if (info.Detection == 0) != (tt.mode == pool.ModeFailOpen) {
					t.Errorf("an instance that dies leaves the answers within %v in mode %s", info.Detection, tt.mode)
				}
				for i := range info.Instances {
					in := &info.Instances[i]
					if in.Admin == nil && in.In && in.Health == health.Passing && in.Why != "passing" {
						t.Errorf("why %s, which passes, is in: %q", in.ID, in.Why)
					}
				}
			})
		})
	}
}

func TestPool_Run_until(t *testing.T) {
	t.Run("a drain ends by itself, and TTLs know", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
			until := time.Now().Add(3 * time.Second)
			e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminDrain, Until: until}}})
			s := e.find("web")
			if got := in(s, s.Set().Group(pool.FamilyA)); got != "b" {
				t.Errorf("in: %q, want b", got)
			}
			if want := "drain by an administrator until " + until.UTC().Format(time.RFC3339); s.Why(0) != want {
				t.Errorf("why: %q, want %q", s.Why(0), want)
			}
			if d := s.Deadline(0); d != until.UnixNano() {
				t.Errorf("deadline of the drained instance: %d, want %d", d, until.UnixNano())
			}
			time.Sleep(3*time.Second + time.Millisecond)
			e.wait()
			s = e.find("web")
			if got := in(s, s.Set().Group(pool.FamilyA)); got != "a b" {
				t.Errorf("in after the drain's end: %q, want a b", got)
			}
		})
	})
	t.Run("an up with an end lowers the TTL", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{
				Reset: true, Instances: insts("web/a 10.0.0.1 check=tcp"),
				Admin: []registry.Admin{{Service: "web", Instance: "a", State: registry.AdminUp, Until: time.Now().Add(2500 * time.Millisecond)}},
			})
			info, err := e.pool.Service(t.Context(), 1, "web")
			if err != nil || info.TTL != 2*time.Second || !strings.Contains(info.TTLWhy, "a") {
				t.Errorf("TTL %s because of %q (error %v), want 2s because of a", info.TTL, info.TTLWhy, err)
			}
		})
	})
}

func TestPool_Run_verdict(t *testing.T) {
	t.Run("a running failure is a deadline", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 check=tcp", "web/b 10.0.0.2")})
			at := time.Now().Add(2 * time.Second)
			e.verdict("10.0.0.1", health.Status{State: health.Passing, Failures: 1, VerdictAt: at})
			s := e.find("web")
			if s.Deadline(0) != at.UnixNano() || s.Deadline(1) != 0 {
				t.Errorf("deadlines %d %d, want %d 0", s.Deadline(0), s.Deadline(1), at.UnixNano())
			}
			tier := s.Set().Group(pool.FamilyA).Tiers()[0]
			if !tier.HasDeadlines() {
				t.Error("the tier has no deadlines, want one")
			}
		})
	})
	t.Run("the same status again publishes nothing", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 check=tcp")})
			e.verdict("10.0.0.1", health.Status{State: health.Passing})
			before := e.find("web")
			e.verdict("10.0.0.1", health.Status{State: health.Passing, Passes: 7})
			if e.find("web") != before {
				t.Error("the service was published anew")
			}
		})
	})
}

func TestPool_Run_slowStart(t *testing.T) {
	window := 32 * time.Second
	weights := func(e *env) []float64 {
		info, err := e.pool.Service(e.t.Context(), 1, "web")
		if err != nil {
			e.t.Fatal(err)
		}
		var w []float64
		for _, i := range info.Instances {
			w = append(w, i.EffectiveWeight)
		}
		return w
	}
	t.Run("not at start-up, then from a tenth in a straight line", func(t *testing.T) {
		bubble(t, defaults(registry.Service{SlowStart: &window}), func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 w=10", "web/b 10.0.0.2 w=10")})
			if w := weights(e); w[0] != 10 || w[1] != 10 {
				t.Fatalf("weights at start-up %v, want 10 10", w)
			}
			e.apply(registry.Batch{Instances: insts("web/c 10.0.0.3 w=10")})
			if w := weights(e); w[2] != 1 {
				t.Errorf("weight of the new one %v, want 1", w[2])
			}
			time.Sleep(window / 2)
			if w := weights(e); w[2] != 5 {
				t.Errorf("weight after half the window %v, want 5", w[2])
			}
			time.Sleep(window/2 + time.Second)
			if w := weights(e); w[2] != 10 {
				t.Errorf("weight after the window %v, want 10", w[2])
			}
		})
	})
	t.Run("not for more than half of the pool", func(t *testing.T) {
		bubble(t, defaults(registry.Service{SlowStart: &window}), func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 w=10")})
			e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2 w=10", "web/c 10.0.0.3 w=10")})
			if w := weights(e); w[1] != 10 || w[2] != 10 {
				t.Errorf("weights of the new ones %v, want 10 10", w[1:])
			}
		})
	})
	t.Run("again after failing", func(t *testing.T) {
		bubble(t, defaults(registry.Service{SlowStart: &window}), func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 w=10", "web/b 10.0.0.2 w=10 check=tcp")})
			for _, st := range []health.State{health.Passing, health.Failing, health.Passing} {
				e.verdict("10.0.0.2", health.Status{State: st})
			}
			if w := weights(e); w[1] != 1 {
				t.Errorf("weight after failing %v, want 1", w[1])
			}
		})
	})
}

func TestPool_Run_leastLoaded(t *testing.T) {
	bubble(t, defaults(registry.Service{Policy: "least-loaded"}), func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
		report := func(a, b float64) {
			now := time.Now()
			e.apply(registry.Batch{Loads: []registry.Load{
				{Service: "web", Instance: "a", Load: a, Active: -1, At: now},
				{Service: "web", Instance: "b", Load: b, Active: -1, At: now},
			}})
		}
		report(0.8, 0.2)
		before := e.find("web")
		report(0.8, 0.2)
		if e.find("web") != before {
			t.Error("a load report published the service")
		}
		for range 4 {
			time.Sleep(5*time.Second + time.Millisecond)
			report(0.8, 0.2)
		}
		info, err := e.pool.Service(t.Context(), 1, "web")
		if err != nil {
			t.Fatal(err)
		}
		a, b := info.Instances[0], info.Instances[1]
		if a.EffectiveWeight >= b.EffectiveWeight/2 {
			t.Errorf("effective weights %v and %v: the loaded one should have less than half", a.EffectiveWeight, b.EffectiveWeight)
		}
		time.Sleep(10 * time.Minute)
		if info, err = e.pool.Service(t.Context(), 1, "web"); err != nil {
			t.Fatal(err)
		}
		a, b = info.Instances[0], info.Instances[1]
		if a.EffectiveWeight != 1 || b.EffectiveWeight != 1 || !a.LoadStale {
			t.Errorf("weights after the reports went stale %v and %v (stale %v), want 1 and 1", a.EffectiveWeight, b.EffectiveWeight, a.LoadStale)
		}
	})
}

func TestPool_Run_roundRobin(t *testing.T) {
	bubble(t, defaults(registry.Service{Policy: "round-robin", MaxAnswers: 1}), func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2", "web/c 10.0.0.3")})
		var got []string
		next := func() {
			s := e.find("web")
			tier, q := s.Set().Group(pool.FamilyA).Draw(anyRequest, false)
			picks := tier.Pick(nil, 1, q)
			got = append(got, string(s.Label(picks[0])[1:]))
		}
		for i := range 6 {
			if i == 3 { // a rebuild in between loses no turn
				e.apply(registry.Batch{Services: []registry.Service{{Name: "web", Meta: map[string]string{"k": "v"}}}})
			}
			next()
		}
		turns := strings.Join(got, "")
		if !strings.Contains("abcabcabc", turns) {
			t.Errorf("turns %s, want a b c in order", turns)
		}
	})
}
