package conformance_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// row is one rule: what is sent and what must come back.
//
// The expectation begins with the response codes that are right, separated by
// bars; "drop" is no reply. Then:
//
//	aa !aa          a flag (aa tc rd ra ad cd) is set, is not set
//	an=2 ns=0 ar>0  counts of records in a section, OPT aside
//	an:A ns:!SOA    a section has records of a type, has none
//	opt !opt        there is an OPT record, there is none
//	do !do          its DO bit
//	option=3        it has that option
//	!option=3       it has not
//	size<=512       octets of the message
type row struct {
	name   string
	packet []byte
	want   string
	only   string // "udp" or "tcp"; empty: both, because the rules are the same
}

// runRows asks each row over each transport.
func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if r.only != "tcp" {
				expect(t, "udp", r.packet, exchangeUDP(t, r.packet), r.want)
			}
			if r.only != "udp" {
				expect(t, "tcp", r.packet, exchangeTCP(t, r.packet), r.want)
			}
		})
	}
}

// expect holds a reply to an expectation and to what holds for every reply.
func expect(t *testing.T, network string, packet, reply []byte, want string) {
	t.Helper()
	words := strings.Fields(want)
	rcodes := strings.Split(words[0], "|")
	if reply == nil {
		if !slices.Contains(rcodes, "drop") {
			t.Errorf("%s: no reply, want %s", network, want)
		}
		return
	}
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		t.Errorf("%s: the reply does not parse: %v: %x", network, err, reply)
		return
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s; want %s\n%s", network, fmt.Sprintf(format, args...), want, m)
	}
	rcode := dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeBadVers {
		rcode = "BADVERS" // the same number is BADSIG in TSIG
	}
	if !slices.Contains(rcodes, rcode) {
		fail("rcode %s", rcode)
	}
	for _, word := range words[1:] {
		if problem := check(m, len(reply), word); problem != "" {
			fail("%s", problem)
		}
	}
	for _, problem := range always(network, packet, reply, m) {
		fail("%s", problem)
	}
}

// check holds a reply to one word of an expectation. It returns what is wrong.
func check(m *dns.Msg, size int, word string) string {
	bare, negated := strings.CutPrefix(word, "!")
	flags := map[string]bool{
		"aa": m.Authoritative, "tc": m.Truncated, "rd": m.RecursionDesired, "ra": m.RecursionAvailable,
		"ad": m.AuthenticatedData, "cd": m.CheckingDisabled,
		"opt": m.IsEdns0() != nil, "do": m.IsEdns0() != nil && m.IsEdns0().Do(),
	}
	if set, ok := flags[bare]; ok {
		if set == negated {
			return fmt.Sprintf("%s is %v", bare, set)
		}
		return ""
	}
	if code, ok := strings.CutPrefix(bare, "option="); ok {
		if has := hasOption(m, code); has == negated {
			return fmt.Sprintf("option %s: %v", code, has)
		}
		return ""
	}
	if limit, ok := strings.CutPrefix(bare, "size<="); ok {
		if n, err := strconv.Atoi(limit); err != nil || size > n {
			return fmt.Sprintf("%d octets (%v)", size, err)
		}
		return ""
	}
	return checkSection(m, word)
}

// checkSection holds a section to one word of an expectation.
func checkSection(m *dns.Msg, word string) string {
	at := strings.IndexAny(word, "=>:")
	if at < 0 {
		return "unknown word " + word
	}
	var records []dns.RR
	switch word[:at] {
	case "an":
		records = m.Answer
	case "ns":
		records = m.Ns
	case "ar":
		records = slices.DeleteFunc(slices.Clone(m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	default:
		return "unknown word " + word
	}
	if word[at] == ':' {
		typ, negated := strings.CutPrefix(word[at+1:], "!")
		has := slices.ContainsFunc(records, func(rr dns.RR) bool { return dns.TypeToString[rr.Header().Rrtype] == typ })
		if has == negated {
			return fmt.Sprintf("%s in section %s: %v", typ, word[:at], has)
		}
		return ""
	}
	n, err := strconv.Atoi(word[at+1:])
	if err != nil || word[at] == '=' && len(records) != n || word[at] == '>' && len(records) <= n {
		return fmt.Sprintf("%d records in section %s (%v)", len(records), word[:at], err)
	}
	return ""
}

// hasOption reports whether the reply's OPT record has the option.
func hasOption(m *dns.Msg, code string) bool {
	o := m.IsEdns0()
	return o != nil && slices.ContainsFunc(o.Option, func(e dns.EDNS0) bool {
		return strconv.Itoa(int(e.Option())) == code
	})
}

// always yields what is wrong by the rules that hold for every reply.
func always(network string, packet, reply []byte, m *dns.Msg) []string {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	sent, got := binary.BigEndian.Uint16(packet[2:]), binary.BigEndian.Uint16(reply[2:])
	add(m.Id != packetID, "id %04x, sent %04x", m.Id, packetID)
	add(!m.Response, "the reply is no response")
	add(sent>>11&15 != got>>11&15, "opcode %d, sent %d", got>>11&15, sent>>11&15)
	add(got&bitZ != 0, "RFC 1035 section 4.1.1: the reserved bit is set")
	add(got&bitAD != 0, "RFC 4035 section 3.1.6: AD is set in data that nobody validated")
	add(got&bitRA != 0, "RA is set, and there is no recursion")
	if len(m.Question) == 1 {
		end := headerSize + len(wireNameOf(reply)) + 4
		add(len(packet) < end || string(packet[headerSize:end]) != string(reply[headerSize:end]),
			"the question is not echoed octet by octet")
	}
	if o := m.IsEdns0(); o != nil {
		add(o.Version() != 0, "RFC 6891 section 6.1.3: EDNS version %d", o.Version())
		add(o.Hdr.Ttl&0x7fff != 0, "RFC 6891 section 6.1.4: reserved EDNS flags %04x", o.Hdr.Ttl&0x7fff)
	}
	if network == "udp" {
		add(len(reply) > limitOf(packet), "%d octets, the client takes %d", len(reply), limitOf(packet))
	}
	ttls := map[string]uint32{}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		h := rr.Header()
		key := fmt.Sprint(strings.ToLower(h.Name), h.Rrtype)
		if ttl, ok := ttls[key]; ok {
			add(ttl != h.Ttl, "RFC 2181 section 5.2: %s has TTLs %d and %d", key, ttl, h.Ttl)
		}
		ttls[key] = h.Ttl
	}
	return wrong
}

// wireNameOf is the name of a message's question, which is never compressed.
func wireNameOf(msg []byte) []byte {
	b := msg[headerSize:]
	for i := 0; i < len(b); i += int(b[i]) + 1 {
		if b[i] == 0 {
			return b[:i+1]
		}
	}
	return b
}

// limitOf is how many octets a query's sender takes over UDP, and Muster sends:
// at most 1232 (DNS flag day 2020).
func limitOf(packet []byte) int {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil || m.IsEdns0() == nil {
		return dns.MinMsgSize
	}
	return int(min(max(m.IsEdns0().UDPSize(), dns.MinMsgSize), 1232))
}
