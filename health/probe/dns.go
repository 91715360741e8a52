package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/health"
)

const (
	dnsHeader = 12 // octets (RFC 1035 section 4.1.1)
	// dnsResponseMax is how much of a response is read; what a server sends
	// beyond is cut off by the kernel, and what is judged comes first.
	dnsResponseMax = 1232
	// dnsIgnoredMax is how many datagrams that answer something else are read.
	dnsIgnoredMax = 16

	dnsClassIN = 1
	dnsQR      = 0x80 // in the header's third octet
	dnsOpcode  = 0x78
	dnsRD      = 0x01
	dnsRCode   = 0x0f // in the fourth
)

// dns sends one query over UDP and passes when its response says NOERROR,
// whatever it answers: NODATA is an answer too. NXDOMAIN fails like SERVFAIL
// and REFUSED, since the name asked for is one that is known to exist: a
// server that denies it has lost its data.
func (s *Set) dns(ctx context.Context, t *health.Target) health.Result {
	what := fmt.Sprintf("DNS %v %s %s", t.Addr, t.Name, record(t))
	name, qtype, err := dnsQuestion(t)
	if err != nil {
		return failed(what, err.Error())
	}
	query := dnsQuery(&name, qtype)
	c, hangUp, err := s.dialUDP(ctx, t)
	if err != nil {
		return broken(ctx, t, what, "socket", err)
	}
	defer hangUp()
	if _, err := c.Write(query); err != nil {
		return broken(ctx, t, what, "response", err)
	}
	var response [dnsResponseMax]byte
	for range dnsIgnoredMax {
		n, err := c.Read(response[:])
		if err != nil {
			return broken(ctx, t, what, "response", err)
		}
		if !dnsAnswers(query, response[:n]) {
			continue
		}
		rcode := response[3] & dnsRCode
		if rcode != 0 {
			return failed(what, rcodeName(rcode))
		}
		return passed(what, rcodeName(rcode))
	}
	return failed(what, fmt.Sprintf("%d datagrams that answer something else", dnsIgnoredMax))
}

// dnsQuery is a query with one question, recursion desired: a resolver may be
// what is checked.
func dnsQuery(name *wire.Name, qtype uint16) []byte {
	q := make([]byte, dnsHeader, dnsHeader+len(name.Wire())+4)
	binary.BigEndian.PutUint16(q, uint16(rand.Uint32()))
	q[2] = dnsRD
	q[5] = 1 // QDCOUNT
	q = append(q, name.Wire()...)
	q = binary.BigEndian.AppendUint16(q, qtype)
	return binary.BigEndian.AppendUint16(q, dnsClassIN)
}

// dnsAnswers reports whether a datagram is the response to the query: its id,
// its opcode and its question. A server that could not read the query may
// leave the question out (RFC 1035 section 4.1.1, FORMERR).
func dnsAnswers(query, response []byte) bool {
	if len(response) < dnsHeader || response[2]&dnsQR == 0 || response[2]&dnsOpcode != 0 ||
		!slices.Equal(response[:2], query[:2]) {
		return false
	}
	if response[4] == 0 && response[5] == 0 {
		return response[3]&dnsRCode != 0
	}
	return sameQuestion(response[dnsHeader:], query[dnsHeader:])
}

// sameQuestion compares two questions: names without regard to case (RFC 1035
// section 2.3.3; lengths of labels are below 64 and therefore not letters),
// type and class exactly.
func sameQuestion(a, b []byte) bool {
	lower := func(c byte) byte {
		if 'A' <= c && c <= 'Z' {
			return c | 0x20
		}
		return c
	}
	const typeAndClass = 4
	name := len(b) - typeAndClass
	return len(a) >= len(b) && slices.Equal(a[name:len(b)], b[name:]) &&
		slices.EqualFunc(a[:name], b[:name], func(x, y byte) bool { return lower(x) == lower(y) })
}

// dnsQuestion is what a target asks for.
func dnsQuestion(t *health.Target) (name wire.Name, qtype uint16, err error) {
	if t.Name == "" {
		return name, 0, fmt.Errorf("dns check: name: must be set to a name that the server has")
	}
	if name, err = wire.ParseName(t.Name); err != nil {
		return name, 0, fmt.Errorf("dns check: name %q: %w", t.Name, err)
	}
	if qtype = recordType(record(t)); qtype == 0 {
		return name, 0, fmt.Errorf("dns check: record %q: must be A, AAAA, NS, SOA, MX, TXT, SRV, PTR, CNAME or like TYPE65", t.Record)
	}
	return name, qtype, nil
}

func record(t *health.Target) string {
	if t.Record == "" {
		return "A"
	}
	return t.Record
}

// recordType is the number of an RR type by name, or as in RFC 3597 section 5;
// zero is none.
func recordType(s string) uint16 {
	switch s {
	case "A":
		return 1
	case "NS":
		return 2
	case "CNAME":
		return 5
	case "SOA":
		return 6
	case "PTR":
		return 12
	case "MX":
		return 15
	case "TXT":
		return 16
	case "AAAA":
		return 28
	case "SRV":
		return 33
	}
	const generic = "TYPE"
	if len(s) <= len(generic) || s[:len(generic)] != generic {
		return 0
	}
	n, err := strconv.ParseUint(s[len(generic):], 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// rcodeName is the usual name of a response code (RFC 1035 section 4.1.1).
func rcodeName(rcode byte) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if int(rcode) < len(names) {
		return names[rcode]
	}
	return "RCODE" + strconv.Itoa(int(rcode))
}
