package pool

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// target is one thing that the Checker checks for us, and for whom. It has its
// key, a fifth of it.
type target struct {
	key       health.Key
	state     health.State
	verdictAt int64  // ns since 1970; 0: no failures are running
	user      *svc   // each use of it is here or in others; changes here make them dirty
	others    []*svc // hardly ever any
	sibling   *target
}

// IndexKey and IndexNext make it a health.Indexed.
func (t *target) IndexKey() *health.Key { return &t.key }

// IndexNext is room for the index.
func (t *target) IndexNext() **target { return &t.sibling }

// users yields a service for each use.
func (t *target) users(yield func(*svc) bool) {
	if t.user == nil || !yield(t.user) {
		return
	}
	for _, s := range t.others {
		if !yield(s) {
			return
		}
	}
}

// use is that of one target by an instance, and the next of them. It never
// changes.
type use struct {
	target *target
	next   *use
}

// targets yields what this server checks of the instance.
func (in *inst) targets() iter.Seq[*target] {
	first := in.uses
	return func(yield func(*target) bool) {
		for u := first; u != nil; u = u.next {
			if !yield(u.target) {
				return
			}
		}
	}
}

// targets is the writer's index of targets.
type targets struct {
	index   health.Index[target, *target]
	checker Checker
}

func (ts *targets) find(t health.Target) *target { return ts.index.Find(health.KeyOf(t)) }

// use adds one use of t by s, and begins to check it if it is new.
func (ts *targets) use(t health.Target, s *svc, seed health.State) *target {
	k := health.KeyOf(t)
	if e := ts.index.Find(k); e != nil {
		e.others = append(e.others, s)
		return e
	}
	e := &target{key: k, state: seed, user: s}
	ts.index.Add(e)
	if ts.checker != nil {
		ts.checker.Add(t, seed)
		ts.refresh(e)
	}
	return e
}

// release takes one use back; the last ends the checking.
func (ts *targets) release(e *target, s *svc) {
	if last := len(e.others) - 1; last >= 0 {
		if e.user == s {
			e.user = e.others[last]
		} else {
			e.others[slices.Index(e.others, s)] = e.others[last]
		}
		e.others[last] = nil
		e.others = e.others[:last]
		return
	}
	ts.index.Remove(e)
	if ts.checker != nil {
		ts.checker.Remove(e.key.Target())
	}
}

// refresh reads what the Checker knows of e, and reports whether that matters
// to an answer.
func (ts *targets) refresh(e *target) bool {
	if ts.checker == nil {
		return false
	}
	st, ok := ts.checker.Status(e.key.Target())
	if !ok {
		return false
	}
	verdict := int64(0)
	if !st.VerdictAt.IsZero() {
		verdict = st.VerdictAt.UnixNano()
	}
	changed := st.State != e.state || verdict != e.verdictAt
	e.state, e.verdictAt = st.State, verdict
	return changed
}

// targetsOf lists the targets of an instance. Checks that cannot be run, for
// want of a port, are returned as a reason each.
func targetsOf(src *source, service string, rec record, checks []registry.Check, def CheckDefaults) (list []health.Target, impossible []string) {
	if own := rec.checks(); own != nil {
		checks = own
	}
	for i := range checks {
		c := &checks[i]
		t, err := newTarget(c, rec, def)
		if err != nil {
			impossible = append(impossible, err.Error())
			continue
		}
		if t.Type == health.TypeTTL {
			t.Name = fmt.Sprintf("%d/%s/%s", src.cfg.ID, service, rec.id())
			t.Addr = netip.AddrPort{}
		}
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list, impossible
}

// newTarget turns a check of an instance into a target at its first address.
func newTarget(c *registry.Check, rec record, def CheckDefaults) (health.Target, error) {
	typ, err := health.ParseType(c.Type)
	if err != nil {
		return health.Target{}, err
	}
	t := health.Target{
		Type: typ, Path: c.Path, Host: c.Host, Method: c.Method, Status: c.Status,
		Service: c.Service, Name: c.Name, Record: c.Record, Insecure: c.Insecure, Keep: c.Keep, Command: health.Command(c.Command),
		Interval: orDefault(c.Interval, def.Interval), Timeout: orDefault(c.Timeout, def.Timeout),
		Rise: c.Rise, Fall: c.Fall, FastInterval: def.FastInterval,
	}
	if t.Rise == 0 {
		t.Rise = def.Rise
	}
	if t.Fall == 0 {
		t.Fall = def.Fall
	}
	t.FastInterval = min(t.FastInterval, t.Interval)
	if typ == health.TypeTTL {
		return t, nil
	}
	port, err := checkPort(c, rec)
	if err != nil {
		return health.Target{}, err
	}
	t.Addr = netip.AddrPortFrom(rec.addresses()[0], port)
	return t, nil
}

// checkPort finds the port that a check is for: by number, by name, or the
// default port.
func checkPort(c *registry.Check, rec record) (uint16, error) {
	if c.Port == "" {
		if rec.port() == 0 {
			return 0, fmt.Errorf("%s check: the instance has no default port", c.Type)
		}
		return rec.port(), nil
	}
	in := reader{rec.filters()}
	for range in.u8() {
		number, _, name := in.u16(), in.u8(), in.short()
		if string(name) == c.Port {
			return number, nil
		}
	}
	n, err := strconv.ParseUint(c.Port, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s check: the instance has no port %q", c.Type, c.Port)
	}
	return uint16(n), nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// setTargets makes i checked as its record and the service's policy say. New
// targets of an instance that was known before begin in the state it had, so
// that a change of a check is no fall into the unknown.
func (w *writer) setTargets(s *svc, i *inst, seed health.State) {
	list, impossible := targetsOf(s.src, s.name, i.rec, s.settings.policy.Checks, w.def)
	i.watched = len(list)+len(impossible) > 0
	i.beats = slices.ContainsFunc(list, func(t health.Target) bool { return t.Type == health.TypeTTL })
	if i.mine = i.watched && w.isMine(s, i); !i.mine {
		list = nil
	}
	old := i.targets()
	i.uses = nil
	for _, t := range slices.Backward(list) {
		i.uses = &use{w.targets.use(t, s, seed), i.uses}
	}
	for t := range old {
		w.targets.release(t, s)
	}
	i.impossible = len(impossible) > 0
}

// health is the state of all of an instance's checks together, and the earliest
// time at which failures now running may end it: failing if one is, unknown if
// one is, passing if there is none.
func (in *inst) checked() (state health.State, deadline int64) {
	state = health.Passing
	if in.impossible {
		state = health.Unknown
	}
	for u := in.uses; u != nil; u = u.next {
		t := u.target
		switch t.state {
		case health.Failing:
			state = health.Failing
		case health.Unknown:
			if state == health.Passing {
				state = health.Unknown
			}
		case health.Passing:
		}
		if t.verdictAt != 0 && (deadline == 0 || t.verdictAt < deadline) {
			deadline = t.verdictAt
		}
	}
	return state, deadline
}
