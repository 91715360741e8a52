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

// target is what is kept of one thing that the Checker checks for us, by its ID.
type target struct {
	user      *svc  // each use of it is here or in targets.others; changes make them dirty
	verdictAt int64 // ns since 1970; 0: no failures are running
	state     health.State
}

// use is that of one target by an instance, and the next of them. It never
// changes.
type use struct {
	target health.ID
	next   *use
}

// targets yields what this server checks of the instance.
func (in *inst) targets() iter.Seq[health.ID] {
	first := in.uses
	return func(yield func(health.ID) bool) {
		for u := first; u != nil; u = u.next {
			if !yield(u.target) {
				return
			}
		}
	}
}

// targets is what the writer keeps of all targets, without what the Checker
// knows of them already.
type targets struct {
	checker Checker
	blocks  []*[targetBlock]target // by ID
	others  map[health.ID][]*svc   // hardly ever any
}

// targetBlock targets are 12 KiB, which is a size that Go allocates without
// loss.
const targetBlock = 512

// at is the room for what an ID names. It stays where it is.
func (ts *targets) at(id health.ID) *target {
	for int(id/targetBlock) >= len(ts.blocks) {
		ts.blocks = append(ts.blocks, new([targetBlock]target))
	}
	return &ts.blocks[id/targetBlock][id%targetBlock]
}

// users yields a service for each use.
func (ts *targets) users(id health.ID) iter.Seq[*svc] {
	return func(yield func(*svc) bool) {
		if s := ts.at(id).user; s == nil || !yield(s) {
			return
		}
		for _, s := range ts.others[id] {
			if !yield(s) {
				return
			}
		}
	}
}

// find returns what t has; false: it is not checked for us.
func (ts *targets) find(t health.Target) (health.ID, bool) {
	id, there := ts.checker.Find(t)
	return id, there && ts.at(id).user != nil
}

// use adds one use of t by s, and begins to check it if it is new.
func (ts *targets) use(t health.Target, s *svc, seed health.State) health.ID {
	if id, there := ts.find(t); there {
		if ts.others == nil {
			ts.others = map[health.ID][]*svc{}
		}
		ts.others[id] = append(ts.others[id], s)
		return id
	}
	id := ts.checker.Add(t, seed)
	*ts.at(id) = target{user: s, state: seed}
	ts.refresh(id)
	return id
}

// release takes one use back; the last ends the checking.
func (ts *targets) release(id health.ID, s *svc) {
	e, others := ts.at(id), ts.others[id]
	last := len(others) - 1
	if last < 0 {
		*e = target{}
		ts.checker.Remove(ts.checker.Target(id))
		return
	}
	if e.user == s {
		e.user = others[last]
	} else {
		others[slices.Index(others, s)] = others[last]
	}
	others[last] = nil
	if last == 0 {
		delete(ts.others, id)
	} else {
		ts.others[id] = others[:last]
	}
}

// refresh reads what the Checker knows of a target, and reports whether that
// matters to an answer.
func (ts *targets) refresh(id health.ID) bool {
	state, at := ts.checker.Verdict(id)
	verdict := int64(0)
	if !at.IsZero() {
		verdict = at.UnixNano()
	}
	e := ts.at(id)
	changed := state != e.state || verdict != e.verdictAt
	e.state, e.verdictAt = state, verdict
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
func (ts *targets) checked(in *inst) (state health.State, deadline int64) {
	state = health.Passing
	if in.impossible {
		state = health.Unknown
	}
	for u := in.uses; u != nil; u = u.next {
		t := ts.at(u.target)
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
