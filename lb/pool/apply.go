package pool

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// ProblemsMax is the number of problems that are listed of one source, and again of those
// of records that are Used; more are counted.
const ProblemsMax = 1000

// packed is a batch as the writer keeps it: nothing of the sender's is in it.
type packed struct {
	source    registry.SourceID
	revision  int64
	at        time.Time // when it came
	asOf      time.Time
	reset     bool
	more      bool
	snapshot  bool
	instances []packedInstance
	services  []registry.Service
	admin     []registry.Admin
	loads     []registry.Load
	members   []registry.Member
	routes    []registry.Route
	reports   []registry.Report
	deleted   []registry.Key
	lost      []registry.Key
	kept      []registry.Key
	problems  []registry.Problem
	mended    []string
}

type packedInstance struct {
	service  string
	rec      record
	revision int64
}

// pack copies a batch. It runs in the sender's goroutine.
func pack(b *registry.Batch) packed {
	p := packed{
		source: b.Source, revision: b.Revision, at: time.Now(), asOf: b.AsOf, reset: b.Reset, more: b.More, snapshot: b.Snapshot,
		services: slices.Clone(b.Services), admin: slices.Clone(b.Admin), loads: slices.Clone(b.Loads),
		members: slices.Clone(b.Members), routes: cloneRoutes(b.Routes), deleted: slices.Clone(b.Deleted),
		reports: slices.Clone(b.Reports), lost: slices.Clone(b.Lost), kept: slices.Clone(b.Kept),
		problems: slices.Clone(b.Problems), mended: slices.Clone(b.Mended),
	}
	for i := range p.services {
		s := &p.services[i]
		s.Checks = slices.Clone(s.Checks)
		s.Meta = maps.Clone(s.Meta)
	}
	if len(b.Instances) > 0 {
		p.instances = make([]packedInstance, len(b.Instances))
	}
	for i := range b.Instances {
		from := &b.Instances[i]
		p.instances[i] = packedInstance{from.Service, newRecord(from), from.Revision}
	}
	return p
}

// apply takes a batch into the writer's state and marks what it touches.
func (w *writer) apply(b *packed, now time.Time) {
	src := w.sources[b.source]
	if src == nil {
		w.pool.counts.unknownSource.Add(1)
		return
	}
	w.pool.counts.batches.Add(1)
	w.arrived = b.at
	switch {
	case b.snapshot && src.live:
		return // an older state than what is served
	case b.reset:
		src.pages = []packed{*b}
	case src.pages != nil:
		src.pages = append(src.pages, *b)
	default:
		w.applyChanges(src, b, now)
		w.applyProblems(src, b, now)
		w.proven(src, b)
		return
	}
	if !b.more {
		w.applyState(src, now)
	}
}

// proven notes what the batch says of its source's revision and age.
func (w *writer) proven(src *source, b *packed) {
	src.revision = max(src.revision, b.revision)
	if !b.asOf.IsZero() {
		src.asOf = max(src.asOf, b.asOf.UnixNano())
	}
}

// applyState applies a complete state, of which all pages are there, as a
// difference: what is in it and the same stays untouched, what is not goes.
func (w *writer) applyState(src *source, now time.Time) {
	pages := src.pages
	src.pages = nil
	src.round++
	last := &pages[len(pages)-1]
	for i := range pages { // services first: they say how instances are checked
		for j := range pages[i].services {
			w.putService(src, &pages[i].services[j], now)
		}
		for j := range pages[i].reports {
			w.putReport(src, &pages[i].reports[j]) // instances begin by them
		}
	}
	members, routes := map[string]registry.Member{}, map[string]registry.Route{}
	problems := packed{}
	admin := map[string]map[string]registry.Admin{}
	for i := range pages {
		p := &pages[i]
		for j := range p.instances {
			w.putInstance(src, &p.instances[j], now)
		}
		for _, a := range p.admin {
			if admin[a.Service] == nil {
				admin[a.Service] = map[string]registry.Admin{}
			}
			admin[a.Service][a.Instance] = a
		}
		for j := range p.loads {
			w.putLoad(src, &p.loads[j])
		}
		for _, m := range p.members {
			members[m.Name] = m
		}
		for _, r := range p.routes {
			routes[r.Name] = r
		}
		for _, k := range p.kept {
			if r, there := src.routes[k.Name]; there && k.Kind == registry.KindRoute {
				routes[k.Name] = r
			}
		}
		problems.problems = append(problems.problems, p.problems...)
	}
	w.setAdmin(src, admin)
	w.sweep(src, now)
	w.replaceProblems(src, &problems, now)
	src.members = members
	w.setRoutes(src, routes)
	src.live = src.live || !last.snapshot
	src.snapshot = last.snapshot
	src.revision = last.revision // it may have gone back
	asOf := last.asOf
	if asOf.IsZero() {
		asOf = now
	}
	src.asOf = asOf.UnixNano()
	if !last.snapshot {
		src.asOf = max(src.asOf, src.view.asOf.Load())
	}
	w.reshare(now)
}

// setAdmin makes the administrators' words of a complete state the only ones.
func (w *writer) setAdmin(src *source, admin map[string]map[string]registry.Admin) {
	for name, words := range admin {
		s := w.service(src, name)
		if !maps.Equal(s.admin, words) {
			s.admin = words
			w.markWords(s)
		}
	}
	for name, s := range src.services {
		if s.admin != nil && admin[name] == nil {
			s.admin = nil
			w.markWords(s)
		}
	}
}

// sweep removes what the complete state just applied does not have.
func (w *writer) sweep(src *source, now time.Time) {
	for _, s := range src.services {
		for i := len(s.insts) - 1; i >= 0; i-- { //nolint:modernize // it shrinks meanwhile
			if s.insts[i].round != uint8(src.round) {
				w.loseInstance(s, i, src.live && s.insts[i].rec.leased(), now)
			}
		}
		if s.own != nil && s.round != src.round {
			w.removeService(s, now)
		}
		maps.DeleteFunc(s.loads, func(_ string, l *load) bool { return l.round != src.round })
		w.sweepReports(s)
	}
}

// applyChanges applies the changes of one revision.
func (w *writer) applyChanges(src *source, b *packed, now time.Time) {
	for i := range b.services {
		w.putService(src, &b.services[i], now)
	}
	for i := range b.instances {
		w.putInstance(src, &b.instances[i], now)
	}
	for i := range b.admin {
		w.putAdmin(src, &b.admin[i])
	}
	for i := range b.reports {
		w.putReport(src, &b.reports[i])
	}
	for i := range b.loads {
		w.putLoad(src, &b.loads[i])
	}
	for _, m := range b.members {
		src.members[m.Name] = m
	}
	w.changeRoutes(src, b)
	lost := make(map[registry.Key]bool, len(b.lost))
	for _, k := range b.lost {
		lost[k] = true
	}
	for i := range b.deleted {
		w.remove(src, &b.deleted[i], lost[b.deleted[i]], now)
	}
}

// remove applies one deletion, or one loss.
func (w *writer) remove(src *source, k *registry.Key, lost bool, now time.Time) {
	if k.Kind == registry.KindMember {
		delete(src.members, k.Name)
		return
	}
	s := src.services[k.Service]
	if s == nil {
		return
	}
	switch k.Kind {
	case registry.KindInstance:
		if i, there := s.find(k.Name); there {
			w.loseInstance(s, i, lost, now)
		}
	case registry.KindService:
		if s.own != nil {
			w.removeService(s, now)
		}
	case registry.KindAdmin:
		if _, there := s.admin[k.Name]; there {
			s.admin = maps.Clone(s.admin)
			delete(s.admin, k.Name)
			w.markWords(s)
		}
	case registry.KindLoad:
		delete(s.loads, k.Name) // the next step of the factors finds it gone
		w.forget(s)
	case registry.KindHealth:
		w.removeReport(s, k)
	case registry.KindMember, registry.KindRoute, registry.KindUnknown:
	}
}

// putService sets a service's own policy.
func (w *writer) putService(src *source, from *registry.Service, now time.Time) {
	s := w.service(src, from.Name)
	s.round = src.round
	if s.own != nil && samePolicy(s.own, from) {
		s.own = from // the same but for its revision
		return
	}
	s.own = from
	w.retune(s)
	src.content = true
	if src.asOf != 0 {
		w.event(now, src, Event{Kind: EventService, Service: s.name, Reason: "policy set"})
	}
}

func samePolicy(a, b *registry.Service) bool {
	return a.Policy == b.Policy && a.TTL == b.TTL && a.MaxAnswers == b.MaxAnswers && a.HashOn == b.HashOn &&
		a.Fail == b.Fail && a.Spill == b.Spill && a.ProxyPolicy == b.ProxyPolicy && a.HashBound == b.HashBound &&
		(a.VIP == nil) == (b.VIP == nil) && slices.Equal(a.VIP, b.VIP) && samePointer(a.PanicThreshold, b.PanicThreshold) &&
		(a.Failover == nil) == (b.Failover == nil) && slices.Equal(a.Failover, b.Failover) &&
		samePointer(a.SlowStart, b.SlowStart) && (a.Checks == nil) == (b.Checks == nil) &&
		slices.EqualFunc(a.Checks, b.Checks, registry.Check.Equal) && maps.Equal(a.Meta, b.Meta)
}

func samePointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// removeService takes a service's own policy away.
func (w *writer) removeService(s *svc, now time.Time) {
	s.own = nil
	w.retune(s)
	s.src.content = true
	w.event(now, s.src, Event{Kind: EventService, Service: s.name, Reason: "policy removed"})
}

// putInstance registers an instance, or changes it.
func (w *writer) putInstance(src *source, from *packedInstance, now time.Time) {
	s := w.service(src, from.service)
	id := string(from.rec.id())
	at, there := s.find(id)
	if there {
		i := &s.insts[at]
		i.round, i.revision = uint8(src.round), from.revision
		w.regain(s, i, now)
		if !bytes.Equal(i.rec, from.rec) {
			w.changeInstance(s, at, from.rec, now)
		}
		return
	}
	src.churn.back(s.name, id, now.UnixNano())
	s.insts = slices.Insert(s.insts, at, inst{rec: from.rec, revision: from.revision, round: uint8(src.round), fresh: true, late: src.live})
	src.instances++
	s.filters.insert(at, from.rec)
	s.regroup = true
	w.mark(s)
	i := &s.insts[at]
	if s.settings.policy.Checks != nil || from.rec[14]&flagChecks != 0 {
		w.setTargets(s, i, w.seedOf(s, i))
	}
	w.index(s, i.rec, true)
	w.touchBelow(s, id)
	if src.asOf != 0 { // the first state is no news
		w.event(now, src, Event{Kind: EventRegistered, Service: s.name, Instance: id})
	}
}

// changeInstance gives an instance a new record.
func (w *writer) changeInstance(s *svc, at int, rec record, now time.Time) {
	i := &s.insts[at]
	old := i.rec
	i.rec = rec
	if old.incarnation() != rec.incarnation() {
		i.fresh, i.late, i.said = true, s.src.live, health.Unknown
		delete(s.loads, string(rec.id()))
	}
	if !sameFilters(old, rec) {
		s.filters.change(at, rec)
		s.regroup = true
	}
	seed := health.Unknown
	if old.addresses()[0] == rec.addresses()[0] && old.port() == rec.port() {
		seed = i.health
	}
	w.setTargets(s, i, seed)
	if !slices.Equal(old.addresses(), rec.addresses()) {
		w.index(s, old, false)
		w.index(s, rec, true)
	}
	w.mark(s)
	w.event(now, s.src, Event{Kind: EventChanged, Service: s.name, Instance: string(rec.id()), Reason: difference(old, rec)})
}

// difference says what of an instance has changed.
func difference(a, b record) string {
	switch {
	case a.incarnation() != b.incarnation():
		return "registered anew"
	case !slices.Equal(a.addresses(), b.addresses()):
		return "addresses"
	case a.port() != b.port():
		return "port " + strconv.Itoa(int(a.port())) + " to " + strconv.Itoa(int(b.port()))
	case a.weight() != b.weight():
		return "weight " + strconv.Itoa(int(a.weight())) + " to " + strconv.Itoa(int(b.weight()))
	case a.priority() != b.priority():
		return "priority " + strconv.Itoa(int(a.priority())) + " to " + strconv.Itoa(int(b.priority()))
	case !sameFilters(a, b):
		return "zone, ports or tags"
	default:
		return "metadata, checks or times"
	}
}

// removeInstance deregisters the i-th instance; lost: its lease ended.
func (w *writer) removeInstance(s *svc, at int, lost bool, now time.Time) {
	i := &s.insts[at]
	w.goes(s, i, lost)
	id := string(i.rec.id())
	for t := range i.targets() {
		w.targets.release(t, s)
	}
	w.unshare(s, i, now)
	w.index(s, i.rec, false)
	s.insts = slices.Delete(s.insts, at, at+1)
	s.src.instances--
	s.filters.remove(at)
	s.regroup = true
	delete(s.loads, id)
	w.mark(s)
	w.touchBelow(s, id)
	w.event(now, s.src, Event{Kind: EventDeregistered, Service: s.name, Instance: id})
}

// touchBelow marks the service whose name is that of an instance of s, since
// the one decides whether the other is hidden.
func (w *writer) touchBelow(s *svc, id string) {
	if s.children > 0 {
		if below := s.src.services[id+"."+s.name]; below != nil {
			w.mark(below)
		}
	}
}

// putAdmin notes an administrator's word.
func (w *writer) putAdmin(src *source, a *registry.Admin) {
	s := w.service(src, a.Service)
	if s.admin[a.Instance] == *a {
		return
	}
	s.admin = maps.Clone(s.admin)
	if s.admin == nil {
		s.admin = map[string]registry.Admin{}
	}
	s.admin[a.Instance] = *a
	w.markWords(s)
}

// applyProblems notes the problems of a batch and those that it mends.
func (w *writer) applyProblems(src *source, b *packed, now time.Time) {
	for _, key := range b.mended {
		if src.withdraw(key) {
			w.event(now, src, Event{Kind: EventProblem, To: "mended", Reason: strconv.Quote(key)})
		}
	}
	for _, p := range b.problems {
		w.addProblem(src, p, now)
	}
}

// replaceProblems makes those of a complete state the only ones.
func (w *writer) replaceProblems(src *source, b *packed, now time.Time) {
	old := src.problems
	src.problems, src.ignored = map[string]registry.Problem{}, 0
	src.dropped = 0
	for _, p := range b.problems {
		if old[p.RawKey] == p {
			src.list(p)
			continue
		}
		w.addProblem(src, p, now)
	}
}

func (w *writer) addProblem(src *source, p registry.Problem, now time.Time) {
	src.withdraw(p.RawKey)
	listed := src.ignored
	if !p.Used {
		w.pool.counts.problems.Add(1)
		listed = len(src.problems) - src.ignored
	}
	if listed >= ProblemsMax {
		src.dropped++
		w.pool.counts.problemsDropped.Add(1)
		return
	}
	src.list(p)
	w.event(now, src, Event{Kind: EventProblem, Reason: strconv.Quote(p.RawKey) + ": " + cmp.Or(p.Reason, "bad record")})
}

// list keeps a problem of a record that has none.
func (src *source) list(p registry.Problem) {
	src.problems[p.RawKey] = p
	if p.Used {
		src.ignored++
	}
}

// withdraw forgets the problem of a record, if it has one.
func (src *source) withdraw(rawKey string) bool {
	p, there := src.problems[rawKey]
	if p.Used {
		src.ignored--
	}
	delete(src.problems, rawKey)
	return there
}
