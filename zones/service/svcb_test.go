package service_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

// site is a service behind TLS with two instances.
func site(policy registry.Service) registry.Batch {
	policy.Name = "site"
	one := instance("site", "site-1", "10.0.0.1", "fd00::1")
	one.Ports = []registry.Port{{Name: "https", Number: 8443, Proto: "tcp"}, {Name: "http", Number: 8080, Proto: "tcp"}}
	two := instance("site", "site-2", "10.0.0.2")
	two.Ports = []registry.Port{{Name: "https", Number: 443, Proto: "tcp"}}
	return registry.Batch{Reset: true, Instances: []registry.Instance{one, two}, Services: []registry.Service{policy}}
}

func TestZone_Lookup_bindings(t *testing.T) {
	const (
		one = `1 site-1.site.svc.test. %sport="8443" ipv4hint="10.0.0.1" ipv6hint="fd00::1"`
		two = `1 site-2.site.svc.test. %sport="443" ipv4hint="10.0.0.2"`
	)
	both := func(typ, alpn string) string {
		return fmt.Sprintf("NOERROR\nsite.svc.test. 5 IN %[1]s "+one+"\nsite.svc.test. 5 IN %[1]s "+strings.ReplaceAll(two, "%s", "%[2]s"), typ, alpn)
	}
	s, stop := newServer(t, registry.Service{})
	defer stop()
	t.Run("an instance is a binding with its own port and addresses", func(t *testing.T) {
		s.apply(site(registry.Service{}))
		for _, typ := range []string{"HTTPS", "SVCB"} {
			if got := s.ask("site.svc.test", typ).String(); got != both(typ, "") {
				t.Errorf("%s:\n%s\nwant\n%s", typ, got, both(typ, ""))
			}
		}
	})
	t.Run("alpn comes from the service's metadata", func(t *testing.T) {
		s.apply(site(registry.Service{Meta: map[string]string{"alpn": "h2, h3,,"}}))
		if got, want := s.ask("site.svc.test", "HTTPS").String(), both("HTTPS", `alpn="h2,h3" `); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	})
	t.Run("unequal weights are kept by one record an answer", func(t *testing.T) {
		b := site(registry.Service{})
		b.Instances[0].Weight = 3
		s.apply(b)
		count := map[string]int{}
		for range 400 {
			a := s.ask("site.svc.test", "HTTPS")
			if len(a.answer) != 1 {
				t.Fatalf("%d records, want 1: %s", len(a.answer), a)
			}
			count[strings.Fields(a.answer[0])[5]]++
		}
		if n := count["site-1.site.svc.test."]; n < 260 || n > 340 {
			t.Errorf("site-1 with weight 3 of 4 has %d of 400 answers", n)
		}
	})
	t.Run("without a port named https there is no HTTPS, and SVCB is of http", func(t *testing.T) {
		s.apply(sample())
		if got := s.ask("web.svc.test", "HTTPS").kind; got != "NODATA" {
			t.Errorf("HTTPS: %s, want NODATA", got)
		}
		if got := s.ask("web.svc.test", "SVCB").String(); !strings.Contains(got, `IN SVCB 1 web-2.web.svc.test. port="8081" ipv4hint="10.0.0.2"`) {
			t.Errorf("SVCB: %s", got)
		}
		if got := s.ask("bare.svc.test", "SVCB").kind; got != "NODATA" {
			t.Errorf("SVCB of a service without ports: %s, want NODATA", got)
		}
	})
	t.Run("a service answered by virtual addresses has none", func(t *testing.T) {
		s.apply(site(registry.Service{VIP: []netip.Addr{netip.MustParseAddr("10.0.0.100")}}))
		if got := s.ask("site.svc.test", "HTTPS").kind; got != "NODATA" {
			t.Errorf("%s, want NODATA", got)
		}
	})
}
