package pool

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"

	"github.com/musterdns/muster/lb"
)

// FiltersMax is the number of filters that a service has sets for: registrants
// make them up, and each costs a picker.
const FiltersMax = 64

// FilterKind is what a filter chooses by. Zero is none: the whole service.
type FilterKind uint8

// The kinds of filters.
const (
	FilterNone FilterKind = iota
	FilterPort
	FilterTag
	FilterZone
)

// String is the kind's name: "port", "tag", "zone", "none".
func (k FilterKind) String() string {
	switch k {
	case FilterNone:
		return "none"
	case FilterPort:
		return "port"
	case FilterTag:
		return "tag"
	case FilterZone:
		return "zone"
	default:
		return "invalid"
	}
}

// filter is a filter's key and which instances it chooses.
type filter struct {
	kind    FilterKind
	proto   uint8 // of a port
	name    string
	members []uint32 // instance numbers, ascending; immutable
}

// compare orders filters by kind, protocol and name.
func (f *filter) compare(kind FilterKind, proto uint8, name []byte) int {
	if c := cmp.Compare(f.kind, kind); c != 0 {
		return c
	}
	if c := cmp.Compare(f.proto, proto); c != 0 {
		return c
	}
	if f.name == string(name) {
		return 0
	}
	if f.name < string(name) {
		return -1
	}
	return 1
}

// Family chooses, within a set, the instances that can answer a type.
type Family uint8

// The families.
const (
	FamilyA    Family = iota // have an IPv4 address
	FamilyAAAA               // have an IPv6 address
	FamilySRV                // have the port asked for
	families
)

// Set is a part of a service that has a name of its own: all of it, or what a
// filter chooses.
type Set struct {
	service *Service
	groups  [families]*Group
	filter  filter
}

// Service is the form of the service that the set is a part of.
func (s *Set) Service() *Service { return s.service }

// Kind is what the set is chosen by.
func (s *Set) Kind() FilterKind { return s.filter.kind }

// Name is the tag, the zone or the port's name; empty for the whole.
func (s *Set) Name() string { return s.filter.name }

// Has reports whether an instance is registered in the set, which a filter chooses.
func (s *Set) Has(i uint32) bool {
	_, there := slices.BinarySearch(s.filter.members, i)
	return there
}

// UDP reports whether the set is of a UDP port.
func (s *Set) UDP() bool { return s.filter.proto == protoUDP }

// Group returns the candidates of a family; nil for the addresses of a port's
// set, since a port has SRV records alone.
func (s *Set) Group(f Family) *Group { return s.groups[f] }

// Group is a (set, family): the unit that a policy picks within.
type Group struct {
	mode    Mode
	members int32          // registered
	ttl     uint32         // base, in seconds
	seq     *atomic.Uint64 // round robin's counter; nil for other policies
	tiers   []Tier
	first   [1]Tier // room for the only one that most have, so that it lies near
	loads   []lb.Tier
}

// Mode says how the group's answer comes about.
func (g *Group) Mode() Mode { return g.mode }

// Members is the number of registered instances.
func (g *Group) Members() int { return int(g.members) }

// TTL is the base TTL in seconds: the least of the instances' that are in, else
// the service's, else the zone's.
func (g *Group) TTL() uint32 { return g.ttl }

// Tiers are the tiers that may be answered, the preferred first.
func (g *Group) Tiers() []Tier { return g.tiers }

// Draw chooses the tier for one answer, by the tiers' loads, and returns the
// request to pick within it with; nil when nothing is in. By a hash (hashed) a
// client keeps its tier. It takes the next number of round robin's counter.
func (g *Group) Draw(r lb.Request, hashed bool) (*Tier, lb.Request) {
	if len(g.tiers) == 0 {
		return nil, r
	}
	if g.seq != nil {
		r.Seq = g.seq.Add(1)
	}
	if len(g.tiers) == 1 {
		return &g.tiers[0], r
	}
	if hashed {
		n, _ := lb.DrawTier(g.loads, mix(r.Hash))
		return &g.tiers[n], r
	}
	n, rest := lb.DrawTier(g.loads, r.Rand)
	r.Rand = rest
	return &g.tiers[n], r
}

// Tier is the instances of one priority that are in, with their picker.
type Tier struct {
	// What most answers read comes first.
	few       lb.Few
	small     bool  // few is the picker
	deadlines bool  // some instance has a deadline
	load      uint8 // percent of the group's answers
	size      int32
	auto      int32    // records in an answer when the service leaves it to Muster
	index     []uint32 // instance numbers; nil: every instance, by its number
	labels    int32    // octets of the instances' labels in wire form
	heaviest  uint32   // greatest effective weight
	priority  uint16
	picker    lb.Picker // nil when small is set
	hash      lb.Picker // for names that bring a hash; nil: the group has none
}

// Load is the tier's part of the group's choices, in percent.
func (t *Tier) Load() int { return int(t.load) }

// Size is the number of instances in the tier.
func (t *Tier) Size() int { return int(t.size) }

// Auto is how many records an answer of type A or AAAA has when the service
// leaves it to Muster.
func (t *Tier) Auto() int { return int(t.auto) }

// Labels is the sum of the octets of the instances' labels, for reckoning what
// the whole tier takes as SRV records.
func (t *Tier) Labels() int { return int(t.labels) }

// Heaviest is the greatest effective weight, for Service.SRVWeight.
func (t *Tier) Heaviest() uint32 { return t.heaviest }

// HasDeadlines reports whether some instance has a deadline.
func (t *Tier) HasDeadlines() bool { return t.deadlines }

// Pick appends the numbers of up to k distinct instances to dst, best first.
func (t *Tier) Pick(dst []uint32, k int, r lb.Request) []uint32 {
	if t.small {
		return t.number(t.few.Pick(dst, k, r), len(dst))
	}
	return t.number(t.picker.Pick(dst, k, r), len(dst))
}

// PickHash picks by r.Hash whatever the service's policy is; false when the
// group has no picker for it.
func (t *Tier) PickHash(dst []uint32, k int, r lb.Request) ([]uint32, bool) {
	if t.hash == nil {
		return dst, false
	}
	return t.number(t.hash.Pick(dst, k, r), len(dst)), true
}

// number turns places in the tier, from the n-th of dst on, into numbers.
func (t *Tier) number(dst []uint32, n int) []uint32 {
	if t.index != nil {
		for i := n; i < len(dst); i++ {
			dst[i] = t.index[dst[i]]
		}
	}
	return dst
}

// At is the number of the tier's n-th instance.
func (t *Tier) At(n int) uint32 {
	if t.index != nil {
		return t.index[n]
	}
	return uint32(n)
}

// mix spreads a hash over a whole word (SplitMix64's finalizer), since hashes
// given by others may be even or short.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// shares returns the part of the group's answers' first choices that each of
// the tier's instances gets, for k records; nil when the policy cannot tell.
func (t *Tier) shares(k int) []float64 {
	var s lb.Sharer = &t.few
	if !t.small {
		var ok bool
		if s, ok = t.picker.(lb.Sharer); !ok {
			return nil
		}
	}
	parts := make([]float64, 0, t.size)
	for _, share := range s.Shares(k) {
		parts = append(parts, share.Uniform*float64(t.load)/100)
	}
	return parts
}

// answersAuto is the greatest number of address records in an answer when the
// service leaves it to Muster: more help no client, and 8 AAAA records fit 512
// octets (RFC 1035 section 2.3.4) under the longest name.
const answersAuto = 8

// percent rounds a share.
func percent(share float64) int { return int(math.Round(share * 100)) }
