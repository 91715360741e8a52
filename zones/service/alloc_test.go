//go:build !race

// The race detector makes sync.Pool forget now and then, which allocates.

package service_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
)

// questions are those whose answers must not allocate.
var questions = [][2]string{
	{"web.svc.test", "A"},
	{"web.svc.test", "AAAA"},
	{"web.svc.test", "SRV"},
	{"web.svc.test", "SVCB"},
	{"_http._tcp.web.svc.test", "SRV"},
	{"virtual.svc.test", "A"},
	{"web-1.web.svc.test", "A"},
	{"web-1.web.svc.test", "SRV"},
	{"web-1.web.svc.test", "TXT"},
	{"v1._tag.web.svc.test", "A"},
	{"key._hash.web.svc.test", "A"},
	{"_why.web.svc.test", "TXT"},
	{"_http._tcp.svc.test", "PTR"},
	{"_services._dns-sd._udp.svc.test", "PTR"},
	{"b._dns-sd._udp.svc.test", "PTR"},
	{"web-1@web._http._tcp.svc.test", "SRV"},
	{"svc.test", "SOA"},
	{"nosuch.svc.test", "A"},
	{"_api._tcp.prod.svc.test", "SRV"},
	{"1.0.0.10.in-addr.arpa", "PTR"},
	{"broken.svc.test", "A"},
	{"broken.svc.test", "SRV"},
	{"web.sky.test", "A"},
	{"web.sky.test", "AAAA"},
	{"web.sky.test", "SRV"},
	{"sky.test", "MX"},
	{"sky.test", "TXT"},
	{"old.sky.test", "CNAME"},
	{"away.sky.test", "A"},
	{"nosuch.sky.test", "A"},
}

func TestZone_Lookup_allocates(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(sample())
	s.apply(registry.Batch{
		Services: []registry.Service{
			{Name: "virtual", VIP: []netip.Addr{netip.MustParseAddr("10.0.0.100")}},
			{Name: "broken", Failover: []string{"nosuch", "web.other.test.", "web.svc.test."}},
		},
		Instances: append(many("virtual", 2), many("broken", 1)...),
		Admin:     []registry.Admin{{Service: "broken", Instance: "*", State: registry.AdminDrain}},
	})
	s.applySky(true, map[string]string{
		"web/a": `{"host":"10.9.0.1","port":80}`, "web/b": `{"host":"fd00::1","port":80}`, "old": `{"host":"www.example.com"}`,
		"mail": `{"host":"mail.example.com","mail":true,"text":"x"}`,
	})
	s.feed(registry.Batch{Source: 2, Services: []registry.Service{{Name: "away", Failover: []string{"web"}}}})
	s.req.Now = time.Now().UnixNano()
	s.req.Client = netip.MustParseAddr("192.0.2.1")
	for _, q := range questions {
		s.parse(q[0], q[1])
		asked := []*wire.Query{s.q}
		if n := testing.AllocsPerRun(500, func() {
			s.req.Rand += 0x9e3779b97f4a7c15
			s.tree.Warm(asked)
			s.reply()
		}); n != 0 {
			t.Errorf("%v: %v allocations, want 0", q, n)
		}
	}
}
