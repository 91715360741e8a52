package pool

import (
	"iter"
	"math"
	"net/netip"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// Service is one service at one moment: its instances, which of them are in,
// and the pickers that choose among them. It is immutable and may be kept. Its
// methods allocate nothing unless they say so. Instances are numbered from 0 in
// the order of their ids; a number belongs to this Service object alone.
type Service struct {
	// What every answer reads comes first, so that it lies together.
	hash     uint64
	name     string // absolute name in wire form, root included
	relative uint8  // octets of it that are relative to the zone
	ancestor bool
	bent     bool // effective weights are not the registered ones
	distinct bool // no address is served by two instances
	located  bool // near is not nil
	origin   *SourceView
	settings *settings
	faces    faces
	whole    Set
	records  any
	crowd    *Crowd

	instances []instance
	filters   []Set     // by kind and name
	near      [][]share // by locality; nil: nobody is nearer than another
	omitted   int       // filters beyond FiltersMax
	own       *registry.Service
	admin     map[string]registry.Admin
}

// instance is the published state of one instance. It holds no pointers.
type instance struct {
	deadline int64  // until when the state surely holds, ns since 1970; 0: not known to end
	weight   uint32 // effective, in units of 1/lb.WeightScale; registered before slow start and load
	health   health.State
	moved    health.State // what the answers go by: health, but for kept
	kept     kept
	admin    registry.AdminState
	class    class
	in       bool
	slow     bool // in slow start
	lowered  bool // its weight is, by what proxies saw
}

func (s *Service) key() (uint64, uint16, string) { return s.hash, uint16(s.origin.id), s.Wire() }

// Origin is the state of the service's source.
func (s *Service) Origin() *SourceView { return s.origin }

// Wire is the service's name in wire form relative to the zone, without a root.
func (s *Service) Wire() string { return s.name[:s.relative] }

// Absolute is the service's absolute name in wire form, root included.
func (s *Service) Absolute() string { return s.name }

// Name is the service's name as registered: "web.prod". It allocates.
func (s *Service) Name() string { return dotted(s.Wire()) }

// Domain is the service's absolute domain name: "web.prod.svc.internal.". It allocates.
func (s *Service) Domain() string { return dotted(s.name[:len(s.name)-1]) + "." }

// dotted is a name in wire form without a root, with dots between its labels.
func dotted(wire string) string {
	name := make([]byte, 0, len(wire))
	for at := 0; at < len(wire); at += 1 + int(wire[at]) {
		if at > 0 {
			name = append(name, '.')
		}
		name = append(name, wire[at+1:at+1+int(wire[at])]...)
	}
	return string(name)
}

// Ancestor reports whether there is no service of this name, but services
// below it: an empty non-terminal (RFC 8020 section 2).
func (s *Service) Ancestor() bool { return s.ancestor }

// Records is what Config.Encode returned for the service.
func (s *Service) Records() any { return s.records }

// Meta is the service's metadata: shared, not to be written to.
func (s *Service) Meta() map[string]string { return s.settings.policy.Meta }

// HashOn says what the hash policy hashes.
func (s *Service) HashOn() HashOn { return s.settings.hashOn }

// Crowd counts who asks, for services that hash their clients; nil for others.
func (s *Service) Crowd() *Crowd { return s.crowd }

// Hashes reports whether the service's policy is hash.
func (s *Service) Hashes() bool { return s.settings.kind == policyHash }

// Everything reports whether the service's policy is to answer all instances.
func (s *Service) Everything() bool { return s.settings.kind == policyAll }

// MaxAnswers is how many records the service's policy wants in one answer;
// 0: auto.
func (s *Service) MaxAnswers() int { return s.settings.answers }

// VIPs are the addresses of a family to answer in place of the instances'; none of either:
// the instances' are answered. They are not to be written to.
func (s *Service) VIPs(f Family) []netip.Addr { return s.settings.vips[f] }

// Distinct reports whether no two instances have an address in common.
func (s *Service) Distinct() bool { return s.distinct }

// TTL is the zone's or service's TTL in seconds, for records that are of the
// service and not of instances.
func (s *Service) TTL() uint32 { return s.settings.ttl }

// Len is the number of instances registered.
func (s *Service) Len() int { return len(s.instances) }

// Instance returns the number of the instance with an id, -1 when there is none.
func (s *Service) Instance(id []byte) int {
	low, high := 0, len(s.instances)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if string(s.faces.labelOf(uint32(middle))[1:]) < string(id) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(s.instances) && string(s.faces.labelOf(uint32(low))[1:]) == string(id) {
		return low
	}
	return -1
}

// Label is the id of instance i as a label in wire form. Not to be written to,
// nor is anything else that is returned as a slice here.
func (s *Service) Label(i uint32) []byte { return s.faces.labelOf(i) }

// TXT is the metadata of instance i as the RDATA of a TXT record; empty: none.
// Pairs that fit no character-string are left out.
func (s *Service) TXT(i uint32) []byte { return s.faces.records.at(int(i)).txt() }

// Port is the default port of instance i; 0: none.
func (s *Service) Port(i uint32) uint16 { return s.faces.list[i].port }

// Weight is the registered weight of instance i.
func (s *Service) Weight(i uint32) uint16 { return s.faces.list[i].weight }

// Priority is the tier of instance i.
func (s *Service) Priority(i uint32) uint16 { return s.faces.list[i].priority }

// Count4 and Count6 are the numbers of addresses of instance i, and Addr4 and
// Addr6 the n-th of them.
func (s *Service) Count4(i uint32) int { return int(s.faces.list[i].count4) }

// Count6 is the number of IPv6 addresses of instance i.
func (s *Service) Count6(i uint32) int { return int(s.faces.list[i].count6) }

// Addr4 is the n-th IPv4 address of instance i.
func (s *Service) Addr4(i uint32, n int) [4]byte { return s.faces.addr4(i, n) }

// Addr6 is the n-th IPv6 address of instance i.
func (s *Service) Addr6(i uint32, n int) [16]byte { return s.faces.addr6(i, n) }

// NamedPort is the port of instance i of that name and protocol; 0: none.
func (s *Service) NamedPort(i uint32, name string, udp bool) uint16 {
	in := s.faces.portsOf(i)
	for range in.u8() {
		number, proto, label := in.u16(), in.u8(), in.short()
		if (proto == protoUDP) == udp && string(label) == name {
			return number
		}
	}
	return 0
}

// ID is the id of instance i. It allocates.
func (s *Service) ID(i uint32) string { return string(s.faces.labelOf(i)[1:]) }

// Address is the first address of instance i, where its checks go too.
func (s *Service) Address(i uint32) netip.Addr {
	if s.Count4(i) > 0 {
		return netip.AddrFrom4(s.Addr4(i, 0))
	}
	return netip.AddrFrom16(s.Addr6(i, 0))
}

// Endpoint is instance i as a candidate of lb's policies: its stable identity
// and effective weight.
func (s *Service) Endpoint(i uint32) lb.Endpoint {
	return lb.Endpoint{ID: s.faces.hashes[i], Weight: s.instances[i].weight}
}

// Health is what the checks of instance i say together.
func (s *Service) Health(i uint32) health.State { return s.instances[i].health }

// Admin is the administrator's word that is in force on instance i.
func (s *Service) Admin(i uint32) registry.AdminState { return s.instances[i].admin }

// Policy is the policy in force, in which no field is unset. Not to be written
// to.
func (s *Service) Policy() *registry.Service { return &s.settings.policy }

// In reports whether instance i may be answered for the service.
func (s *Service) In(i uint32) bool { return s.instances[i].in }

// Deadline is the time, in nanoseconds since 1970, at which what is said of
// instance i may change by what is known already: a verdict that failures lead
// up to, or the end of an administrator's word. 0: none known.
func (s *Service) Deadline(i uint32) int64 { return s.instances[i].deadline }

// InstanceTTL is the TTL in seconds of the records that are of instance i alone.
func (s *Service) InstanceTTL(i uint32) uint32 {
	if ttl := s.faces.list[i].ttl; ttl > 0 {
		return uint32(ttl)
	}
	return s.settings.ttl
}

// SRVWeight is the weight of instance i for a whole set of SRV records
// (RFC 2782): the registered weight while nothing bends the weights, else the
// effective one, scaled so that the set's heaviest is the greatest there is.
func (s *Service) SRVWeight(i, heaviest uint32) uint16 {
	if !s.bent {
		return s.faces.list[i].weight
	}
	w := s.instances[i].weight
	if w == 0 {
		return 0
	}
	// 0 is RFC 2782's "hardly ever", below every real weight.
	return uint16(max(uint64(w)*math.MaxUint16/uint64(heaviest), 1))
}

// Set returns the set of all instances.
func (s *Service) Set() *Set { return &s.whole }

// Filter returns the set that a tag, a zone or a named port chooses; nil when no
// registered instance is in it.
func (s *Service) Filter(kind FilterKind, name []byte, udp bool) *Set {
	proto := uint8(0)
	if kind == FilterPort {
		proto = protoTCP
		if udp {
			proto = protoUDP
		}
	}
	low, high := 0, len(s.filters)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if s.filters[middle].filter.compare(kind, proto, name) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(s.filters) && s.filters[low].filter.compare(kind, proto, name) == 0 {
		return &s.filters[low]
	}
	return nil
}

// HasFilters reports whether there is a filter of the kind, or, for ports, of
// the kind and protocol.
func (s *Service) HasFilters(kind FilterKind, udp bool) bool {
	for i := range s.filters {
		f := &s.filters[i].filter
		if f.kind == kind && (kind != FilterPort || (f.proto == protoUDP) == udp) {
			return true
		}
	}
	return false
}

// FiltersOmitted is the number of filters that have no set, because the
// service has more than FiltersMax.
func (s *Service) FiltersOmitted() int { return s.omitted }

// Filters yields the sets of the filters, by kind and name.
func (s *Service) Filters() iter.Seq[*Set] {
	return func(yield func(*Set) bool) {
		for i := range s.filters {
			if !yield(&s.filters[i]) {
				return
			}
		}
	}
}
