package authority_test

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
)

func subnetOption(family uint16, bits uint8, address string) *dns.EDNS0_SUBNET {
	return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: netip.MustParseAddr(address).AsSlice()}
}

// askSubnet asks with a client subnet, and returns the response and the subnet
// that it gives back, nil if it does not.
func askSubnet(t *testing.T, h *authority.Handler, from dnsserver.Client, qname string, o *dns.EDNS0_SUBNET) (*dns.Msg, *dns.EDNS0_SUBNET) {
	t.Helper()
	q := ask(qname, true)
	q.RecursionDesired = false
	q.IsEdns0().Option = []dns.EDNS0{o}
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := exchange(t, h, packed, from)
	for _, o := range m.IsEdns0().Option {
		if o, ok := o.(*dns.EDNS0_SUBNET); ok {
			return m, o
		}
	}
	return m, nil
}

// TestHandler_ServeDNS_ClientSubnet (RFC 7871): near.live.test. is answered by
// the first 20 bits of the client, 192.0.2.N with N the third octet of it.
func TestHandler_ServeDNS_ClientSubnet(t *testing.T) {
	h := benchHandler(t, 0)
	config := authority.Config{
		SubnetsFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Access:      []authority.Rule{{Zone: "*", Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("203.0.113.0/24")}}},
	}
	if err := h.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	stranger := client()
	stranger.Addr = netip.MustParseAddrPort("203.0.113.9:53")
	tests := []struct {
		name   string
		from   dnsserver.Client
		qname  string
		option *dns.EDNS0_SUBNET
		answer string // the address; empty: none
		rcode  int
		back   bool
		scope  uint8
	}{
		{"section 7.2.1: the answer is for the subnet, and so is its scope", client(), "near.live.test.", subnetOption(1, 24, "198.51.7.0"), "192.0.2.7", 0, true, 20},
		{"section 7.2.1: the scope is no longer than the prefix", client(), "near.live.test.", subnetOption(1, 16, "198.51.0.0"), "192.0.2.0", 0, true, 16},
		{"section 7.2.1: an answer for everyone has scope 0", client(), "www.bench.test.", subnetOption(1, 24, "198.51.7.0"), "192.0.2.10", 0, true, 0},
		{"section 7.2.1: so has a negative one", client(), "nope.bench.test.", subnetOption(1, 24, "198.51.7.0"), "", dns.RcodeNameError, true, 0},
		{"section 7.1.2: without an address the resolver is the client", client(), "near.live.test.", subnetOption(1, 0, "0.0.0.0"), "192.0.2.0", 0, true, 0},
		{"section 7.2.1: an IPv6 subnet is given back", client(), "www.bench.test.", subnetOption(2, 56, "2001:db8:0:100::"), "192.0.2.10", 0, true, 0},
		{"section 11.3: who is not believed is answered for itself, without the option", stranger, "near.live.test.", subnetOption(1, 24, "198.51.7.0"), "192.0.2.113", 0, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, back := askSubnet(t, h, tt.from, tt.qname, tt.option)
			got := ""
			if len(m.Answer) > 0 {
				got = m.Answer[0].(*dns.A).A.String()
			}
			if got != tt.answer || m.Rcode != tt.rcode || (back != nil) != tt.back {
				t.Fatalf("want %s, subnet %v; got\n%s", tt.answer, tt.back, m)
			}
			if back != nil && (back.SourceScope != tt.scope || back.Family != tt.option.Family || back.SourceNetmask != tt.option.SourceNetmask || !back.Address.Equal(tt.option.Address)) {
				t.Errorf("subnet %v, want scope %d", back, tt.scope)
			}
		})
	}
	// What a client may ask goes by its own address and the name as it was read,
	// once (as not in CVE-2026-26017): nobody can write itself in.
	config.SubnetsFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if err := h.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	refused := client()
	refused.Addr = netip.MustParseAddrPort("192.0.2.1:53")
	if m, _ := askSubnet(t, h, refused, "www.bench.test.", subnetOption(1, 24, "127.0.0.0")); m.Rcode != dns.RcodeRefused {
		t.Errorf("by the subnet 127.0.0.0/24 192.0.2.1 gets %s", dns.RcodeToString[m.Rcode])
	}
	// And nothing is left of it for the query after it.
	if m := asked(t, h, "near.live.test."); m != "NOERROR qr aa" {
		t.Errorf("the next query gets %s", m)
	}
}
