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
		row{name: "RFC 7314: EXPIRE", packet: askEDNS(origin, dns.TypeSOA, 1232, 0, option(dns.EDNS0EXPIRE)), want: "NOERROR an=1 !option=9"},
		"is for secondaries, and comes with zone transfer",
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
