package presentation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/presentation"
)

// message has a record that the library reads, ones that it does not, and one behind them.
func message(t *testing.T) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("x.test.", dns.TypeANY)
	m.Response, m.Authoritative, m.Compress, m.Rcode = true, true, true, dns.RcodeBadCookie
	m.SetEdns0(1232, true)
	header := func(typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: "x.test.", Rrtype: typ, Class: dns.ClassINET, Ttl: 7}
	}
	m.Answer = []dns.RR{
		&dns.A{Hdr: header(dns.TypeA), A: []byte{192, 0, 2, 1}},
		&dns.RFC3597{Hdr: header(dns.TypeAMTRELAY), Rdata: "0081c0000201"},     // with discovery
		&dns.RFC3597{Hdr: header(dns.TypeNXT), Rdata: "016100220100c6"},        // types in one map
		&dns.RFC3597{Hdr: header(66), Rdata: "003b0114b400"},                   // DSYNC
		&dns.MX{Hdr: header(dns.TypeMX), Preference: 10, Mx: "mail.x.test."},   // compressed
		&dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{"what comes behind"}}, // and is seen
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestParse(t *testing.T) {
	m, err := presentation.Parse(message(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range m.Answer {
		got = append(got, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	want := []string{
		"A 192.0.2.1", `TYPE260 \# 6 0081c0000201`, `TYPE30 \# 7 016100220100c6`, `TYPE66 \# 6 003b0114b400`,
		"MX 10 mail.x.test.", `TXT "what comes behind"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if m.Rcode != dns.RcodeBadCookie || !m.Authoritative || len(m.Question) != 1 || m.IsEdns0() == nil {
		t.Errorf("%s", m)
	}
}

// Whatever is cut off, it is an error and no panic.
func TestParse_ShortMessages(t *testing.T) {
	whole := message(t)
	for size := range whole {
		if _, err := presentation.Parse(whole[:size:size]); err == nil {
			t.Errorf("%d of %d octets are read", size, len(whole))
		}
	}
}
