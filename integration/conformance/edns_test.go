package conformance_test

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestEDNS_VersionsFlagsAndOptions(t *testing.T) {
	const soa = dns.TypeSOA
	runRows(t, []row{
		{name: "RFC 8906 section 8.2.1: OPT is answered with OPT", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR aa an=1 opt !do"},
		{name: "RFC 8906 section 8.2.2: a higher version is BADVERS without data", packet: askEDNS(origin, soa, 1232, optVersion1), want: "BADVERS !aa opt an=0 ns=0"},
		{name: "RFC 8906 section 8.2.3: an unknown option is ignored and not echoed", packet: askEDNS(origin, soa, 1232, 0, option(100, 1, 2, 3)), want: "NOERROR aa an=1 opt !option=100"},
		{name: "RFC 8906 section 8.2.4: an unknown flag is ignored and not echoed", packet: askEDNS(origin, soa, 1232, 0x0040), want: "NOERROR aa an=1 opt"},
		{name: "RFC 8906 section 8.2.5: a higher version with an unknown flag is BADVERS", packet: askEDNS(origin, soa, 1232, optVersion1|0x0040), want: "BADVERS opt an=0"},
		{name: "RFC 8906 section 8.2.6: a higher version with an unknown option is BADVERS", packet: askEDNS(origin, soa, 1232, optVersion1, option(100)), want: "BADVERS opt an=0 !option=100"},
		{name: "RFC 3225 section 3: DO is copied", packet: askEDNS(origin, soa, 1232, optDO), want: "NOERROR aa an=1 opt do"},
		{name: "RFC 8906 section 8.2.8: a higher version with DO is BADVERS", packet: askEDNS(origin, soa, 1232, optVersion1|optDO), want: "BADVERS opt an=0"},
		{name: "RFC 8906 section 8.2.9: several known options at once are answered", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0NSID), option(dns.EDNS0COOKIE, 1, 2, 3, 4, 5, 6, 7, 8), option(dns.EDNS0EXPIRE), option(dns.EDNS0SUBNET, 0, 1, 0, 0)), want: "NOERROR aa an=1 opt"},
		{name: "RFC 6891 section 6.1.3: version 255 is BADVERS", packet: askEDNS(origin, soa, 1232, 255<<16), want: "BADVERS opt an=0"},
		{name: "RFC 6891 section 6.1.1: OPT is answered with OPT in an error", packet: askEDNS("www.example.", dns.TypeA, 1232, 0), want: "REFUSED opt an=0"},
		{name: "RFC 6891 section 6.1.1: OPT is answered with OPT in NXDOMAIN", packet: askEDNS("no."+origin, dns.TypeA, 1232, 0), want: "NXDOMAIN aa opt ns:SOA"},
		{name: "RFC 7314 section 3: EXPIRE is told with the SOA when asked for", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0EXPIRE)), want: "NOERROR aa an=1 option=9"},
		{name: "RFC 7314 section 3: EXPIRE is not sent unasked", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR !option=9"},
		{name: "RFC 5001 section 2.2: NSID is not sent unasked", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR !option=3"},
		{name: "RFC 5001 section 2.2: NSID is sent when asked for", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0NSID)), want: "NOERROR aa an=1 option=3"},
		{name: "RFC 5001 section 2.2: NSID is sent in NXDOMAIN", packet: askEDNS("no."+origin, dns.TypeA, 1232, 0, option(dns.EDNS0NSID)), want: "NXDOMAIN aa option=3"},
		{name: "RFC 7828 section 3.3.2: keepalive is sent over TCP when asked for", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0TCPKEEPALIVE)), want: "NOERROR an=1 option=11", only: "tcp"},
		{name: "RFC 7828 section 3.2.1: keepalive is not sent unasked", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR !option=11"},
		{name: "RFC 7828 section 3.2.1: keepalive is never sent over UDP", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0TCPKEEPALIVE)), want: "NOERROR an=1 !option=11", only: "udp"},
		{name: "RFC 7830 section 4: padding is not sent in the clear unasked", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR !option=12"},
		{name: "RFC 7871 section 6: a client subnet of more bits than there are is malformed", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0SUBNET, 0, 1, 200, 0, 1, 2, 3, 4)), want: "FORMERR opt an=0"},
		{name: "RFC 7871 section 6: a client subnet with bits behind its prefix is malformed", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0SUBNET, 0, 1, 23, 0, 192, 0, 3)), want: "FORMERR opt an=0"},
		{name: "RFC 7871 section 6: a client subnet with a scope is malformed", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0SUBNET, 0, 1, 24, 24, 192, 0, 2)), want: "FORMERR opt an=0"},
		{name: "RFC 7871 section 7.2.1: a client subnet that is not believed is not given back", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0SUBNET, 0, 1, 24, 0, 192, 0, 2)), want: "NOERROR aa an=1 !option=8"},
	})
}

func TestEDNS_Cookies(t *testing.T) {
	const soa = dns.TypeSOA
	client := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	cookie := func(server int) []byte { return option(dns.EDNS0COOKIE, append(client, make([]byte, server)...)...) }
	runRows(t, []row{
		{name: "RFC 7873 section 5.2.1: no cookie is sent unasked", packet: askEDNS(origin, soa, 1232, 0), want: "NOERROR !option=10"},
		{name: "RFC 7873 section 5.2.3: a client cookie gets a server cookie", packet: askEDNS(origin, soa, 1232, 0, cookie(0)), want: "NOERROR aa an=1 option=10"},
		{name: "RFC 7873 section 5.2.4: a server cookie that is not ours gets another", packet: askEDNS(origin, soa, 1232, 0, cookie(16)), want: "NOERROR aa an=1 option=10"},
		{name: "RFC 7873 section 5.2.3: an error has a cookie too", packet: askEDNS("www.example.", dns.TypeA, 1232, 0, cookie(0)), want: "REFUSED an=0 option=10"},
		{name: "RFC 7873 section 5.2.2: a client cookie that is too short is malformed", packet: askEDNS(origin, soa, 1232, 0, option(dns.EDNS0COOKIE, client[:7]...)), want: "FORMERR opt an=0"},
		{name: "RFC 7873 section 5.2.2: a server cookie that is too short is malformed", packet: askEDNS(origin, soa, 1232, 0, cookie(7)), want: "FORMERR opt an=0"},
		{name: "RFC 7873 section 5.2.2: a server cookie that is too long is malformed", packet: askEDNS(origin, soa, 1232, 0, cookie(33)), want: "FORMERR opt an=0"},
		{name: "RFC 7873 section 5.4: no question but a client cookie gets a server cookie", packet: slices.Concat(header(0, 0, 0, 0, 1), opt(1232, 0, cookie(0))), want: "NOERROR an=0 ns=0 option=10"},
		{name: "RFC 7873 section 5.4: no question and a wrong cookie is BADCOOKIE", packet: slices.Concat(header(0, 0, 0, 0, 1), opt(1232, 0, cookie(16))), want: "BADCOOKIE an=0 ns=0 option=10"},
	})
}

func TestEDNS_Malformed(t *testing.T) {
	soa := question(origin, dns.TypeSOA, dns.ClassINET)
	optHeader := func(rdlength byte, rdata ...byte) []byte {
		b := opt(1232, 0)
		b[len(b)-1] = rdlength
		return append(b, rdata...)
	}
	runRows(t, []row{
		{name: "RFC 6891 section 6.1.1: two OPT records are malformed", packet: slices.Concat(header(0, 1, 0, 0, 2), soa, opt(1232, 0), opt(1232, 0)), want: "FORMERR !aa an=0"},
		{name: "RFC 6891 section 6.1.2: an owner of OPT that is not the root is malformed or ignored", packet: slices.Concat(header(0, 1, 0, 0, 1), soa, record(wireName("x."+origin), dns.TypeOPT, 1232, 0)), want: "FORMERR|NOERROR"},
		{name: "RFC 6891 section 6.1.2: an option longer than its record is malformed", packet: slices.Concat(header(0, 1, 0, 0, 1), soa, optHeader(4, 0, 3, 0, 60)), want: "FORMERR an=0"},
		{name: "RFC 6891 section 6.1.2: half an option is malformed", packet: slices.Concat(header(0, 1, 0, 0, 1), soa, optHeader(3, 0, 3, 0)), want: "FORMERR an=0"},
		{name: "RFC 1035 section 4.1.3: RDATA longer than the message is malformed", packet: slices.Concat(header(0, 1, 0, 0, 1), soa, optHeader(200)), want: "FORMERR|drop an=0"},
		{name: "RFC 6891 section 6.1.1: OPT in the answer section is not taken for OPT", packet: slices.Concat(header(0, 1, 1, 0, 0), soa, opt(1232, optVersion1)), want: "FORMERR|NOERROR !opt"},
	})
}

func TestEDNS_Size(t *testing.T) {
	large, forty := "large."+origin, "forty."+origin
	runRows(t, []row{
		{name: "RFC 1035 section 4.2.1: without EDNS at most 512 octets, and TC", packet: ask(large, dns.TypeTXT), want: "NOERROR aa tc !opt size<=512", only: "udp"},
		{name: "RFC 2181 section 9: a truncated answer parses", packet: ask(forty, dns.TypeA), want: "NOERROR aa tc size<=512", only: "udp"},
		{name: "RFC 8906 section 8.2.10: 512 with DO is truncated and keeps OPT", packet: askEDNS(large, dns.TypeTXT, 512, optDO), want: "NOERROR tc opt size<=512", only: "udp"},
		{name: "RFC 6891 section 6.2.3: an offer below 512 is 512", packet: askEDNS("www."+origin, dns.TypeA, 100, 0), want: "NOERROR aa !tc an=2 opt", only: "udp"},
		{name: "RFC 6891 section 6.2.3: an offer of 0 is 512", packet: askEDNS("www."+origin, dns.TypeA, 0, 0), want: "NOERROR aa !tc an=2 opt", only: "udp"},
		{name: "RFC 6891 section 6.2.5: what fits the offer is sent whole", packet: askEDNS(forty, dns.TypeA, 1232, 0), want: "NOERROR aa !tc an=40 opt size<=1232", only: "udp"},
		{name: "RFC 6891 section 6.2.5: what does not fit the offer is truncated", packet: askEDNS(large, dns.TypeTXT, 1232, 0), want: "NOERROR aa tc opt size<=1232", only: "udp"},
		{name: "RFC 9715 section 3.2: an offer of 65535 gets no fragments", packet: askEDNS(large, dns.TypeTXT, 65535, 0), want: "NOERROR aa tc opt size<=1232", only: "udp"},
		{name: "RFC 7766 section 5: over TCP all records come", packet: ask(large, dns.TypeTXT), want: "NOERROR aa !tc an=60", only: "tcp"},
		{name: "RFC 6891 section 6.2.3: over TCP the offer does not count", packet: askEDNS(large, dns.TypeTXT, 512, 0), want: "NOERROR aa !tc an=60 opt", only: "tcp"},
	})
}
