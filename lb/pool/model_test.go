package pool_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// model is what a source has said, kept without any cleverness.
type model struct {
	instances map[string]registry.Instance // by service/id
	services  map[string]registry.Service
	admin     map[string]registry.Admin
	health    map[string]health.State // by address and port
}

// names that nest, and that an instance's name can be equal to.
var modelNames = []string{"web", "db", "a", "a.web", "b.a.web", "x.db", "deep.under.nothing"}

func drawInstance(t *rapid.T) registry.Instance {
	n := rapid.IntRange(0, 5).Draw(t, "number")
	i := registry.Instance{
		Service: rapid.SampledFrom(modelNames).Draw(t, "service"),
		ID:      string(rune('a' + n)), Incarnation: 1,
		Weight:   uint16(rapid.SampledFrom([]int{1, 1, 1, 3, 0}).Draw(t, "weight")),
		Priority: uint16(rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "priority")),
		Port:     uint16(rapid.SampledFrom([]int{0, 80, 81}).Draw(t, "port")),
		TTL:      time.Duration(rapid.SampledFrom([]int{0, 0, 3, 7000}).Draw(t, "ttl")) * time.Second,
		Zone:     rapid.SampledFrom([]string{"", "eu", "us", "No Label"}).Draw(t, "zone"),
	}
	octet := byte(rapid.IntRange(1, 9).Draw(t, "octet"))
	switch rapid.IntRange(0, 2).Draw(t, "family") {
	case 0:
		i.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, octet})}
	case 1:
		i.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("fd00::%d", octet))}
	default:
		i.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("fd00::%d", octet)), netip.AddrFrom4([4]byte{10, 0, 0, octet})}
	}
	for _, tag := range []string{"v1", "v2"} {
		if rapid.Bool().Draw(t, tag) {
			i.Tags = append(i.Tags, tag)
		}
	}
	if rapid.Bool().Draw(t, "named") {
		i.Ports = []registry.Port{{Name: "http", Number: 8080, Proto: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto")}}
	}
	switch rapid.IntRange(0, 2).Draw(t, "checks") {
	case 0:
		i.Checks = []registry.Check{{Type: "tcp", Port: "99"}}
	case 1:
		i.Checks = []registry.Check{}
	}
	return i
}

func drawService(t *rapid.T) registry.Service {
	s := registry.Service{Name: rapid.SampledFrom(modelNames).Draw(t, "service")}
	s.Policy = rapid.SampledFrom([]string{"", "round-robin", "hash", "all", "least-loaded"}).Draw(t, "policy")
	s.Fail = rapid.SampledFrom([]string{"", "open", "closed", "tier"}).Draw(t, "fail")
	s.Spill = rapid.SampledFrom([]string{"", "proportional", "when-empty"}).Draw(t, "spill")
	if rapid.Bool().Draw(t, "checked") {
		s.Checks = []registry.Check{{Type: "tcp", Port: "98"}}
	}
	return s
}

// step makes a random batch and applies it to the model.
func (m *model) step(t *rapid.T) registry.Batch {
	if rapid.IntRange(0, 7).Draw(t, "reset") == 0 {
		return m.reset(t)
	}
	if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
		return m.deletion(t)
	}
	b := registry.Batch{}
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0, 1, 2, 3:
			i := drawInstance(t)
			m.instances[i.Service+"/"+i.ID] = i
			b.Instances = append(b.Instances, i)
		case 4:
			s := drawService(t)
			m.services[s.Name] = s
			b.Services = append(b.Services, s)
		default:
			a := registry.Admin{
				Service:  rapid.SampledFrom(modelNames).Draw(t, "service"),
				Instance: rapid.SampledFrom([]string{"*", "a", "b", "c"}).Draw(t, "instance"),
				State:    registry.AdminState(rapid.IntRange(1, 4).Draw(t, "state")),
			}
			m.admin[a.Service+"/"+a.Instance] = a
			b.Admin = append(b.Admin, a)
		}
	}
	return b
}

func (m *model) deletion(t *rapid.T) registry.Batch {
	k := registry.Key{Source: 1, Kind: registry.KindInstance}
	var from []string
	switch rapid.IntRange(0, 3).Draw(t, "deleted kind") {
	case 0:
		k.Kind = registry.KindService
		from = slices.Sorted(maps.Keys(m.services))
	case 1:
		k.Kind = registry.KindAdmin
		from = slices.Sorted(maps.Keys(m.admin))
	default:
		from = slices.Sorted(maps.Keys(m.instances))
	}
	if len(from) == 0 {
		return registry.Batch{}
	}
	key := rapid.SampledFrom(from).Draw(t, "deleted")
	k.Service, k.Name, _ = strings.Cut(key, "/")
	switch k.Kind {
	case registry.KindService:
		delete(m.services, key)
	case registry.KindAdmin:
		delete(m.admin, key)
	default:
		delete(m.instances, key)
	}
	return registry.Batch{Deleted: []registry.Key{k}}
}

// reset makes a complete state: what there is, some of it gone, some new.
func (m *model) reset(t *rapid.T) registry.Batch {
	for _, k := range slices.Sorted(maps.Keys(m.instances)) {
		if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
			delete(m.instances, k)
		}
	}
	clear(m.admin)
	for range rapid.IntRange(0, 4).Draw(t, "new") {
		i := drawInstance(t)
		m.instances[i.Service+"/"+i.ID] = i
	}
	b := registry.Batch{Reset: true}
	for _, k := range slices.Sorted(maps.Keys(m.instances)) {
		b.Instances = append(b.Instances, m.instances[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.services)) {
		b.Services = append(b.Services, m.services[k])
	}
	return b
}

// members lists a service's instances by id.
func (m *model) members(name string) []registry.Instance {
	var list []registry.Instance
	for _, k := range slices.Sorted(maps.Keys(m.instances)) {
		if i := m.instances[k]; i.Service == name {
			list = append(list, i)
		}
	}
	return list
}

func (m *model) registered(name string) bool {
	_, own := m.services[name]
	return own || len(m.members(name)) > 0
}

// kind is what View.Find should find: "service", "ancestor" or "nothing".
func (m *model) kind(name string) string {
	hidden := false
	if first, rest, ok := strings.Cut(name, "."); ok {
		_, hidden = m.instances[rest+"/"+first]
	}
	if m.registered(name) && !hidden {
		return "service"
	}
	for _, other := range modelNames {
		if strings.HasSuffix(other, "."+name) && m.registered(other) {
			return "ancestor"
		}
	}
	return "nothing"
}

// class is an instance's standing: -1 out, 0 failing, 1 unknown, 2 passing.
func (m *model) class(i registry.Instance) int {
	a, ok := m.admin[i.Service+"/"+i.ID]
	if !ok {
		a = m.admin[i.Service+"/*"]
	}
	switch a.State {
	case registry.AdminDrain, registry.AdminMaintenance:
		return -1
	case registry.AdminUp:
		return 2
	case registry.AdminDown:
		return 0
	case registry.AdminNone, registry.AdminFreeze:
	}
	checks := i.Checks
	if checks == nil {
		checks = m.services[i.Service].Checks
	}
	if len(checks) == 0 {
		return 2
	}
	st := m.health[i.Addresses[0].String()+" "+checks[0].Port]
	return map[health.State]int{health.Failing: 0, health.Unknown: 1, health.Passing: 2}[st]
}

// serve says what a group of candidates should serve: "a b|c".
func (m *model) serve(s registry.Service, list []registry.Instance) string {
	open := s.Fail == "" || s.Fail == "open"
	top := -1
	for _, i := range list {
		top = max(top, m.class(i))
	}
	if top < 0 || top == 0 && !open {
		return ""
	}
	weighted := slices.ContainsFunc(list, func(i registry.Instance) bool { return m.class(i) == top && i.Weight > 0 })
	byPriority := map[uint16]*lb.Tier{}
	ids := map[uint16][]string{}
	for _, i := range list {
		if m.class(i) < 0 || weighted && i.Weight == 0 {
			continue
		}
		if byPriority[i.Priority] == nil {
			byPriority[i.Priority] = &lb.Tier{}
		}
		byPriority[i.Priority].Total++
		if top > 0 && m.class(i) >= top {
			byPriority[i.Priority].Healthy++
		}
		if top == 0 || m.class(i) >= top {
			ids[i.Priority] = append(ids[i.Priority], i.ID)
		}
	}
	priorities := slices.Sorted(maps.Keys(byPriority))
	var tiers []lb.Tier
	for _, p := range priorities {
		tiers = append(tiers, *byPriority[p])
	}
	spill := map[string]lb.Spill{"proportional": lb.SpillProportional, "when-empty": lb.SpillWhenEmpty}[s.Spill]
	lb.AssignTiers(tiers, lb.TierRule{Spill: spill, FailOpen: open})
	var out []string
	for n, p := range priorities {
		if tiers[n].Load > 0 {
			out = append(out, strings.Join(ids[p], " "))
		}
	}
	return strings.Join(out, "|")
}

// filters lists what chooses parts of the service.
func filtersOf(i registry.Instance) []string {
	var f []string
	for _, p := range i.Ports {
		f = append(f, "port "+p.Name+"/"+p.Proto)
	}
	for _, tag := range i.Tags {
		f = append(f, "tag "+tag)
	}
	if i.Zone != "" && i.Zone != "No Label" {
		f = append(f, "zone "+i.Zone)
	}
	return f
}

// compare says where the View differs from the model; empty: nowhere.
func (m *model) compare(v *pool.View) string {
	for _, name := range append([]string{"under.nothing", "nothing", "absent"}, modelNames...) {
		s := v.Find(1, wireName(name))
		kind := "nothing"
		if s != nil && s.Ancestor() {
			kind = "ancestor"
		} else if s != nil {
			kind = "service"
		}
		if want := m.kind(name); kind != want {
			return fmt.Sprintf("%s is %s, want %s", name, kind, want)
		}
		if kind != "service" {
			continue
		}
		if diff := m.compareService(name, s); diff != "" {
			return name + ": " + diff
		}
		if diff := m.compareFaces(name, s); diff != "" {
			return name + ": " + diff
		}
	}
	return ""
}

func (m *model) compareService(name string, s *pool.Service) string {
	list := m.members(name)
	if s.Len() != len(list) {
		return fmt.Sprintf("%d instances, want %d", s.Len(), len(list))
	}
	policy := m.services[name]
	families := []struct {
		family pool.Family
		has    func(i registry.Instance) bool
	}{
		{pool.FamilyA, func(i registry.Instance) bool { return slices.ContainsFunc(i.Addresses, netip.Addr.Is4) }},
		{pool.FamilyAAAA, func(i registry.Instance) bool { return slices.ContainsFunc(i.Addresses, netip.Addr.Is6) }},
		{pool.FamilySRV, func(i registry.Instance) bool { return i.Port != 0 }},
	}
	want := map[string]string{}
	put := func(filter string, f pool.Family, i []registry.Instance) {
		want[fmt.Sprintf("%s %d", filter, f)] = fmt.Sprintf("%s of %d", m.serve(policy, i), len(i))
	}
	all := map[string]bool{"none ": true}
	for _, i := range list {
		for _, f := range filtersOf(i) {
			all[f] = true
		}
	}
	for filter := range all {
		chosen := slices.DeleteFunc(slices.Clone(list), func(i registry.Instance) bool {
			return filter != "none " && !slices.Contains(filtersOf(i), filter)
		})
		if strings.HasPrefix(filter, "port") {
			put(filter, pool.FamilySRV, chosen)
			continue
		}
		for _, f := range families {
			put(filter, f.family, slices.DeleteFunc(slices.Clone(chosen), func(i registry.Instance) bool { return !f.has(i) }))
		}
	}
	got := map[string]string{}
	for _, set := range append(slices.Collect(s.Filters()), s.Set()) {
		filter := set.Kind().String() + " " + set.Name()
		if set.Kind() == pool.FilterPort {
			filter += map[bool]string{false: "/tcp", true: "/udp"}[set.UDP()]
		}
		for _, f := range families {
			if g := set.Group(f.family); g != nil {
				got[fmt.Sprintf("%s %d", filter, f.family)] = fmt.Sprintf("%s of %d", in(s, g), g.Members())
			}
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Sprintf("sets\n got %v\nwant %v", got, want)
	}
	return ""
}

// TestPool_Run_model/random batches give the view that a naive model gives
// after each of them.
func TestPool_Run_model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newChecker()
		p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: oneSource.Sources, Reverse: true}, Checker: c})
		if err != nil {
			rt.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		defer func() { cancel(); <-done }()
		sink := p.Sink(ctx)
		m := &model{map[string]registry.Instance{}, map[string]registry.Service{}, map[string]registry.Admin{}, map[string]health.State{}}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			b := m.step(rt)
			b.Source, b.AsOf = 1, time.Now()
			for _, page := range pages(rt, b) {
				if err := sink(page); err != nil {
					rt.Fatal(err)
				}
			}
			if _, err := p.Status(ctx); err != nil {
				rt.Fatal(err)
			}
			m.observe(rt, c, p)
			if diff := m.compare(p.View()); diff != "" {
				rt.Fatal(diff)
			}
			if diff := m.compareAddresses(p.View()); diff != "" {
				rt.Fatal(diff)
			}
			if diff := m.compareListings(p.View()); diff != "" {
				rt.Fatal(diff)
			}
		}
	})
}

// pages splits a complete state at a random place.
func pages(t *rapid.T, b registry.Batch) []registry.Batch {
	if !b.Reset || len(b.Instances) < 2 {
		return []registry.Batch{b}
	}
	at := rapid.IntRange(0, len(b.Instances)).Draw(t, "page")
	second := registry.Batch{Source: 1, AsOf: b.AsOf, Instances: b.Instances[at:], Services: b.Services}
	b.Instances, b.Services, b.More = b.Instances[:at], nil, true
	return []registry.Batch{b, second}
}

// observe gives random verdicts and tells the model what the checker says now.
func (m *model) observe(t *rapid.T, c *checker, p *pool.Pool) {
	addr := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"}).Draw(t, "checked")
	st := health.State(rapid.IntRange(0, 2).Draw(t, "verdict"))
	for _, target := range c.set(addr, health.Status{State: st}) {
		p.Notify(target)
	}
	if _, err := p.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Targets of one address share a verdict only where the test gave it; the
	// model asks the checker for the rest, of which seeds are the pool's matter.
	clear(m.health)
	c.mu.Lock()
	defer c.mu.Unlock()
	for target, s := range c.status {
		m.health[fmt.Sprintf("%s %d", target.Addr.Addr(), target.Addr.Port())] = s.State
	}
}

func (m *model) compareAddresses(v *pool.View) string {
	want := map[netip.Addr][]string{}
	for _, i := range m.instances {
		for _, a := range i.Addresses {
			want[a] = append(want[a], string(wireName(i.ID+"."+i.Service+".svc.internal"))+"\x00")
		}
	}
	for n := range 10 {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))} {
			var got []string
			if names := v.Address(a); names != nil {
				for k := range names.Len() {
					got = append(got, names.At(k).Name)
				}
			}
			slices.Sort(want[a])
			slices.Sort(got)
			if !slices.Equal(got, want[a]) {
				return fmt.Sprintf("%s: %q, want %q", a, got, want[a])
			}
		}
	}
	return ""
}
