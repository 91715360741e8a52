package pool

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// seen is what the writer hands out of one service for an Info: immutable
// parts, and copies of the rest.
type seen struct {
	src      Source
	view     *SourceView
	name     string
	pub      *Service
	settings *settings
	own      *registry.Service
	hidden   string
	insts    []inst // of a hidden service, else for their revisions
	loads    map[string]registry.Load
	def      CheckDefaults
	frozen   *registry.Admin
	failures failures
	reasons  map[string]string // why those fail that other servers check, by id
}

// see copies what info needs. It runs on the writer.
func (w *writer) see(s *svc) seen {
	o := seen{
		src: s.src.cfg, view: s.src.view, name: s.name, pub: s.pub, settings: s.settings,
		own: s.own, hidden: s.hidden, insts: slices.Clone(s.insts), def: w.def, frozen: s.freezeOf(time.Now()),
		failures: s.src.failures[s],
	}
	for i := range s.insts {
		if in := &s.insts[i]; in.watched && !in.mine && in.health == health.Failing {
			if o.reasons == nil {
				o.reasons = map[string]string{}
			}
			o.reasons[string(in.rec.id())] = s.reason(in, health.Failing)
		}
	}
	if len(s.loads) > 0 {
		o.loads = make(map[string]registry.Load, len(s.loads))
		for id, l := range s.loads {
			o.loads[id] = l.report
		}
	}
	return o
}

// Services lists every service of every source as of one moment, sorted by
// zone and name, without their instances: ask Service for those.
func (p *Pool) Services(ctx context.Context) ([]ServiceInfo, error) {
	all, err := p.collect(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]ServiceInfo, 0, len(all))
	for i := range all {
		info := p.info(&all[i], time.Now())
		info.Instances = nil
		infos = append(infos, info)
	}
	return infos, nil
}

// Instances lists every service with its instances as of one moment.
func (p *Pool) Instances(ctx context.Context) ([]ServiceInfo, error) {
	all, err := p.collect(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]ServiceInfo, 0, len(all))
	for i := range all {
		infos = append(infos, p.info(&all[i], time.Now()))
	}
	return infos, nil
}

// collect takes every service off the writer; the rest is done without it.
func (p *Pool) collect(ctx context.Context) ([]seen, error) {
	var all []seen
	err := p.ask(ctx, func() {
		for _, src := range p.w.sources {
			for _, s := range src.services {
				if s.exists() {
					all = append(all, p.w.see(s))
				}
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	slices.SortFunc(all, func(a, b seen) int {
		return cmp.Or(cmp.Compare(a.src.Zone, b.src.Zone), cmp.Compare(a.name, b.name))
	})
	return all, nil
}

// Service returns one service with its instances; ErrNotFound if the source has
// none of that name.
func (p *Pool) Service(ctx context.Context, source registry.SourceID, name string) (ServiceInfo, error) {
	var o seen
	found := false
	err := p.ask(ctx, func() {
		if src := p.w.sources[source]; src != nil {
			if s := src.services[name]; s != nil && s.exists() {
				o, found = p.w.see(s), true
			}
		}
	})
	if err != nil {
		return ServiceInfo{}, fmt.Errorf("asking for service %q: %w", name, err)
	}
	if !found {
		return ServiceInfo{}, fmt.Errorf("service %q: %w", name, ErrNotFound)
	}
	return p.info(&o, time.Now()), nil
}

// info makes a ServiceInfo. It runs in the asker's goroutine.
func (p *Pool) info(o *seen, now time.Time) ServiceInfo {
	policy := o.settings.policy
	policy.Name = o.name
	info := ServiceInfo{
		Source: o.src.ID, Zone: o.src.Zone, Name: o.name, Policy: policy, Registered: o.own, Hidden: o.hidden, Frozen: o.frozen,
		LastFailure: o.failures.last, WorstFailure: o.failures.worst,
		TTL: time.Duration(o.settings.ttl) * time.Second, TTLWhy: "the service's or zone's",
	}
	s := o.pub
	if s == nil || s.ancestor || len(s.instances) != len(o.insts) {
		for i := range o.insts {
			info.Instances = append(info.Instances, InstanceInfo{
				Instance: o.insts[i].rec.instance(o.name), Why: cmp.Or(o.hidden, "not published"),
			})
		}
		info.Counts.Total = len(o.insts)
		return info
	}
	info.Mode = s.Mode()
	if other := p.view.Standin(s); other != s {
		info.Standin = other.Domain()
	}
	info.OneSource = s.crowd.Share()
	g := s.mainGroup()
	info.Answers = s.answersOf(g)
	info.TTL, info.TTLWhy = s.ttlNow(g, o.view, now)
	info.FiltersOmitted = s.omitted
	for set := range s.Filters() {
		info.Filters = append(info.Filters, filterInfo(set))
	}
	shares := s.shares(g)
	for i := range s.instances {
		inst := p.instanceInfo(o, uint32(i), now)
		inst.Share = shares[i]
		targets := make([]health.Target, 0, len(inst.Checks))
		for _, c := range inst.Checks {
			targets = append(targets, c.Target)
		}
		info.Detection = max(info.Detection, detection(targets))
		info.DetectionWhy = cmp.Or(info.DetectionWhy, detectionWhy(targets))
		info.Counts.add(&inst)
		info.Instances = append(info.Instances, inst)
	}
	switch {
	case info.Frozen != nil:
		info.Detection, info.DetectionWhy = 0, "an instance that dies stays in the answers while they are frozen"
	case info.Mode == ModeFailOpen:
		info.Detection, info.DetectionWhy = 0, "an instance that dies stays in the answers while too little passes (fail-open)"
	}
	return info
}

// mainGroup is the group that Mode speaks of.
func (s *Service) mainGroup() *Group {
	g := s.whole.groups[0]
	for _, other := range s.whole.groups[1:] {
		if other.members > g.members {
			g = other
		}
	}
	return g
}

// answersOf is how many address records an answer of the group's first tier has.
func (s *Service) answersOf(g *Group) int {
	if len(g.tiers) == 0 {
		return 0
	}
	if s.settings.answers > 0 {
		return min(s.settings.answers, g.tiers[0].Size())
	}
	return g.tiers[0].Auto()
}

// shares is each instance's part of the choices of clients of the group.
func (s *Service) shares(g *Group) []float64 {
	shares := make([]float64, len(s.instances))
	for t := range g.tiers {
		tier := &g.tiers[t]
		k := tier.Auto()
		if s.settings.answers > 0 {
			k = s.settings.answers
		}
		for n, part := range tier.shares(k) {
			shares[tier.At(n)] += part
		}
	}
	return shares
}

func filterInfo(set *Set) FilterInfo {
	f := FilterInfo{Kind: set.filter.kind, Name: set.filter.name}
	if f.Kind == FilterPort {
		f.Name += "/" + protoName(set.filter.proto)
	}
	var g *Group
	for _, other := range set.groups {
		if other != nil && (g == nil || other.members > g.members) {
			g = other
		}
	}
	f.Mode, f.Members = g.mode, g.Members()
	for t := range g.tiers {
		f.In += g.tiers[t].Size()
	}
	return f
}

// instanceInfo makes an InstanceInfo.
func (p *Pool) instanceInfo(o *seen, i uint32, now time.Time) InstanceInfo {
	s := o.pub
	in, rec := &s.instances[i], s.faces.records.at(int(i))
	info := InstanceInfo{
		Instance: rec.instance(o.name), Health: in.health, In: in.in, Why: s.Why(i),
	}
	info.Revision = o.insts[i].revision
	info.Cached = o.cachedFor(i, p.w.began, now.UnixNano())
	if in.in {
		info.EffectiveWeight = float64(in.weight) / lb.WeightScale
	}
	if a, ok := wordOf(s.admin, rec.id(), now); ok {
		info.Admin = &a
	}
	if r, ok := o.loads[info.ID]; ok {
		info.Load = &r
		info.LoadStale = !s.settings.fresh(&r, now)
	}
	targets, impossible := targetsOf(&source{cfg: o.src}, o.name, rec, s.settings.policy.Checks, o.def)
	for _, t := range targets {
		c := CheckInfo{Target: t}
		c.Status, _ = p.cfg.Checker.Status(t)
		if !o.insts[i].mine { // what the others found
			c.Status = health.Status{State: in.health, Output: o.reasons[info.ID]}
		}
		if c.Status.State == in.health && c.Status.Since.After(info.Since) {
			info.Since = c.Status.Since
		}
		info.Checks = append(info.Checks, c)
	}
	if in.health == health.Unknown && len(impossible) > 0 {
		info.Why = impossible[0]
	}
	return info
}

func (c *Counts) add(i *InstanceInfo) {
	c.Total++
	if i.In {
		c.In++
	}
	switch i.Health {
	case health.Passing:
		c.Passing++
	case health.Failing:
		c.Failing++
	case health.Unknown:
		c.Unknown++
	}
	if i.Admin == nil {
		return
	}
	switch i.Admin.State {
	case registry.AdminDrain:
		c.Drain++
	case registry.AdminMaintenance:
		c.Maintenance++
	case registry.AdminUp, registry.AdminDown, registry.AdminNone, registry.AdminFreeze:
	}
}

// Status returns what is known of every source, by id.
func (p *Pool) Status(ctx context.Context) ([]SourceStatus, error) {
	var list []SourceStatus
	err := p.ask(ctx, func() {
		now := time.Now()
		for _, id := range slices.Sorted(maps.Keys(p.w.sources)) {
			src := p.w.sources[id]
			f, _ := src.view.Freshness(now.UnixNano())
			st := SourceStatus{
				ID: id, Zone: src.cfg.Zone, Ready: f != NotReady, Snapshot: src.view.snapshot.Load(),
				Revision: src.revision, Stale: f == Stale || f == Expired, Serial: src.view.Serial(),
				Services: src.view.Services(), Instances: src.instances,
			}
			if st.Ready {
				st.AsOf = time.Unix(0, src.view.asOf.Load())
				st.Age = max(now.Sub(st.AsOf), 0)
			}
			for _, name := range slices.Sorted(maps.Keys(src.members)) {
				st.Members = append(st.Members, src.members[name])
			}
			list = append(list, st)
		}
	})
	return list, err
}

// Problems lists the records that cannot be used, or not all of them, sorted by zone and
// key, at most ProblemsMax of each a source; omitted counts the rest.
func (p *Pool) Problems(ctx context.Context) (list []Problem, omitted int, err error) {
	err = p.ask(ctx, func() {
		for id, src := range p.w.sources {
			omitted += src.dropped
			for _, q := range src.problems {
				list = append(list, Problem{id, src.cfg.Zone, q})
			}
			for _, s := range src.services {
				if s.hidden != "" {
					list = append(list, Problem{id, src.cfg.Zone, registry.Problem{
						RawKey: "service " + s.name, Reason: s.hidden, Mend: "give one of the two another name",
					}})
				}
			}
		}
	})
	slices.SortFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.RawKey, b.RawKey))
	})
	return list, omitted, err
}

// State returns the complete state of a source as batches, Resets in pages, as
// a Watcher would send them, and the health of the instances that have checks
// and are not unknown: for the snapshot file. The serial number of its zone is
// in Status. ErrNotFound when there is no such source or no state yet.
func (p *Pool) State(ctx context.Context, source registry.SourceID) (pages []registry.Batch, marks []registry.HealthMark, err error) {
	var all []seen
	var admin []registry.Admin
	var revision, asOf int64
	var members []registry.Member
	var routes []registry.Route
	err = p.ask(ctx, func() {
		src := p.w.sources[source]
		if src == nil || src.asOf == 0 {
			return
		}
		revision, asOf = src.revision, src.asOf
		members = slices.Collect(maps.Values(src.members))
		routes = p.view.Routes(source)
		for _, s := range src.services {
			admin = slices.AppendSeq(admin, maps.Values(s.admin))
			all = append(all, p.w.see(s))
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the state of source %d: %w", source, err)
	}
	if asOf == 0 {
		return nil, nil, fmt.Errorf("state of source %d: %w", source, ErrNotFound)
	}
	slices.SortFunc(all, func(a, b seen) int { return cmp.Compare(a.name, b.name) })
	first := registry.Batch{Admin: admin, Members: members, Routes: routes}
	pages = []registry.Batch{first}
	for i := range all {
		o := &all[i]
		page := &pages[len(pages)-1]
		if o.own != nil {
			page.Services = append(page.Services, *o.own)
		}
		for _, l := range o.loads {
			page.Loads = append(page.Loads, l)
		}
		for j := range o.insts {
			if page = &pages[len(pages)-1]; len(page.Instances) == registry.PageMax {
				pages = append(pages, registry.Batch{})
				page = &pages[len(pages)-1]
			}
			if o.insts[j].lostAt() != 0 {
				continue // it is not registered any more
			}
			inst := o.insts[j].rec.instance(o.name)
			inst.Revision = o.insts[j].revision
			page.Instances = append(page.Instances, inst)
			if h := o.insts[j].health; o.insts[j].watched && h != health.Unknown {
				marks = append(marks, registry.HealthMark{Service: o.name, Instance: inst.ID, State: uint8(h)})
			}
		}
	}
	for i := range pages {
		pages[i].Source, pages[i].Revision = source, revision
		pages[i].Reset, pages[i].More = i == 0, i < len(pages)-1
		pages[i].AsOf = time.Unix(0, asOf)
	}
	return pages, marks, nil
}

// Heartbeat reports for an instance that has ttl checks: it passes or fails at
// once. ErrNotFound when the instance is not registered or has no such check.
func (p *Pool) Heartbeat(ctx context.Context, source registry.SourceID, service, instance string, r health.Result) error {
	var found []health.Target
	err := p.ask(ctx, func() {
		src := p.w.sources[source]
		if src == nil || src.services[service] == nil {
			return
		}
		s := src.services[service]
		at, there := s.find(instance)
		if !there {
			return
		}
		for id := range s.insts[at].targets() {
			if t := p.w.targets.checker.Target(id); t.Type == health.TypeTTL {
				found = append(found, t)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("heartbeat of %s/%s: %w", service, instance, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("ttl check of %s/%s: %w", service, instance, ErrNotFound)
	}
	for _, t := range found {
		if !p.cfg.Checker.Report(t, r) {
			return fmt.Errorf("ttl check of %s/%s: %w", service, instance, ErrNotFound) // gone meanwhile
		}
	}
	return nil
}
