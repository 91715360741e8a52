package service_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/service"
)

// TestHead_apex asks for what a zone says of itself that has name servers of its own and
// elsewhere, and that nobody can take over.
func TestHead_apex(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	s.apply(sample())
	head := service.Head{
		Apex: mustName("svc.test."), Mailbox: mustName(`dns\.admin.example.test.`), NegativeTTL: time.Second, Expire: 24 * time.Hour,
		Servers: []service.NameServer{
			{Name: mustName("a.svc.test."), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
			{Name: mustName("b.svc.test."), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
			{Name: mustName("ns.example.test.")},
		},
	}
	z, err := service.New(service.Config{Head: head, View: s.pool.View(), Source: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s.tree, err = zones.NewTree([]*zones.Zone{zones.NewSourceZone(head.Apex, z)}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, typ, want string }{
		{"svc.test", "NS", `NOERROR
svc.test. 3600 IN NS a.svc.test.
svc.test. 3600 IN NS b.svc.test.
svc.test. 3600 IN NS ns.example.test.
+ a.svc.test. 3600 IN A 192.0.2.1
+ a.svc.test. 3600 IN AAAA 2001:db8::1
+ b.svc.test. 3600 IN A 192.0.2.2`},
		{"svc.test", "SOA", "NOERROR\nsvc.test. 5 IN SOA a.svc.test. dns\\.admin.example.test. 1 14400 3600 86400 1"},
		{"a.svc.test", "AAAA", "NOERROR\na.svc.test. 3600 IN AAAA 2001:db8::1"},
		{"b.svc.test", "AAAA", "NODATA"},
		{"ns1.svc.test", "A", "NXDOMAIN"}, // which is the name server's where none is given
		{"x.a.svc.test", "A", "NXDOMAIN"},
		{"web-1.web.svc.test", "A", "NOERROR\nweb-1.web.svc.test. 5 IN A 10.0.0.1"},
	} {
		if got := s.ask(tt.name, tt.typ).String(); got != tt.want {
			t.Errorf("%s %s: got\n%s\nwant\n%s", tt.name, tt.typ, got, tt.want)
		}
	}
	if got := head.Reserved(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("reserved are %q", got)
	}
}

func TestNew_refuses_name_servers(t *testing.T) {
	s, stop := newServer(t, registry.Service{})
	defer stop()
	for _, tt := range []struct {
		servers []service.NameServer
		want    string
	}{
		{[]service.NameServer{{Name: mustName("a.b.svc.test.")}}, `name server "a.b.svc.test.": must lie right below`},
		{[]service.NameServer{{Name: mustName("svc.test.")}}, `name server "svc.test.": must lie right below`},
		{make([]service.NameServer, service.ServersMax+1), "14 name servers: must be 13 at most"},
	} {
		_, err := service.New(service.Config{Head: service.Head{Apex: mustName("svc.test."), Servers: tt.servers}, View: s.pool.View(), Source: 1})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}
