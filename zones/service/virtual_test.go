package service_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/registry"
)

func TestRRset_Append_virtual(t *testing.T) {
	s, stop := newServer(t, registry.Service{TTL: 7 * time.Second})
	defer stop()
	vip := registry.Service{Name: "web", Fail: "closed", VIP: []netip.Addr{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.0.101")}}
	down := []registry.Admin{{Service: "web", Instance: "*", State: registry.AdminDown}}
	s.apply(registry.Batch{Reset: true, Services: []registry.Service{vip}, Instances: many("web", 3)})
	for _, tt := range []struct{ what, name, typ, want string }{
		{"a service with virtual addresses has these", "web.svc.test", "A", "NOERROR\nweb.svc.test. 7 IN A 10.0.0.100\nweb.svc.test. 7 IN A 10.0.0.101"},
		{"and none of another family", "web.svc.test", "AAAA", "NODATA"},
		{"its instances have their own", "i001.web.svc.test", "A", "NOERROR\ni001.web.svc.test. 7 IN A " + many("web", 3)[1].Addresses[0].String()},
	} {
		if got := s.ask(tt.name, tt.typ).String(); got != tt.want {
			t.Errorf("%s: %s %s is\n%s\nwant\n%s", tt.what, tt.name, tt.typ, got, tt.want)
		}
	}
	if got := s.ask("web.svc.test", "SRV"); len(got.answer) != 3 {
		t.Errorf("SRV is %s; want the three instances", got)
	}
	s.apply(registry.Batch{Admin: down})
	if got := s.ask("web.svc.test", "A"); len(got.answer) != 0 || got.kind != "NODATA" {
		t.Errorf("with nothing to serve A is %s; want NODATA", got)
	}
	s.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindAdmin, Service: "web", Name: "*"}}})
	vip.VIP = []netip.Addr{netip.MustParseAddr("fd00::64")}
	s.apply(registry.Batch{Services: []registry.Service{vip}})
	if got := s.ask("web.svc.test", "AAAA"); !slices.Equal(got.answer, []string{"web.svc.test. 7 IN AAAA fd00::64"}) {
		t.Errorf("with an address of IPv6, which no instance has, AAAA is %s", got)
	}
}
