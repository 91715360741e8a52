// Package kernel holds the words that the kernel's data planes share with who
// drives them: services and instances as plain values, what is counted, and what
// a kernel or a process lacks. The planes are below it: nat (nftables), dsr
// (eBPF, direct server return) and vip (who holds an address).
package kernel

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/musterdns/muster/lb"
)

// Protocol is a transport protocol by its IP protocol number.
type Protocol uint8

// The protocols that have ports.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// Affinity is what of a client decides where a new connection goes.
type Affinity uint8

// The affinities.
const (
	// BySourcePort spreads the connections of one client.
	BySourcePort Affinity = iota
	// BySource sends all connections of an address to one instance.
	BySource
)

// Instance is one endpoint of a service.
type Instance struct {
	ID   string // stable and unique in its service
	Addr netip.AddrPort
	// Weight is in any unit that all instances of the service share. With 0 an
	// instance gets connections only when all have 0.
	Weight uint32
	// Draining instances get no new connections and keep those they have.
	Draining bool
}

// Service is one virtual address, port and protocol.
type Service struct {
	Name     string // unique among the services of a plane: letters, digits, hyphens and dots
	VIP      netip.AddrPort
	Protocol Protocol
	Affinity Affinity
	// Masquerade gives connections this machine's own address as their source,
	// so that replies come back through it whatever the instances' routes are.
	// With nat, instances must else route clients through this machine; dsr
	// has no use for it.
	Masquerade bool
	// Fenced services are served only while Hold says that this machine holds
	// their address.
	Fenced    bool
	Instances []Instance // of the VIP's address family
}

// nameMax keeps names within what the kernel gives a chain (NFT_NAME_MAXLEN).
const nameMax = 200

// Validate returns an error that names the service, the field and the value.
func (s *Service) Validate() error {
	if s.Name == "" || len(s.Name) > nameMax {
		return fmt.Errorf("service %q: its name must have 1 to %d characters", s.Name, nameMax)
	}
	for _, c := range []byte(s.Name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return fmt.Errorf("service %q: its name must consist of letters, digits, hyphens and dots", s.Name)
		}
	}
	if !s.VIP.IsValid() || s.VIP.Port() == 0 || s.VIP.Addr().Is4In6() || s.VIP.Addr().Zone() != "" {
		return fmt.Errorf("service %s: %v is no address and port", s.Name, s.VIP)
	}
	if s.Protocol != TCP && s.Protocol != UDP {
		return fmt.Errorf("service %s: %v is neither tcp nor udp", s.Name, s.Protocol)
	}
	seen := map[string]bool{}
	addresses := map[netip.AddrPort]string{}
	for i := range s.Instances {
		in := &s.Instances[i]
		if seen[in.ID] {
			return fmt.Errorf("service %s: two instances are called %q", s.Name, in.ID)
		}
		seen[in.ID] = true
		if !in.Addr.IsValid() || in.Addr.Port() == 0 || in.Addr.Addr().Is4() != s.VIP.Addr().Is4() || in.Addr.Addr().Is4In6() {
			return fmt.Errorf("service %s, instance %s: %v is no address and port of the family of %v", s.Name, in.ID, in.Addr, s.VIP)
		}
		if other, ok := addresses[in.Addr]; ok {
			return fmt.Errorf("service %s: instances %s and %s are both at %v", s.Name, other, in.ID, in.Addr)
		}
		addresses[in.Addr] = in.ID
	}
	return nil
}

// Validate checks all services and that no two have a name or a VIP in common.
func Validate(services []Service) error {
	names := map[string]bool{}
	type front struct {
		vip      netip.AddrPort
		protocol Protocol
	}
	fronts := map[front]string{}
	for i := range services {
		s := &services[i]
		if err := s.Validate(); err != nil {
			return err
		}
		if names[s.Name] {
			return fmt.Errorf("two services are called %q", s.Name)
		}
		names[s.Name] = true
		f := front{s.VIP, s.Protocol}
		if other, ok := fronts[f]; ok {
			return fmt.Errorf("services %s and %s are both at %v/%v", other, s.Name, s.VIP, s.Protocol)
		}
		fronts[f] = s.Name
	}
	return nil
}

// Table builds the service's Maglev table: each slot holds an index in
// Instances. It is nil where no instance may get a new connection. All machines
// with the same instances build the same.
func (s *Service) Table() []uint32 {
	endpoints := make([]lb.Endpoint, 0, len(s.Instances))
	index := make([]uint32, 0, len(s.Instances))
	for i := range s.Instances {
		in := &s.Instances[i]
		if in.Draining {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(in.ID)) // a hash takes all
		endpoints = append(endpoints, lb.Endpoint{ID: h.Sum64(), Weight: in.Weight})
		index = append(index, uint32(i))
	}
	table := lb.Maglev(endpoints)
	for slot, i := range table {
		table[slot] = index[i]
	}
	return table
}

// Clone copies the services, so that their owner may go on writing to his.
func Clone(services []Service) []Service {
	out := slices.Clone(services)
	for i := range out {
		out[i].Instances = slices.Clone(out[i].Instances)
		slices.SortFunc(out[i].Instances, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	}
	return out
}

// Traffic is what the kernel has counted for one instance.
type Traffic struct {
	Connections uint64 // opened through the plane
	// Packets and Bytes went to the instance.
	Packets, Bytes uint64
	// ReplyPackets and ReplyBytes came back through this machine; with direct
	// server return none do.
	ReplyPackets, ReplyBytes uint64
}

// Since is what was counted after before was: all of it where counting has begun
// anew.
func (t Traffic) Since(before Traffic) Traffic {
	if t.Connections < before.Connections || t.Packets < before.Packets {
		return t
	}
	t.Connections -= before.Connections
	t.Packets -= before.Packets
	t.Bytes -= before.Bytes
	t.ReplyPackets -= before.ReplyPackets
	t.ReplyBytes -= before.ReplyBytes
	return t
}

// Plus is the sum.
func (t Traffic) Plus(o Traffic) Traffic {
	t.Connections += o.Connections
	t.Packets += o.Packets
	t.Bytes += o.Bytes
	t.ReplyPackets += o.ReplyPackets
	t.ReplyBytes += o.ReplyBytes
	return t
}

// Need is something that a plane lacks on this machine.
type Need struct {
	What string // that is lacking, and what does not work without it
	Mend string // a command or a setting
}
