package service_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

func TestZone_Lookup_browsing(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	b := sample()
	prod := instance("api.prod", "a", "10.0.0.3")
	prod.Ports = []registry.Port{{Name: "http", Number: 8088, Proto: "tcp"}}
	long := instance(strings.Repeat("s", 40), strings.Repeat("i", 40), "10.0.0.4")
	long.Ports = prod.Ports
	b.Instances = append(b.Instances, prod, long)
	s.apply(b)
	const browse = "NOERROR\n_http._tcp.svc.test. 5 IN PTR a@api.prod._http._tcp.svc.test.\n" +
		"_http._tcp.svc.test. 5 IN PTR web-1@web._http._tcp.svc.test.\n_http._tcp.svc.test. 5 IN PTR web-2@web._http._tcp.svc.test."
	browsed := strings.ReplaceAll(strings.ReplaceAll(browse, "a@api.prod", `a\@api\.prod`), "@web.", `\@web.`)
	tests := []struct{ name, typ, want string }{
		{
			"_services._dns-sd._udp.svc.test", "PTR",
			"NOERROR\n_services._dns-sd._udp.svc.test. 5 IN PTR _dns._udp.svc.test.\n_services._dns-sd._udp.svc.test. 5 IN PTR _http._tcp.svc.test.",
		},
		{"_services._dns-sd._udp.svc.test", "A", "NODATA"},
		{"b._dns-sd._udp.svc.test", "PTR", "NOERROR\nb._dns-sd._udp.svc.test. 5 IN PTR svc.test."},
		{"r._dns-sd._udp.svc.test", "PTR", "NXDOMAIN"},
		{"_dns-sd._udp.svc.test", "PTR", "NODATA"},
		{"_http._tcp.svc.test", "PTR", browsed},
		{"_http._tcp.svc.test", "SRV", "NODATA"}, // no service is named http
		{"_web._tcp.svc.test", "PTR", "NODATA"},  // a service, but no port
		{"_http._udp.svc.test", "PTR", "NXDOMAIN"},
		{"_nosuch._tcp.svc.test", "PTR", "NXDOMAIN"},
		{
			"web-2@web._http._tcp.svc.test", "SRV",
			`NOERROR` + "\n" + `web-2\@web._http._tcp.svc.test. 5 IN SRV 0 3 8081 web-2.web.svc.test.` + "\n+ web-2.web.svc.test. 5 IN A 10.0.0.2",
		},
		{"web-1@web._http._tcp.svc.test", "TXT", "NOERROR\nweb-1\\@web._http._tcp.svc.test. 5 IN TXT \"rack=7\""},
		{"web-2@web._http._tcp.svc.test", "TXT", "NOERROR\nweb-2\\@web._http._tcp.svc.test. 5 IN TXT \"\""},
		{`a@api\.prod._http._tcp.svc.test`, "SRV", "NOERROR\na\\@api\\.prod._http._tcp.svc.test. 5 IN SRV 0 1 8088 a.api.prod.svc.test.\n+ a.api.prod.svc.test. 5 IN A 10.0.0.3"},
		{"web-2@web._dns._udp.svc.test", "SRV", "NXDOMAIN"}, // it has not that port
		{"web-9@web._http._tcp.svc.test", "SRV", "NXDOMAIN"},
		{"web._http._tcp.svc.test", "SRV", "NXDOMAIN"},
		{"x.web-2@web._http._tcp.svc.test", "SRV", "NXDOMAIN"},
	}
	for _, tt := range tests {
		if got := s.ask(tt.name, tt.typ).String(); got != tt.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", tt.name, tt.typ, got, tt.want)
		}
	}
	t.Run("what is listed goes with the last that has it", func(t *testing.T) {
		s.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "web-1"}}})
		got := s.ask("_services._dns-sd._udp.svc.test", "PTR").String()
		if want := "NOERROR\n_services._dns-sd._udp.svc.test. 5 IN PTR _http._tcp.svc.test."; got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
		if got := s.ask("_dns._udp.svc.test", "PTR").kind; got != "NXDOMAIN" {
			t.Errorf("_dns._udp: %s, want NXDOMAIN", got)
		}
	})
	t.Run("an instance that is drained is not browsed", func(t *testing.T) {
		s.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "web-2", State: registry.AdminDrain}}})
		if got := s.ask("_http._tcp.svc.test", "PTR"); strings.Contains(got.String(), "web-2") {
			t.Errorf("%s", got)
		}
	})
}

func TestZone_Lookup_browsing_many(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	var b registry.Batch
	for n := range 300 {
		i := instance(fmt.Sprintf("s%03d", n), "i", fmt.Sprintf("10.1.%d.%d", n/256, n%256))
		i.Ports = []registry.Port{{Name: "http", Number: 80, Proto: "tcp"}}
		b.Instances = append(b.Instances, i)
	}
	s.apply(b)
	s.size = 65535
	if got := len(s.ask("_http._tcp.svc.test", "PTR").answer); got != 256 {
		t.Errorf("%d of 300 services are listed, want 256", got)
	}
	if c := s.pool.Counters().ListingsOmitted; c == 0 {
		t.Error("a list that was cut is not counted")
	}
	for n := range 300 { // those that wait move up
		if n >= 40 && n < 300-20 {
			b.Deleted = append(b.Deleted, registry.Key{Source: 1, Kind: registry.KindInstance, Service: fmt.Sprintf("s%03d", n), Name: "i"})
		}
	}
	s.apply(registry.Batch{Deleted: b.Deleted})
	if got := len(s.ask("_http._tcp.svc.test", "PTR").answer); got != 60 {
		t.Errorf("of 60 services that are left, %d are listed", got)
	}
}
