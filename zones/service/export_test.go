package service_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
)

// exported is a zone's export as miekg/dns prints it, the SOA left out.
func (s *server) exported() []string {
	s.t.Helper()
	apex := mustName("svc.test.")
	e, err := s.tree.Export(s.t.Context(), s.tree.Zone(&apex))
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for _, r := range e.Records {
		lines = append(lines, presentation(s.t, r))
	}
	return lines
}

func presentation(t testing.TB, r zones.Record) string {
	t.Helper()
	h := dns.RR_Header{Rrtype: uint16(r.Type), Class: dns.ClassINET, Ttl: r.TTL, Rdlength: uint16(len(r.RData))}
	name, _, err := dns.UnpackDomainName(r.Owner, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.Name = name
	rr, _, err := dns.UnpackRRWithHeader(h, r.RData, 0)
	if err != nil {
		t.Fatal(err)
	}
	return line(rr)
}

func TestZone_Export(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	b := sample()
	b.Admin = []registry.Admin{{Service: "web", Instance: "web-2", State: registry.AdminDrain}}
	s.apply(b)
	got := s.exported()
	for _, want := range []string{
		"svc.test. 5 IN NS ns1.svc.test.",
		"ns1.svc.test. 5 IN A 192.0.2.53",
		"web.svc.test. 5 IN A 10.0.0.1",
		`web.svc.test. 5 IN TXT "team=red"`,
		"web.svc.test. 5 IN SRV 0 1 80 web-1.web.svc.test.",
		"_web._tcp.svc.test. 5 IN SRV 0 1 80 web-1.web.svc.test.",
		"_http._tcp.web.svc.test. 5 IN SRV 0 1 8080 web-1.web.svc.test.",
		"v2._tag.web.svc.test. 5 IN A 10.0.0.1",
		"eu-1a._zone.web.svc.test. 5 IN AAAA fd00::1",
		"web-2.web.svc.test. 5 IN A 10.0.0.2", // by its own name, drained as it is
		"_api._tcp.prod.svc.test. 5 IN SRV 0 1 80 a.api.prod.svc.test.",
		`web.svc.test. 5 IN SVCB 1 web-1.web.svc.test. port="8080" ipv4hint="10.0.0.1" ipv6hint="fd00::1"`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not exported: %s", want)
		}
	}
	for _, l := range got {
		if strings.Contains(l, " IN A 10.0.0.2") && !strings.HasPrefix(l, "web-2.web.") {
			t.Errorf("a drained instance is exported: %s", l)
		}
	}
	t.Run("everything exported is what a question gets", func(t *testing.T) {
		s.size = 65535
		for _, l := range got {
			f := strings.Fields(l)
			a := s.ask(f[0], f[3])
			if !slices.Contains(a.answer, l) {
				t.Errorf("%s is exported, and answered %s", l, a)
			}
		}
	})
}
