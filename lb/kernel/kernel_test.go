package kernel_test

import (
	"net/netip"
	"testing"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

func TestService_TableLeavesOutWhoDrains(t *testing.T) {
	s := web()[0]
	s.Instances = []kernel.Instance{
		{ID: "a", Addr: netip.MustParseAddrPort("10.1.0.20:80"), Weight: 1},
		{ID: "b", Addr: netip.MustParseAddrPort("10.1.0.21:80"), Weight: 9, Draining: true},
		{ID: "c", Addr: netip.MustParseAddrPort("10.1.0.22:80"), Weight: 2},
	}
	counts := make([]int, 3)
	for _, i := range s.Table() {
		counts[i]++
	}
	if counts[0] != 21_846 || counts[1] != 0 || counts[2] != 43_691 {
		t.Errorf("slots: %v", counts)
	}
	for i := range s.Instances {
		s.Instances[i].Draining = true
	}
	if table := s.Table(); table != nil {
		t.Errorf("%d slots of a service that drains", len(table))
	}
}

// The order of the list does not matter to a table or to what is applied.
func TestClone_OrdersInstancesAndCopies(t *testing.T) {
	services := web()
	services[0].Instances = []kernel.Instance{{ID: "b"}, {ID: "a"}}
	clone := kernel.Clone(services)
	if clone[0].Instances[0].ID != "a" || services[0].Instances[0].ID != "b" {
		t.Errorf("cloned %v, of %v", clone[0].Instances, services[0].Instances)
	}
}

func TestSlot_SpreadsAndDependsOnTheAffinity(t *testing.T) {
	s := web()[0]
	seen := map[int]bool{}
	for port := range 1000 {
		client := netip.AddrPortFrom(netip.MustParseAddr("10.1.0.2"), uint16(port))
		slot := kernel.Slot(&s, client)
		if slot < 0 || slot >= lb.MaglevSlots {
			t.Fatalf("client %v falls into slot %d", client, slot)
		}
		seen[slot] = true
	}
	if len(seen) < 950 { // 992 of 1,000 balls are alone in 65,537 boxes
		t.Errorf("1,000 ports fall into %d slots", len(seen))
	}
	s.Affinity = kernel.BySource
	a := kernel.Slot(&s, netip.MustParseAddrPort("10.1.0.2:1"))
	if b := kernel.Slot(&s, netip.MustParseAddrPort("10.1.0.2:2")); a != b {
		t.Errorf("by source, two ports fall into slots %d and %d", a, b)
	}
	if b := kernel.Slot(&s, netip.MustParseAddrPort("10.1.0.3:1")); a == b {
		t.Errorf("two addresses fall into slot %d", a)
	}
}
