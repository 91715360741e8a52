package service_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// sample is a zone with every kind of name.
func sample() registry.Batch {
	web1 := instance("web", "web-1", "10.0.0.1", "fd00::1")
	web1.Tags, web1.Zone = []string{"v1", "v2"}, "eu-1a"
	web1.Ports = []registry.Port{{Name: "dns", Number: 53, Proto: "udp"}, {Name: "http", Number: 8080, Proto: "tcp"}}
	web1.Meta = map[string]string{"rack": "7"}
	web2 := instance("web", "web-2", "10.0.0.2")
	web2.Tags, web2.Zone, web2.Weight = []string{"v1", "not a label"}, "eu-1b", 3
	web2.Ports = []registry.Port{{Name: "http", Number: 8081, Proto: "tcp"}}
	portless := instance("bare", "b", "10.0.0.9")
	portless.Port = 0
	return registry.Batch{
		Reset:     true,
		Instances: []registry.Instance{web1, web2, instance("api.prod", "a", "10.0.0.3"), portless},
		Services:  []registry.Service{{Name: "web", Meta: map[string]string{"team": "red"}, MaxAnswers: 8}, {Name: "empty"}},
	}
}

func TestZone_Lookup(t *testing.T) {
	const (
		srvTargets = "\n+ web-1.web.svc.test. 5 IN A 10.0.0.1\n+ web-1.web.svc.test. 5 IN AAAA fd00::1\n+ web-2.web.svc.test. 5 IN A 10.0.0.2"
		prod       = "\n+ a.api.prod.svc.test. 5 IN A 10.0.0.3"
	)
	tests := []struct{ name, typ, want string }{
		{"web.svc.test", "A", "NOERROR\nweb.svc.test. 5 IN A 10.0.0.1\nweb.svc.test. 5 IN A 10.0.0.2"},
		{"WEB.svc.TEST", "A", "NOERROR\nWEB.svc.TEST. 5 IN A 10.0.0.1\nWEB.svc.TEST. 5 IN A 10.0.0.2"},
		{"web.svc.test", "AAAA", "NOERROR\nweb.svc.test. 5 IN AAAA fd00::1"},
		{"web.svc.test", "TXT", "NOERROR\nweb.svc.test. 5 IN TXT \"team=red\""},
		{"web.svc.test", "MX", "NODATA"},
		{"web.svc.test", "HTTPS", "NODATA"},
		{"web.svc.test", "ANY", "NOERROR"},
		{
			"web.svc.test", "SRV",
			"NOERROR\nweb.svc.test. 5 IN SRV 0 1 80 web-1.web.svc.test.\nweb.svc.test. 5 IN SRV 0 3 80 web-2.web.svc.test." + srvTargets,
		},
		{
			"_web._tcp.svc.test", "SRV",
			"NOERROR\n_web._tcp.svc.test. 5 IN SRV 0 1 80 web-1.web.svc.test.\n_web._tcp.svc.test. 5 IN SRV 0 3 80 web-2.web.svc.test." + srvTargets,
		},
		{"_web._udp.svc.test", "A", "NODATA"},
		{"_api._tcp.prod.svc.test", "SRV", "NOERROR\n_api._tcp.prod.svc.test. 5 IN SRV 0 1 80 a.api.prod.svc.test." + prod},
		{"_nosuch._tcp.svc.test", "SRV", "NXDOMAIN"},
		{"_prod._tcp.svc.test", "SRV", "NXDOMAIN"},
		{"web._tcp.svc.test", "SRV", "NXDOMAIN"},
		{"_tcp.svc.test", "SRV", "NODATA"},
		{"_tcp.prod.svc.test", "A", "NODATA"},
		{
			"_http._tcp.web.svc.test", "SRV",
			"NOERROR\n_http._tcp.web.svc.test. 5 IN SRV 0 1 8080 web-1.web.svc.test.\n_http._tcp.web.svc.test. 5 IN SRV 0 3 8081 web-2.web.svc.test." + srvTargets,
		},
		{"_http._tcp.web.svc.test", "A", "NODATA"},
		{"_http._udp.web.svc.test", "SRV", "NXDOMAIN"},
		{
			"_dns._udp.web.svc.test", "SRV",
			"NOERROR\n_dns._udp.web.svc.test. 5 IN SRV 0 1 53 web-1.web.svc.test.\n+ web-1.web.svc.test. 5 IN A 10.0.0.1\n+ web-1.web.svc.test. 5 IN AAAA fd00::1",
		},
		{"_tcp.web.svc.test", "SRV", "NODATA"},
		{"web-1.web.svc.test", "A", "NOERROR\nweb-1.web.svc.test. 5 IN A 10.0.0.1"},
		{"web-1.web.svc.test", "AAAA", "NOERROR\nweb-1.web.svc.test. 5 IN AAAA fd00::1"},
		{"web-2.web.svc.test", "AAAA", "NODATA"},
		{"web-1.web.svc.test", "TXT", "NOERROR\nweb-1.web.svc.test. 5 IN TXT \"rack=7\""},
		{"web-2.web.svc.test", "TXT", "NODATA"},
		{"web-2.web.svc.test", "SRV", "NOERROR\nweb-2.web.svc.test. 5 IN SRV 0 3 80 web-2.web.svc.test.\n+ web-2.web.svc.test. 5 IN A 10.0.0.2"},
		{"web-3.web.svc.test", "A", "NXDOMAIN"},
		{"x.web-1.web.svc.test", "A", "NXDOMAIN"},
		{"v2._tag.web.svc.test", "A", "NOERROR\nv2._tag.web.svc.test. 5 IN A 10.0.0.1"},
		{"v2._tag.web.svc.test", "SRV", "NOERROR\nv2._tag.web.svc.test. 5 IN SRV 0 1 80 web-1.web.svc.test.\n+ web-1.web.svc.test. 5 IN A 10.0.0.1\n+ web-1.web.svc.test. 5 IN AAAA fd00::1"},
		{"v2._tag.web.svc.test", "TXT", "NODATA"},
		{"v3._tag.web.svc.test", "A", "NXDOMAIN"},
		{"_tag.web.svc.test", "A", "NODATA"},
		{"_tag.api.prod.svc.test", "A", "NXDOMAIN"},
		{"eu-1b._zone.web.svc.test", "A", "NOERROR\neu-1b._zone.web.svc.test. 5 IN A 10.0.0.2"},
		{"eu-1b._zone.web.svc.test", "AAAA", "NODATA"},
		{"us._zone.web.svc.test", "A", "NXDOMAIN"},
		{"_zone.web.svc.test", "A", "NODATA"},
		{"_hash.web.svc.test", "A", "NODATA"},
		{"k._hash.nosuch.svc.test", "A", "NXDOMAIN"},
		{"_why.web.svc.test", "A", "NODATA"},
		{
			"_why.web.svc.test", "TXT",
			"NOERROR\n_why.web.svc.test. 1 IN TXT \"web-1 in: passing\"\n_why.web.svc.test. 1 IN TXT \"web-2 in: passing\"",
		},
		{"prod.svc.test", "A", "NODATA"},
		{"api.prod.svc.test", "A", "NOERROR\napi.prod.svc.test. 5 IN A 10.0.0.3"},
		{"bare.svc.test", "SRV", "NODATA"},
		{"b.bare.svc.test", "SRV", "NODATA"},
		{"empty.svc.test", "A", "NODATA"},
		{"empty.svc.test", "ANY", "NODATA"},
		{"nosuch.svc.test", "A", "NXDOMAIN"},
		{"a.b.c.d.nosuch.svc.test", "A", "NXDOMAIN"},
		{"svc.test", "NS", "NOERROR\nsvc.test. 5 IN NS ns1.svc.test.\n+ ns1.svc.test. 5 IN A 192.0.2.53\n+ ns1.svc.test. 5 IN AAAA 2001:db8::53"},
		{"svc.test", "A", "NODATA"},
		{"ns1.svc.test", "A", "NOERROR\nns1.svc.test. 5 IN A 192.0.2.53"},
		{"ns1.svc.test", "AAAA", "NOERROR\nns1.svc.test. 5 IN AAAA 2001:db8::53"},
		{"ns1.svc.test", "TXT", "NODATA"},
		{"1.0.0.10.in-addr.arpa", "PTR", "NOERROR\n1.0.0.10.in-addr.arpa. 5 IN PTR web-1.web.svc.test."},
		{"1.0.0.10.in-addr.arpa", "A", "NODATA"},
		{"8.0.0.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"0.0.10.in-addr.arpa", "PTR", "NODATA"},
		{"01.0.0.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"1.1.0.0.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"10.in-addr.arpa", "NS", "NOERROR\n10.in-addr.arpa. 3600 IN NS ns1.svc.test."},
		{"1." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa", "PTR", "NOERROR\n1." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa. 5 IN PTR web-1.web.svc.test."},
		{"svc.other", "A", "REFUSED"},
	}
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(sample())
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.typ, func(t *testing.T) {
			if got := s.ask(tt.name, tt.typ).String(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	t.Run("the SOA's serial is the source's", func(t *testing.T) {
		got := s.ask("svc.test", "SOA")
		if len(got.answer) != 1 || !strings.HasPrefix(got.answer[0], "svc.test. 5 IN SOA ns1.svc.test. hostmaster.svc.test. ") ||
			!strings.HasSuffix(got.answer[0], " 60 10 604800 2") {
			t.Errorf("got %s", got)
		}
	})
}

// TestSourceTypes: whoever must know all that a name has asks for these: a type that is
// missing there would be denied by compact denial (RFC 9824) though the name has it.
func TestSourceTypes(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(sample())
	s.applySky(true, map[string]string{"post": `{"host":"192.0.2.1","port":25,"mail":true,"text":"x"}`, "www": `{"host":"a.example.com"}`})
	known := append([]wire.Type{wire.TypeCNAME, wire.TypeANY}, zones.SourceTypes()...)
	for name, want := range map[string]int{
		"web.svc.test": 6, "svc.test": 2, "_services._dns-sd._udp.svc.test": 2, "web-1@web._http._tcp.svc.test": 3,
		"1.0.0.10.in-addr.arpa": 2, "post.sky.test": 5, "www.sky.test": 4,
	} {
		found, n := 0, mustName(name)
		for typ := wire.Type(1); typ < 65535; typ++ {
			if s.tree.Lookup(&n, typ, &s.a); s.a.Kind != zones.Found {
				continue
			}
			found++
			if !slices.Contains(known, typ) {
				t.Errorf("%s has %s, which is not among the types", name, typ)
			}
		}
		if found < want {
			t.Errorf("%s has %d types, want %d: the test looks at nothing", name, found, want)
		}
	}
}
