package pool

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// seqKey names a group of a service whose round robin counter is kept.
type seqKey struct {
	kind   FilterKind
	proto  uint8
	name   string
	family Family
}

// builder makes sets. What it holds is scratch space, kept between uses.
type builder struct {
	endpoints  []lb.Endpoint
	all        []uint32 // 0, 1, 2, ...
	candidates []uint32
	index      []uint32
	priorities []uint16
	loads      []lb.Tier
	stays      []bool  // of noteCached
	places     []int32 // likewise
	seen       []uint64
	ttl        uint16 // least of the group being built; 0: none

	s     *svc
	next  *Service
	seeds uint64
}

// sets fills next's sets. prev, when not nil, has the same filters and settings,
// and differs in the instances of t alone: sets without any of them are taken
// over, and all are when nothing has changed that a choice goes by.
func (b *builder) sets(s *svc, next, prev *Service, t *touched, seed uint64) {
	next.whole.service = next
	if len(s.filters.filters) > 0 {
		next.filters = make([]Set, len(s.filters.filters))
	}
	if prev != nil && !t.choice {
		next.whole.groups = prev.whole.groups
		copy(next.filters, prev.filters)
		for i := range next.filters {
			next.filters[i].service = next
		}
		return
	}
	b.s, b.next, b.seeds = s, next, seed
	b.set(&next.whole, nil)
	for i := range next.instances {
		next.instances[i].in = false
	}
	for f, g := range next.whole.groups {
		if f == 0 || g != next.whole.groups[f-1] {
			b.markIn(g)
		}
	}
	for i := range s.filters.filters {
		set := &next.filters[i]
		set.filter = s.filters.filters[i]
		if prev != nil && len(t.list) <= touchedMax && !containsAny(set.filter.members, t.list) {
			*set = prev.filters[i]
		} else {
			b.set(set, &next.whole)
		}
		set.service = next
	}
	b.s, b.next = nil, nil
}

func containsAny(members, of []uint32) bool {
	return slices.ContainsFunc(of, func(i uint32) bool {
		_, there := slices.BinarySearch(members, i)
		return there
	})
}

// markIn marks the instances that a group can answer.
func (b *builder) markIn(g *Group) {
	for t := range g.tiers {
		for i := range g.tiers[t].Size() {
			b.next.instances[g.tiers[t].At(i)].in = true
		}
	}
}

// set builds the groups of one set; whole is nil for the whole itself. Groups
// of the same instances are one group: families of one set, and a filter that
// leaves none out and the whole.
func (b *builder) set(set, whole *Set) {
	if set.filter.kind == FilterPort {
		candidates := set.filter.members // each has the port
		if set.groups[FamilySRV] = whole.groups[FamilySRV]; len(candidates) < len(b.next.instances) ||
			whole.groups[FamilySRV].Members() < len(candidates) {
			set.groups[FamilySRV] = b.group(set, FamilySRV, candidates)
		}
		return
	}
	n := b.count(set)
	for f := range families {
		if whole != nil && n[f] == whole.groups[f].Members() {
			set.groups[f] = whole.groups[f]
			continue
		}
		for e := range f {
			// Equal numbers are equal members when they are all or none.
			if n[e] == n[f] && (n[f] == 0 || n[f] == len(b.members(set))) {
				set.groups[f] = set.groups[e]
			}
		}
		if set.groups[f] == nil {
			set.groups[f] = b.group(set, f, b.choose(set, f, n[f]))
		}
	}
}

// count counts the instances of a set by family.
func (b *builder) count(set *Set) (n [families]int) {
	for _, i := range b.members(set) {
		has := b.next.faces.list[i].families
		for f := range families {
			n[f] += int(has >> f & 1)
		}
	}
	return n
}

// members lists the instances that the set's filter chooses.
func (b *builder) members(set *Set) []uint32 {
	if set.filter.kind != FilterNone {
		return set.filter.members
	}
	for n := len(b.all); n < len(b.next.instances); n++ {
		b.all = append(b.all, uint32(n))
	}
	return b.all[:len(b.next.instances)]
}

// choose lists the n members of a family.
func (b *builder) choose(set *Set, f Family, n int) []uint32 {
	members := b.members(set)
	if n == len(members) {
		return members
	}
	b.candidates = b.candidates[:0]
	for _, i := range members {
		if b.next.faces.list[i].families>>f&1 != 0 {
			b.candidates = append(b.candidates, i)
		}
	}
	return b.candidates
}

// class is what an instance is to the choice of a group.
type class uint8

const (
	classOut     class = iota // drained, in maintenance
	classFailing              // for fail-open
	classUnknown              // where nothing passes
	classDamped               // passes, and falls too often: where nothing else passes
	classPassing
)

// classOf applies the administrator's word to the verdict of the checks.
func classOf(i *instance) class {
	switch i.admin {
	case registry.AdminDrain, registry.AdminMaintenance:
		return classOut
	case registry.AdminUp:
		return classPassing
	case registry.AdminDown:
		return classFailing
	case registry.AdminNone, registry.AdminFreeze:
	}
	switch i.moved {
	case health.Passing:
		if i.kept == keptDamped {
			return classDamped
		}
		return classPassing
	case health.Unknown:
		return classUnknown
	case health.Failing:
		return classFailing
	default:
		return classFailing
	}
}

// rule is which instances of a group may be served.
type rule struct {
	serve    class // the least class that is healthy
	weighted bool  // instances of weight 0 are left out
}

// healthy and eligible say whether an instance counts as healthy, and whether
// it is served in a panic.
func (r rule) healthy(i *instance) bool { return r.eligible(i) && i.class >= r.serve }

func (r rule) eligible(i *instance) bool {
	return i.class != classOut && (i.weight > 0 || !r.weighted)
}

// ruleFor decides by what is there: what passes before what is unknown, and
// within that weight 0 only when there is nothing else.
func (b *builder) ruleFor(candidates []uint32) (r rule, mode Mode) {
	var count [classPassing + 1]int
	var weighted [classPassing + 1]int
	for _, n := range candidates {
		i := &b.next.instances[n]
		count[i.class]++
		if i.weight > 0 {
			weighted[i.class]++
		}
	}
	switch {
	case count[classPassing] > 0:
		return rule{classPassing, weighted[classPassing] > 0}, ModeNormal
	case count[classDamped] > 0:
		return rule{classDamped, weighted[classDamped] > 0}, ModeNormal
	case count[classUnknown] > 0:
		return rule{classUnknown, weighted[classUnknown] > 0}, ModeUnknown
	case count[classFailing] == 0:
		return rule{classPassing, false}, ModeEmpty
	case b.s.settings.failOpen:
		return rule{classPassing, weighted[classFailing] > 0}, ModeFailOpen
	default:
		return rule{classPassing, false}, ModeClosed
	}
}

// group builds a group over candidates.
func (b *builder) group(set *Set, f Family, candidates []uint32) *Group {
	st := b.s.settings
	if len(candidates) == 0 {
		return &st.nobody
	}
	g := &Group{members: int32(len(candidates)), ttl: st.ttl}
	r, mode := b.ruleFor(candidates)
	g.mode = mode
	if st.kind == policyRoundRobin {
		g.seq = b.seq(set, f)
	}
	if mode == ModeEmpty || mode == ModeClosed {
		return g
	}
	b.countTiers(candidates, r)
	lb.AssignTiers(b.loads, st.tierRule)
	tiers := 0
	for t := range b.loads {
		if b.loads[t].Load > 0 {
			tiers++
			if b.loads[t].Panic {
				g.mode = ModeFailOpen
			}
		}
	}
	if g.mode == ModeNormal && (tiers > 1 || len(b.loads) > 0 && b.loads[0].Load == 0) {
		g.mode = ModeTier
	}
	if g.tiers = g.first[:0]; tiers > len(g.first) {
		g.tiers = make([]Tier, 0, tiers)
	}
	b.ttl = 0
	for t := range b.loads {
		if b.loads[t].Load > 0 {
			g.tiers = append(g.tiers, b.tier(set, candidates, t, r))
			g.loads = append(g.loads, b.loads[t])
		}
	}
	if tiers == 1 {
		g.loads = nil // nothing to draw
	}
	if b.ttl > 0 {
		g.ttl = uint32(b.ttl)
	}
	return g
}

// seq is the round robin counter of a group: it starts anywhere, and lives as
// long as the service.
func (b *builder) seq(set *Set, f Family) *atomic.Uint64 {
	k := seqKey{set.filter.kind, set.filter.proto, set.filter.name, f}
	c := b.s.seqs[k]
	if c == nil {
		if b.s.seqs == nil {
			b.s.seqs = map[seqKey]*atomic.Uint64{}
		}
		c = new(atomic.Uint64)
		c.Store(mix(b.seeds^identity(b.s.name, set.filter.name)+uint64(f)) >> 1)
		b.s.seqs[k] = c
	}
	return c
}

// countTiers fills b.priorities and b.loads with the tiers of the candidates
// that are not drained.
func (b *builder) countTiers(candidates []uint32, r rule) {
	b.priorities, b.loads = b.priorities[:0], b.loads[:0]
	for _, n := range candidates {
		i := &b.next.instances[n]
		p := b.next.faces.list[n].priority
		if r.eligible(i) && (len(b.priorities) == 0 || b.priorities[len(b.priorities)-1] != p) {
			b.priorities = append(b.priorities, p)
		}
	}
	if len(b.priorities) > 1 {
		slices.Sort(b.priorities)
		b.priorities = slices.Compact(b.priorities)
	}
	for range b.priorities {
		b.loads = append(b.loads, lb.Tier{})
	}
	for _, n := range candidates {
		i := &b.next.instances[n]
		if !r.eligible(i) {
			continue
		}
		t := 0
		if len(b.priorities) > 1 {
			t, _ = slices.BinarySearch(b.priorities, b.next.faces.list[n].priority)
		}
		b.loads[t].Total++
		if r.healthy(i) {
			b.loads[t].Healthy++
		}
	}
}

// tier builds the t-th tier.
func (b *builder) tier(set *Set, candidates []uint32, t int, r rule) Tier {
	panics := b.loads[t].Panic
	tier := Tier{priority: b.priorities[t], load: uint8(b.loads[t].Load)}
	b.index, b.endpoints = b.index[:0], b.endpoints[:0]
	for _, n := range candidates {
		i, f := &b.next.instances[n], &b.next.faces.list[n]
		if f.priority != tier.priority || !(r.healthy(i) || panics && r.eligible(i)) {
			continue
		}
		b.index = append(b.index, n)
		e := lb.Endpoint{ID: b.next.faces.hashes[n], Weight: i.weight}
		if len(b.s.loads) > 0 {
			if l := b.s.loads[string(b.next.faces.records.at(int(n)).id())]; l != nil {
				e.Load = l.shared
			}
		}
		b.endpoints = append(b.endpoints, e)
		tier.labels += int32(f.label)
		tier.heaviest = max(tier.heaviest, i.weight)
		tier.deadlines = tier.deadlines || i.deadline != 0
		if f.ttl > 0 && (b.ttl == 0 || f.ttl < b.ttl) {
			b.ttl = f.ttl
		}
	}
	tier.size = int32(len(b.index))
	if len(b.index) != len(b.next.instances) {
		tier.index = slices.Clone(b.index)
	}
	st := b.s.settings
	tier.picker = st.pick(b.endpoints)
	if tier.few, tier.small = lb.FewOf(tier.picker); tier.small {
		tier.picker = nil
	}
	if st.kind == policyHash {
		tier.hash = tier.picker
	} else if set.filter.kind == FilterNone {
		tier.hash = b.hash(tier.index == nil)
	}
	tier.auto = int32(b.auto(len(b.index)))
	return tier
}

// hash is the picker by a hash of b.endpoints, which are all instances if all is
// set. Most services have equal weights: theirs are the identities that the
// faces have.
func (b *builder) hash(all bool) lb.Picker {
	if n, equal := lb.Candidates(b.endpoints); all && equal && n == len(b.endpoints) && n <= lb.RendezvousMax {
		return lb.HashIDs(b.next.faces.hashes)
	}
	return lb.Hash(b.endpoints)
}

// auto is how many address records an answer has when nobody says: one, where
// only that gives shares that are exact whatever the client does with the
// answer (record order does not survive resolvers).
func (b *builder) auto(size int) int {
	switch b.s.settings.kind {
	case policyAll:
		return size
	case policyWeighted, policyRoundRobin:
		if _, equal := lb.Candidates(b.endpoints); equal {
			return min(size, answersAuto)
		}
	case policyLeastLoaded, policyHash:
	}
	return min(size, 1)
}

// distinct reports whether no two instances have an address in common. In the
// form with the faces old, from which these differ in s, none had if before is
// set.
func (b *builder) distinct(faces, old *faces, s span, before bool) bool {
	switch {
	case len(old.octets) > 0 && len(faces.octets) > 0 && &faces.octets[0] == &old.octets[0]:
		return before // not one address has changed
	case before && s.low == s.newHigh:
		return true
	case before && s.low+1 == s.newHigh:
		return !faces.elsewhere(uint32(s.low))
	}
	n := 0
	for i := range faces.list {
		n += int(faces.list[i].count4) + int(faces.list[i].count6)
	}
	size := 16
	for size < n*2 {
		size *= 2
	}
	if cap(b.seen) < size {
		b.seen = make([]uint64, size)
	}
	seen := b.seen[:size]
	clear(seen)
	for i := range uint32(len(faces.list)) {
		for k := range int(faces.list[i].count4) {
			a := faces.addr4(i, k)
			if !insert(seen, mix(uint64(le.Uint32(a[:]))|1<<40)) {
				return false
			}
		}
		for k := range int(faces.list[i].count6) {
			a := faces.addr6(i, k)
			if !insert(seen, mix(mix(le.Uint64(a[:]))^le.Uint64(a[8:]))) {
				return false
			}
		}
	}
	return true
}

// insert adds a hash to a set with room for it; false: it was there. Two
// addresses of one hash are taken for one, which costs a comparison an answer.
func insert(seen []uint64, h uint64) bool {
	h = cmp.Or(h, 1)
	mask := uint64(len(seen) - 1)
	for at := h & mask; ; at = (at + 1) & mask {
		switch seen[at] {
		case 0:
			seen[at] = h
			return true
		case h:
			return false
		}
	}
}
