package authority_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
)

// TestHandler_ServeSlow_isHardToForge: ids or ports that can be told from those before
// let others answer in an upstream's place (RFC 5452): CVE-2019-19794 were ids,
// CVE-2023-28454 ports, CVE-2023-30464 what was kept of such answers. Nothing is kept
// here: whoever guesses both has one client's answer.
func TestHandler_ServeSlow_isHardToForge(t *testing.T) {
	const asks = 64
	r := newResolver(t, answering("192.0.2.77"))
	h := forwarding(t, long, r)
	q := ask("www.elsewhere.test.", false)
	for range asks { // with the same id each time
		forward(t, h, q, dnsserver.UDP)
	}
	ids, ports, steps := map[uint16]bool{}, map[uint16]bool{}, map[uint16]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, up := range r.asked {
		ids[up.Id] = true
		ports[netip.MustParseAddrPort(r.froms[i]).Port()] = true
		if i > 0 {
			steps[up.Id-r.asked[i-1].Id] = true
		}
	}
	// By chance 64 of 65,536 ids have three alike once in ten thousand times.
	if len(r.asked) != asks || len(ids) < asks-6 || len(steps) < asks-6 {
		t.Errorf("%d questions with %d ids and %d differences between them", len(r.asked), len(ids), len(steps))
	}
	if len(ports) < asks/2 {
		t.Errorf("%d questions from %d ports", asks, len(ports))
	}
}

// TestHandler_ServeSlow_strayAnswers: what is no answer to the question is passed over,
// and is no reason to give up (TuDoor made resolvers do so).
func TestHandler_ServeSlow_strayAnswers(t *testing.T) {
	bend := map[string]func(m *dns.Msg){
		"another id":       func(m *dns.Msg) { m.Id++ },
		"a question":       func(m *dns.Msg) { m.Response = false },
		"another name":     func(m *dns.Msg) { m.Question[0].Name = "www.elsewhere.testy." },
		"another type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"another class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"no question":      func(m *dns.Msg) { m.Question = nil },
		"two questions":    func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"another opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"FORMERR, no name": func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeFormatError, nil },
	}
	r := newResolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		for _, f := range bend {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 77}, A: []byte{6, 6, 6, 6}}}
			m.Question = append([]dns.Question(nil), m.Question...)
			f(m)
			_ = w.WriteMsg(m)
		}
		_, _ = w.Write([]byte{1, 2, 3})
		answering("192.0.2.77")(w, q)
	})
	began := time.Now()
	m := forward(t, forwarding(t, long, r), ask("www.elsewhere.test.", false), dnsserver.UDP)
	if got := texts(m.Answer); len(got) != 1 || got[0] != "www.elsewhere.test. 77 IN A 192.0.2.77" {
		t.Errorf("answer %q", got)
	}
	if took := time.Since(began); took > long/4 {
		t.Errorf("after %s", took)
	}
}
