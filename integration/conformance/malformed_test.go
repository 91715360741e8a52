package conformance_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// Each of these is sent with a probe behind it: whatever becomes of the packet,
// the server answers what comes next.
func TestMalformed(t *testing.T) {
	www := question("www."+origin, dns.TypeA, dns.ClassINET)
	junk := record(wireName("www."+origin), dns.TypeA, dns.ClassINET, 60, 1, 2, 3, 4)
	raw := func(name ...byte) []byte {
		return slices.Concat(header(0, 1, 0, 0, 0), rawQuestion(name, dns.TypeA, dns.ClassINET))
	}
	tsig := record(wireName("key"), dns.TypeTSIG, dns.ClassANY, 0)
	runRows(t, []row{
		{name: "RFC 1035 section 4.1.2: more questions counted than there are", packet: slices.Concat(header(0, 65535, 0, 0, 0), www), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.3: more answers counted than there are", packet: slices.Concat(header(0, 1, 65535, 0, 0), www), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.3: more authority counted than there is", packet: slices.Concat(header(0, 1, 0, 65535, 0), www), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.3: more additional counted than there is", packet: slices.Concat(header(0, 1, 0, 0, 65535), www), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1: a record in the answer section of a query", packet: slices.Concat(header(0, 1, 1, 0, 0), www, junk), want: "FORMERR|NOERROR|drop"},
		{name: "RFC 1035 section 4.1: octets behind the message", packet: slices.Concat(header(0, 1, 0, 0, 0), www, bytes.Repeat([]byte{0xde, 0xad}, 16)), want: "FORMERR|NOERROR|drop"},
		{name: "RFC 1035 section 4.1.4: a name that points to itself", packet: raw(0xc0, 12), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.4: a name that points forward", packet: append(raw(0xc0, 18), wireName("www")...), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.4: a name that points into the header", packet: raw(0xc0, 4), want: "FORMERR|REFUSED|drop an=0"},
		{name: "RFC 1035 section 4.1.4: two pointers in a ring", packet: raw(0xc0, 14, 0xc0, 12), want: "FORMERR|drop an=0"},
		{name: "RFC 6891 section 5: a label of type 01", packet: raw(0x41, 'a', 0), want: "FORMERR|NOTIMP|drop an=0"},
		{name: "RFC 1035 section 4.1.4: a label of type 10", packet: raw(0x81, 'a', 0), want: "FORMERR|NOTIMP|drop an=0"},
		{name: "RFC 1035 section 3.1: a name of more than 255 octets", packet: raw(append(bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 4), 0)...), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 3.1: a name without an end", packet: append(header(0, 1, 0, 0, 0), 3, 'w', 'w', 'w'), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1.2: a question without a class", packet: slices.Concat(header(0, 1, 0, 0, 0), www[:len(www)-2]), want: "FORMERR|drop an=0"},
		{name: "RFC 1035 section 4.1: a header and nothing else", packet: header(0, 1, 0, 0, 0), want: "FORMERR|drop an=0"},
		{name: "RFC 8945 section 5.1: TSIG that is not the last record", packet: slices.Concat(header(0, 1, 0, 0, 2), www, tsig, opt(1232, 0)), want: "FORMERR|NOTAUTH|drop an=0"},
		{name: "RFC 8945 section 5.2: TSIG without RDATA", packet: slices.Concat(header(0, 1, 0, 0, 1), www, tsig), want: "FORMERR|NOTAUTH|drop an=0"},
	})
}

// TestMalformed_Short cuts a good query off at each octet.
func TestMalformed_Short(t *testing.T) {
	whole := askEDNS("www."+origin, dns.TypeA, 1232, 0, option(dns.EDNS0NSID))
	var rows []row
	for n := range whole {
		want := "FORMERR|drop an=0"
		if n < headerSize {
			want = "drop" // RFC 1035 section 4.1.1: no header, nothing to reply to
		}
		rows = append(rows, row{name: fmt.Sprintf("RFC 1035 section 4.1: the first %d octets of a query", n), packet: whole[:n], want: want})
	}
	runRows(t, rows)
}

// TestMalformed_Flipped turns each bit of a good query over. What is not
// malformed by it is another question; nothing stops the server, and every
// reply obeys what holds for all.
func TestMalformed_Flipped(t *testing.T) {
	whole := askEDNS("www."+origin, dns.TypeA, 1232, 0, option(dns.EDNS0NSID))
	for i := 2; i < len(whole); i++ {
		for bit := range 8 {
			packet := slices.Clone(whole)
			packet[i] ^= 1 << bit
			reply := exchangeUDP(t, packet)
			if reply == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(reply); err != nil {
				t.Errorf("octet %d bit %d: the reply does not parse: %v: %x", i, bit, err, reply)
				continue
			}
			for _, problem := range always("udp", packet, reply, m) {
				t.Errorf("octet %d bit %d: %s\n%s", i, bit, problem, m)
			}
		}
	}
}
