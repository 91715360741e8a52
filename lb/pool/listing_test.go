package pool_test

import (
	"fmt"
	"slices"

	"github.com/musterdns/muster/lb/pool"
)

// compareListings says where the lists for those who browse differ from what the
// model's services have; empty: nowhere.
func (m *model) compareListings(v *pool.View) string {
	want := map[string][]string{}
	for _, name := range modelNames {
		if m.kind(name) != "service" {
			continue
		}
		for _, i := range m.members(name) {
			for _, p := range i.Ports {
				key := p.Proto + " " + p.Name
				if wire := string(wireName(name)); !slices.Contains(want[key], wire) {
					want[key] = append(want[key], wire)
				}
			}
		}
	}
	got := map[string][]string{}
	if ports := v.Ports(1); ports != nil {
		for n := range ports.Len() {
			name, udp := pool.SplitPort(ports.At(n))
			key := "tcp " + name
			if udp {
				key = "udp " + name
			}
			list := v.PortServices(1, []byte(name), udp)
			for k := 0; list != nil && k < list.Len(); k++ {
				if s := list.Service(k); s == nil || s.Wire() != list.At(k) {
					return fmt.Sprintf("port %s: its service %q is not there", key, list.At(k))
				}
				got[key] = append(got[key], list.At(k))
			}
		}
	}
	for _, l := range want {
		slices.Sort(l)
	}
	if a, b := fmt.Sprintf("%q", got), fmt.Sprintf("%q", want); a != b {
		return fmt.Sprintf("listed are %s, want %s", a, b)
	}
	return ""
}
