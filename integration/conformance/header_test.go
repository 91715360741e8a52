package conformance_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestHeader(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 8906 section 8.1.1: a plain query is answered", packet: ask(origin, dns.TypeSOA), want: "NOERROR aa !tc !rd !ad !cd an=1 an:SOA !opt"},
		{name: "RFC 8906 section 8.1.2: an unknown type is NODATA", packet: ask(origin, 1000), want: "NOERROR aa an=0 ns=1 ns:SOA"},
		{name: "RFC 8906 section 8.1.3.1: CD is ignored", packet: askFlags(bitCD, origin, dns.TypeSOA), want: "NOERROR aa an=1"},
		{name: "RFC 8906 section 8.1.3.2: AD is ignored", packet: askFlags(bitAD, origin, dns.TypeSOA), want: "NOERROR aa an=1 !ad"},
		{name: "RFC 8906 section 8.1.3.3: the reserved bit is ignored", packet: askFlags(bitZ, origin, dns.TypeSOA), want: "NOERROR aa an=1"},
		{name: "RFC 1035 section 4.1.1: RD is copied", packet: askFlags(bitRD, origin, dns.TypeSOA), want: "NOERROR aa rd !ra an=1"},
		{name: "RFC 1035 section 4.1.1: AA and RA in a query mean nothing", packet: askFlags(bitAA|bitRA, origin, dns.TypeSOA), want: "NOERROR aa !ra an=1"},
		{name: "RFC 1035 section 4.1.1: TC in a query means nothing", packet: askFlags(bitTC, origin, dns.TypeSOA), want: "NOERROR aa !tc an=1"},
		{name: "RFC 1035 section 4.1.1: a response is not answered", packet: askFlags(bitQR, origin, dns.TypeSOA), want: "drop"},
		{name: "RFC 1035 section 4.1.1: a response with an error is not answered", packet: askFlags(bitQR|dns.RcodeFormatError, origin, dns.TypeSOA), want: "drop"},
	})
}

func TestHeader_Opcode(t *testing.T) {
	var rows []row
	for _, code := range []int{1, 2, 3, 7, 8, 14, 15} {
		rows = append(rows,
			row{
				name:   fmt.Sprintf("RFC 8906 section 8.1.4: opcode %d without a question is not implemented", code),
				packet: header(opcode(code), 0, 0, 0, 0), want: "NOTIMP !aa !ad an=0 ns=0",
			},
			row{
				name:   fmt.Sprintf("RFC 8906 section 8.1.4: opcode %d with a question is not implemented", code),
				packet: askFlags(opcode(code), origin, dns.TypeSOA), want: "NOTIMP !aa !ad an=0 ns=0",
			})
	}
	runRows(t, append(rows,
		row{
			name:   "RFC 2136 section 2: an update of the zone changes nothing",
			packet: askFlags(opcode(dns.OpcodeUpdate), origin, dns.TypeSOA), want: "REFUSED|NOTIMP|NOTAUTH an=0 ns=0",
		},
		row{
			name:   "RFC 1996 section 3: a notify from nobody's primary gets no data",
			packet: askFlags(opcode(dns.OpcodeNotify)|bitAA, origin, dns.TypeSOA), want: "REFUSED|NOTIMP|NOTAUTH an=0 ns=0",
		}))
}

func TestHeader_QuestionCount(t *testing.T) {
	www := question("www."+origin, dns.TypeA, dns.ClassINET)
	runRows(t, []row{
		{name: "RFC 9619 section 4: two questions are malformed", packet: slices.Concat(header(0, 2, 0, 0, 0), www, www), want: "FORMERR !aa an=0 ns=0"},
		{name: "RFC 9619 section 4: two different questions are malformed", packet: slices.Concat(header(0, 2, 0, 0, 0), www, question(origin, dns.TypeSOA, dns.ClassINET)), want: "FORMERR !aa an=0 ns=0"},
		{name: "RFC 9619 section 4: no question is malformed", packet: header(0, 0, 0, 0, 0), want: "FORMERR !aa an=0 ns=0"},
	})
}

func TestHeader_Class(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 1035 section 3.2.4: class CH has no data of class IN", packet: askClass("www."+origin, dns.TypeA, dns.ClassCHAOS), want: "REFUSED|NOTIMP an=0 ns=0"},
		{name: "RFC 1035 section 3.2.4: class HS has no data of class IN", packet: askClass("www."+origin, dns.TypeA, dns.ClassHESIOD), want: "REFUSED|NOTIMP an=0 ns=0"},
		{name: "RFC 1035 section 3.2.4: an unknown class has no data", packet: askClass("www."+origin, dns.TypeA, 257), want: "REFUSED|NOTIMP an=0 ns=0"},
		{name: "RFC 2136 section 2.4: class NONE is no class to ask", packet: askClass("www."+origin, dns.TypeA, dns.ClassNONE), want: "REFUSED|NOTIMP|FORMERR an=0 ns=0"},
	})
}

func TestHeader_MetaType(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 5936 section 4.2: a transfer is not answered over UDP", packet: ask(origin, dns.TypeAXFR), want: "REFUSED|NOTIMP|FORMERR an=0", only: "udp"},
		{name: "RFC 5936 section 5: a transfer to whom none is allowed is refused", packet: ask(origin, dns.TypeAXFR), want: "REFUSED|NOTIMP|NOTAUTH an=0", only: "tcp"},
		{name: "RFC 6891 section 6.1.1: OPT is no type to ask", packet: ask(origin, dns.TypeOPT), want: "FORMERR|NOTIMP|REFUSED|NOERROR an=0"},
		{name: "RFC 8945 section 5.2: TSIG is no type to ask", packet: ask(origin, dns.TypeTSIG), want: "FORMERR|NOTIMP|REFUSED|NOERROR an=0"},
		{name: "RFC 2930 section 2: TKEY without a key gives nothing", packet: ask(origin, dns.TypeTKEY), want: "FORMERR|NOTIMP|REFUSED|NOERROR an=0"},
		{name: "RFC 1035 section 3.2.3: MAILB is obsolete and has no data", packet: ask(origin, dns.TypeMAILB), want: "NOERROR|NOTIMP|REFUSED an=0"},
	})
}
