package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// compareFaces says where what a form of a service tells of its instances
// differs from what they have registered; empty: nowhere. Forms share most of it
// with the forms before them.
func (m *model) compareFaces(name string, s *pool.Service) string {
	list := m.members(name)
	owners := map[netip.Addr]string{}
	distinct, twice := true, false
	for n := range list {
		want := &list[n]
		if got, want := faceOf(s, uint32(n)), registeredFace(want); got != want {
			return fmt.Sprintf("instance %d is %s, want %s", n, got, want)
		}
		for _, a := range want.Addresses {
			owner, there := owners[a]
			distinct = distinct && (!there || owner == want.ID)
			twice = twice || there && owner == want.ID
			owners[a] = want.ID
		}
		for _, p := range want.Ports {
			if got := s.NamedPort(uint32(n), p.Name, p.Proto == "udp"); got != p.Number {
				return fmt.Sprintf("instance %d has port %d for %s/%s, want %d", n, got, p.Name, p.Proto, p.Number)
			}
		}
		if at := s.Instance([]byte(want.ID)); at != n {
			return fmt.Sprintf("instance %s is at %d, want %d", want.ID, at, n)
		}
	}
	if !twice && s.Distinct() != distinct {
		return fmt.Sprintf("distinct addresses: %t, want %t", s.Distinct(), distinct)
	}
	for _, set := range append(slices.Collect(s.Filters()), s.Set()) {
		if set.Service() != s {
			return fmt.Sprintf("the set %s %q is of another form of the service", set.Kind(), set.Name())
		}
	}
	return ""
}

// faceOf is an instance as answers see it.
func faceOf(s *pool.Service, i uint32) string {
	var addrs []string
	for n := range s.Count4(i) {
		addrs = append(addrs, netip.AddrFrom4(s.Addr4(i, n)).String())
	}
	for n := range s.Count6(i) {
		addrs = append(addrs, netip.AddrFrom16(s.Addr6(i, n)).String())
	}
	return fmt.Sprintf("%s %d %d %d %s", s.Label(i)[1:], s.Port(i), s.Weight(i), s.Priority(i), strings.Join(addrs, " "))
}

// registeredFace is what faceOf should be.
func registeredFace(i *registry.Instance) string {
	var four, six []string
	for _, a := range i.Addresses {
		if a.Is4() {
			four = append(four, a.String())
		} else {
			six = append(six, a.String())
		}
	}
	return fmt.Sprintf("%s %d %d %d %s", i.ID, i.Port, i.Weight, i.Priority, strings.Join(append(four, six...), " "))
}
