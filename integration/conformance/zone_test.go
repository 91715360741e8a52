package conformance_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestZone_Lookup(t *testing.T) {
	const a, aaaa = dns.TypeA, dns.TypeAAAA
	runRows(t, []row{
		{name: "RFC 1034 section 4.3.2: all records of the type", packet: ask("www."+origin, a), want: "NOERROR aa !tc an=2 an:A"},
		{name: "RFC 2308 section 2.2: a type that is not there is NODATA with SOA", packet: ask("www."+origin, dns.TypeMX), want: "NOERROR aa an=0 ns=1 ns:SOA"},
		{name: "RFC 2308 section 2.1: a name that is not there is NXDOMAIN with SOA", packet: ask("no."+origin, a), want: "NXDOMAIN aa an=0 ns=1 ns:SOA"},
		{name: "RFC 8020 section 2: an empty non-terminal exists", packet: ask("b.empty."+origin, a), want: "NOERROR aa an=0 ns:SOA"},
		{name: "RFC 8020 section 2: so does the one above", packet: ask("empty."+origin, a), want: "NOERROR aa an=0 ns:SOA"},
		{name: "RFC 4343 section 3: case makes no difference", packet: ask("wWw.WiRe.TeSt.", a), want: "NOERROR aa an=2"},
		{name: "RFC 4343 section 3: nor does it in the zone file", packet: ask("mixed."+origin, a), want: "NOERROR aa an=1"},
		{name: "RFC 3597 section 5: a type without a name is served", packet: ask("odd."+origin, 65280), want: "NOERROR aa an=1"},
		{name: "RFC 2782: the addresses of a target are additional", packet: ask("_http._tcp."+origin, dns.TypeSRV), want: "NOERROR aa an=2 ar:A ar:AAAA"},
		{name: "RFC 4592 section 3.3.1: a wildcard makes the name", packet: ask("any.wild."+origin, a), want: "NOERROR aa an=1"},
		{name: "RFC 4592 section 2.1.3: a wildcard makes deeper names", packet: ask("x.y.wild."+origin, a), want: "NOERROR aa an=1"},
		{name: "RFC 4592 section 2.2.1: a wildcard has no other types", packet: ask("any.wild."+origin, aaaa), want: "NOERROR aa an=0 ns:SOA"},
		{name: "RFC 4592 section 2.2.2: an empty non-terminal is not made by it", packet: ask("here.wild."+origin, a), want: "NOERROR aa an=0 ns:SOA"},
		{name: "RFC 4592 section 2.2.1: nor are names below one", packet: ask("x.here.wild."+origin, a), want: "NXDOMAIN aa an=0 ns:SOA"},
		{name: "RFC 4592 section 2.1.1: the asterisk can be asked for", packet: ask("*.wild."+origin, a), want: "NOERROR aa an=1"},
		{name: "RFC 1034 section 3.6.2: an alias is followed", packet: ask("alias."+origin, a), want: "NOERROR aa an=3 an:CNAME an:A"},
		{name: "RFC 1034 section 3.6.2: an alias of an alias is followed", packet: ask("alias2."+origin, a), want: "NOERROR aa an=4 an:CNAME an:A"},
		{name: "RFC 1034 section 3.6.2: an alias that is asked for is not followed", packet: ask("alias."+origin, dns.TypeCNAME), want: "NOERROR aa an=1 an:CNAME"},
		{name: "RFC 1034 section 4.3.2: an alias out of the zone is where it ends", packet: ask("away."+origin, a), want: "NOERROR aa an=1 an:CNAME"},
		{name: "RFC 6604 section 3: an alias of a missing name is NXDOMAIN", packet: ask("dangling."+origin, a), want: "NXDOMAIN aa an=1 an:CNAME ns:SOA"},
		{name: "RFC 1034 section 3.6.2: a ring of aliases ends", packet: ask("ring1."+origin, a), want: "NOERROR|SERVFAIL size<=512"},
	})
}

func TestZone_Cut(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 1034 section 4.3.2: below a cut is a referral with glue", packet: ask("x.cut."+origin, dns.TypeA), want: "NOERROR !aa an=0 ns=2 ns:NS ns:!SOA ar:A"},
		{name: "RFC 1034 section 4.3.2: at a cut is a referral", packet: ask("cut."+origin, dns.TypeA), want: "NOERROR !aa an=0 ns=2 ns:NS"},
		{name: "RFC 1034 section 4.2.1: the NS at a cut are no answer", packet: ask("cut."+origin, dns.TypeNS), want: "NOERROR !aa an=0 ns=2 ns:NS"},
		{name: "RFC 1034 section 4.2.1: glue is no answer", packet: ask("ns.cut."+origin, dns.TypeA), want: "NOERROR !aa an=0 ns:NS ar:A"},
		{name: "RFC 4035 section 3.1.4.1: DS at a cut is the parent's to answer", packet: ask("cut."+origin, dns.TypeDS), want: "NOERROR aa an=0 ns:SOA"},
	})
}

func TestZone_NotOurs(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 8906 section 3.1.4: a name in no zone of ours is refused, not referred", packet: ask("www.example.", dns.TypeA), want: "REFUSED !aa an=0 ns=0 ar=0"},
		{name: "RFC 8906 section 3.1.4: so is the parent", packet: ask("test.", dns.TypeNS), want: "REFUSED !aa an=0 ns=0 ar=0"},
		{name: "RFC 8906 section 3.1.4: so is the root, in few octets", packet: ask(".", dns.TypeNS), want: "REFUSED !aa an=0 ns=0 ar=0 size<=60"},
		{name: "RFC 1034 section 3.1: a name that only ends like the zone is not in it", packet: ask("notwire.test.", dns.TypeA), want: "REFUSED !aa an=0 ns=0"},
	})
}

func TestZone_ANY(t *testing.T) {
	runRows(t, []row{
		{name: "RFC 8482 section 4: ANY gets little over UDP", packet: askEDNS("large."+origin, dns.TypeANY, 1232, 0), want: "NOERROR aa size<=512", only: "udp"},
		{name: "RFC 8482 section 4: ANY at a missing name is NXDOMAIN", packet: ask("no."+origin, dns.TypeANY), want: "NXDOMAIN aa an=0 ns:SOA"},
		{name: "RFC 8482 section 4: ANY in no zone of ours is refused", packet: ask("www.example.", dns.TypeANY), want: "REFUSED an=0"},
	})
}

// TestZone_NegativeTTL holds the SOA of a negative answer to the zone's
// minimum, of 60 seconds, and not to the SOA's own TTL, of 300.
func TestZone_NegativeTTL(t *testing.T) {
	for _, packet := range [][]byte{ask("no."+origin, dns.TypeA), ask("www."+origin, dns.TypeMX)} {
		m := new(dns.Msg)
		if err := m.Unpack(exchangeUDP(t, packet)); err != nil {
			t.Fatal(err)
		}
		if len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 60 {
			t.Errorf("RFC 2308 section 5: authority %v, want one SOA with TTL 60", m.Ns)
		}
	}
}

// TestZone_Names asks names that are legal and that a text form would spoil.
func TestZone_Names(t *testing.T) {
	// As many labels of 63 octets as fit, and one that makes 255 in all.
	longest := wireName(origin)
	for len(longest) < 255 {
		n := min(63, 255-len(longest)-1)
		if 255-len(longest)-1-n == 1 { // leaves room for no label
			n--
		}
		longest = slices.Concat([]byte{byte(n)}, bytes.Repeat([]byte{'a'}, n), longest)
	}
	deepest := wireName(strings.Repeat("a.", (255-len(wireName(origin)))/2) + origin)
	raw := func(name []byte) []byte {
		return slices.Concat(header(0, 1, 0, 0, 0), rawQuestion(name, dns.TypeA, dns.ClassINET))
	}
	runRows(t, []row{
		{name: "RFC 1035 section 3.1: a name of 255 octets is a name", packet: raw(longest), want: "NXDOMAIN aa ns:SOA"},
		{name: "RFC 1035 section 3.1: a name of as many labels as can be is a name", packet: raw(deepest), want: "NXDOMAIN aa ns:SOA"},
		{name: "RFC 2181 section 11: labels hold any octets", packet: raw(append([]byte("\x06\x00\xff. \\\x80"), wireName(origin)...)), want: "NXDOMAIN aa ns:SOA"},
		{name: "RFC 2181 section 11: a dot in a label separates nothing", packet: raw(append([]byte("\x07www.www"), wireName(origin)...)), want: "NXDOMAIN aa ns:SOA"},
	})
}
