//go:build !race

package authority_test

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/authority"
)

// TestHandler_ServeDNS_allocations holds the query path to none. It is built
// without the race detector, under which sync.Pool drops values at random.
func TestHandler_ServeDNS_allocations(t *testing.T) {
	h := benchHandler(t, 0)
	for _, tt := range benchQueries {
		t.Run(tt.name, func(t *testing.T) {
			p := prepare(t, tt.qname, tt.qtype)
			if n := testing.AllocsPerRun(1000, func() { p.serve(h) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// TestHandler_ServeDNS_clientSubnetAllocations: nor does a believed client subnet
// cost any.
func TestHandler_ServeDNS_clientSubnetAllocations(t *testing.T) {
	h := benchHandler(t, 0)
	if err := h.SetConfig(authority.Config{SubnetsFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "near.live.test.", dns.TypeA, subnetOption(1, 24, "198.51.7.0"))
	if n := testing.AllocsPerRun(1000, func() { p.serve(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHandler_RateLimit_allocations(t *testing.T) {
	h := limited(t, nil)
	a := newAsker(t, "192.0.2.1", "www.bench.test.")
	if n := testing.AllocsPerRun(1000, func() { a.ask(h, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
