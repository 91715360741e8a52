package conformance_test

import (
	"testing"

	"github.com/miekg/dns"
)

// later is what no rule demands of a server and Muster does not have yet, with
// why. A row that fails here is a feature that has come: take it out, and hold it
// to its RFC in another table.
var later = []struct {
	row
	why string
}{
	{
		row{name: "RFC 5001: NSID", packet: askEDNS(origin, dns.TypeSOA, 1232, 0, option(dns.EDNS0NSID)), want: "NOERROR an=1 !option=3"},
		"comes with the other EDNS options; until then id.server CH TXT names the server",
	},
	{
		row{name: "RFC 7873: a server cookie", packet: askEDNS(origin, dns.TypeSOA, 1232, 0, option(dns.EDNS0COOKIE, 1, 2, 3, 4, 5, 6, 7, 8)), want: "NOERROR an=1 !option=10"},
		"comes with response rate limiting, which is what cookies exempt from; the secret must be shared through the registry (RFC 9018)",
	},
	{
		row{name: "RFC 7314: EXPIRE", packet: askEDNS(origin, dns.TypeSOA, 1232, 0, option(dns.EDNS0EXPIRE)), want: "NOERROR an=1 !option=9"},
		"is for secondaries, and comes with zone transfer",
	},
	{
		row{name: "RFC 7828: keepalive over TCP", packet: askEDNS(origin, dns.TypeSOA, 1232, 0, option(dns.EDNS0TCPKEEPALIVE)), want: "NOERROR an=1 !option=11", only: "tcp"},
		"comes with DNS over TLS; without it clients keep connections as long as RFC 7766 section 6.2.3 lets them",
	},
	{
		row{name: "RFC 5936: AXFR", packet: ask(origin, dns.TypeAXFR), want: "REFUSED|NOTIMP an=0", only: "tcp"},
		"comes with TSIG and access lists for it: whoever can transfer a service zone knows every instance",
	},
}

func TestLater_IsStatedWithAReason(t *testing.T) {
	if *serverFlag != "" {
		return // another server may have all of it
	}
	rows := make([]row, 0, len(later))
	for _, l := range later {
		if l.why == "" {
			t.Errorf("%s: no reason", l.name)
		}
		rows = append(rows, l.row)
	}
	runRows(t, rows)
}
