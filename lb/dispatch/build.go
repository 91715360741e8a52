package dispatch

import (
	"bytes"
	"cmp"
	"net/netip"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// find returns the service as it is in the View, or the one that stands in for it; nil:
// it is not registered.
func (b *Backend) find() *pool.Service {
	view := b.d.cfg.Pool.View()
	s := view.Find(b.ref.Source, b.wire)
	if s == nil || s.Ancestor() {
		return nil
	}
	return view.Standin(s)
}

// home is where an instance is registered, which is another service than the Backend's
// while that stands in for it.
type home struct {
	service *standing
	id      string
}

// standing is a service that a Backend has instances of.
type standing struct {
	source registry.SourceID
	name   string
	wire   []byte // the name as View.Find takes it
	// suffix is what stands behind the ids of its instances in the Backend, where
	// two services may have the same: empty for the Backend's own, and else a dot
	// and the service's domain name.
	suffix string
}

// standing is a service as the Backend's instances know it.
func (b *Backend) standing(s *pool.Service) *standing {
	out := &standing{source: s.Origin().ID(), name: s.Name(), wire: []byte(s.Wire())}
	if out.source != b.ref.Source || !bytes.Equal(out.wire, b.wire) {
		out.suffix = "." + s.Domain()
	}
	return out
}

// registered returns the service that an instance is registered in, and its number there;
// -1: it is not any more.
func (b *Backend) registered(i *instance) (*pool.Service, int) {
	s := b.d.cfg.Pool.View().Find(i.home.service.source, i.home.service.wire)
	if s == nil || s.Ancestor() {
		return nil, -1
	}
	return s, s.Instance([]byte(i.home.id))
}

// refresh returns the state to choose from, built anew if the service or the
// ejections have changed.
func (b *Backend) refresh() *state {
	if st := b.now.Load(); st != nil && st.service == b.find() && st.epoch == b.epoch.Load() {
		return st
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// Under the lock, so that an older state never follows a newer one.
	service, epoch := b.find(), b.epoch.Load()
	if st := b.now.Load(); st != nil && st.service == service && st.epoch == epoch {
		return st
	}
	st := b.build(service, epoch)
	b.now.Store(st)
	return st
}

// build makes the state of a service, and begins and ends the terms of its
// instances. b.mu is held.
func (b *Backend) build(service *pool.Service, epoch uint64) *state {
	st := &state{service: service, epoch: epoch, byID: map[string]*instance{}}
	if g := b.group(service); g != nil {
		st.standing = b.standing(service)
		st.mode, st.members = g.Mode(), g.Members()
		st.hashed = policyOf(service) == "hash"
		for t := range g.Tiers() {
			b.addTier(st, &g.Tiers()[t])
		}
		if len(st.tiers) == 1 {
			st.loads = nil // nothing to draw
		}
	}
	b.settle(st)
	return st
}

// group is the part of the service that the Ref chooses; nil: there is none.
func (b *Backend) group(service *pool.Service) *pool.Group {
	if service == nil {
		return nil
	}
	var kind pool.FilterKind
	var name string
	switch {
	case b.ref.Port != "":
		kind, name = pool.FilterPort, b.ref.Port
	case b.ref.Tag != "":
		kind, name = pool.FilterTag, b.ref.Tag
	default:
		return service.Set().Group(pool.FamilySRV)
	}
	set := service.Filter(kind, []byte(name), b.ref.UDP)
	if set == nil {
		return nil
	}
	return set.Group(pool.FamilySRV)
}

// addTier adds a tier without those that are ejected; where that would leave
// none they are forgiven, since the last instance is never ejected.
func (b *Backend) addTier(st *state, from *pool.Tier) {
	endpoints := make([]lb.Endpoint, 0, from.Size())
	list := make([]*instance, 0, from.Size())
	add := func(i *instance, number uint32) {
		e := st.service.Endpoint(number)
		e.Load = &i.load
		endpoints, list = append(endpoints, e), append(list, i)
	}
	var ejected []uint32
	for n := range from.Size() {
		number := from.At(n)
		i := b.instance(st, number)
		st.byID[i.id] = i
		if i.ejection.out() {
			ejected = append(ejected, number)
			continue
		}
		add(i, number)
	}
	if len(list) == 0 {
		for _, number := range ejected {
			i := b.instance(st, number)
			b.restore(i, "it is the last one")
			add(i, number)
		}
	}
	if len(list) == 0 {
		return
	}
	st.loads = append(st.loads, lb.Tier{Load: from.Load()})
	t := b.tier(st.service, endpoints, list)
	if st.service.HasNear() && b.d.cfg.Locality != nil {
		t.zones = b.zones(st.service, endpoints, list)
	}
	st.tiers = append(st.tiers, t)
}

// tier makes a tier of instances and their endpoints.
func (b *Backend) tier(s *pool.Service, endpoints []lb.Endpoint, list []*instance) tier {
	weights := make([]uint32, len(endpoints))
	for n := range endpoints {
		weights[n] = endpoints[n].Weight
	}
	return tier{picker: b.picker(s, endpoints), list: list, weights: weights}
}

// zones makes the parts of a tier that lie in one zone each.
func (b *Backend) zones(s *pool.Service, endpoints []lb.Endpoint, list []*instance) map[string]*tier {
	zones := map[string]*tier{}
	for set := range s.Filters() {
		if set.Kind() != pool.FilterZone {
			continue
		}
		var part []lb.Endpoint
		var of []*instance
		for n, i := range list {
			if k := s.Instance([]byte(i.home.id)); k >= 0 && set.Has(uint32(k)) {
				part, of = append(part, endpoints[n]), append(of, i)
			}
		}
		if len(of) > 0 {
			t := b.tier(s, part, of)
			zones[set.Name()] = &t
		}
	}
	return zones
}

// policyOf is the policy that proxies choose by.
func policyOf(s *pool.Service) string { return cmp.Or(s.Policy().ProxyPolicy, s.Policy().Policy) }

// picker is the proxies' form of a policy. A service whose policy is all is
// served by weight, since one connection goes to one instance.
func (b *Backend) picker(s *pool.Service, endpoints []lb.Endpoint) lb.Picker {
	switch policyOf(s) {
	case "round-robin":
		return lb.RoundRobin(endpoints)
	case "least-loaded":
		return lb.LeastRequests(endpoints)
	case "peak-ewma":
		return lb.PeakEWMA(endpoints)
	case "hash":
		if bound := s.Policy().HashBound; bound > 0 {
			return lb.BoundedHash(endpoints, bound, &b.active)
		}
		return lb.Hash(endpoints)
	default:
		return lb.Weighted(endpoints)
	}
}

// instance finds what is known of a service's instance, and makes it when it is
// new or has moved.
func (b *Backend) instance(st *state, number uint32) *instance {
	at, addr := home{st.standing, st.service.ID(number)}, b.address(st.service, number)
	id := at.id + st.standing.suffix
	i := b.instances[id]
	if i != nil && i.addr == addr {
		return i
	}
	if i != nil {
		b.lose(i)
	}
	i = &instance{id: id, home: at, addr: addr, b: b}
	i.term.Store(&term{})
	b.instances[id] = i
	return i
}

// address is where an instance is reached.
func (b *Backend) address(service *pool.Service, number uint32) netip.AddrPort {
	port := service.Port(number)
	if b.ref.Port != "" {
		port = service.NamedPort(number, b.ref.Port, b.ref.UDP)
	}
	return netip.AddrPortFrom(service.Address(number), port)
}

// settle ends the terms of instances that are not in st any more, and begins
// new ones for those that are in again.
func (b *Backend) settle(st *state) {
	for id, i := range b.instances {
		if st.byID[id] == i {
			if !i.term.Load().resume() {
				i.term.Store(&term{})
			}
			continue
		}
		switch end := b.endOf(i); end {
		case EndNone: // its tier is not needed now: what it has it may finish
		case EndGone:
			b.lose(i)
			delete(b.instances, id)
		default:
			b.end(i, end)
		}
	}
}

// endOf says why an instance is not in.
func (b *Backend) endOf(i *instance) End {
	service, n := b.registered(i)
	if n < 0 || b.address(service, uint32(n)) != i.addr {
		return EndGone
	}
	switch service.Admin(uint32(n)) {
	case registry.AdminDrain, registry.AdminMaintenance:
		return EndDrain
	case registry.AdminDown:
		return EndDown
	case registry.AdminUp:
		return EndNone
	case registry.AdminNone, registry.AdminFreeze:
	}
	if service.Health(uint32(n)) == health.Failing {
		return EndDown
	}
	return EndNone
}

// end ends an instance's term and has Run tell of it.
func (b *Backend) end(i *instance, end End) {
	if hooks := i.term.Load().finish(end); len(hooks) > 0 {
		b.ended = append(b.ended, ended{end, hooks})
		b.d.wakeRun()
	}
}

// lose ends the term of an instance that is gone, or was at another address. The
// pool knows it by its id alone, so that its weight is not to stay lowered.
func (b *Backend) lose(i *instance) {
	b.restore(i, "it is not registered at that address any more")
	b.end(i, EndGone)
}

// ending says whether and how the term has ended.
func (t *term) ending() End {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end
}

// tellEnds calls those who wait for terms that have ended.
func (b *Backend) tellEnds() {
	b.mu.Lock()
	list := b.ended
	b.ended = nil
	b.mu.Unlock()
	for _, e := range list {
		for _, h := range e.hooks {
			h.f(e.end)
		}
	}
}

// expired reports whether the registry's state is too old to be served, by the
// rule that DNS has.
func (s *state) expired() bool {
	if s.service == nil {
		return false
	}
	f, _ := s.service.Origin().Freshness(time.Now().UnixNano())
	return f == pool.Expired
}
