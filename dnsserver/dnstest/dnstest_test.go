package dnstest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// recorder is a test that takes down its complaints, and ends with a panic of
// this type where a test would end.
type recorder struct {
	testing.TB
	complaints []string
}

type ended struct{}

func (r *recorder) Helper()             {}
func (r *recorder) Failed() bool        { return len(r.complaints) > 0 }
func (r *recorder) Error(a ...any)      { r.complaints = append(r.complaints, fmt.Sprint(a...)) }
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Fatalf(format string, a ...any) {
	r.Error(fmt.Sprintf(format, a...))
	panic(ended{})
}

// TestWant_ComplainsOfWhatDiffers and of nothing else: what it lets pass is what
// all tests let pass.
func TestWant_ComplainsOfWhatDiffers(t *testing.T) {
	resp := new(dns.Msg)
	resp.SetQuestion("a.", dns.TypeA)
	resp.Response, resp.Authoritative, resp.RecursionDesired = true, true, false
	for _, line := range []string{"a. 5 IN A 10.0.0.1", "a. 5 IN A 10.0.0.2"} {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		resp.Answer = append(resp.Answer, rr)
	}
	resp.SetEdns0(1232, false)
	resp.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 3}}
	both := []string{"answer a. 5 IN A 10.0.0.2", "answer a. 5 IN A 10.0.0.1"}
	for _, row := range []struct {
		status string
		lines  []string
		want   string // in the one complaint; empty: none
	}{
		{"NOERROR qr aa edns ede=3; !tc !ra !rd !do !ede=4", both, ""},
		{"NOERROR", []string{"answer a. * IN A 10.0.0.1", "answer a. 5 IN A 10.0.0.2"}, ""},
		{"NXDOMAIN", both, "code NOERROR, want NXDOMAIN"},
		{"NOERROR ra", both, "flag ra"},
		{"NOERROR; !aa", both, "flag aa"},
		{"NOERROR ede=4", both, "flag ede=4"},
		{"NOERROR; !ede", both, "flag ede"},
		{"NOERROR qt", both, "no such flag: qt"},
		{"", both, "no response code"},
		{"NOERROR", both[:1], "10.0.0.1"},
		{"NOERROR", append([]string{"authority a. 5 IN A 10.0.0.3"}, both...), "10.0.0.3"},
		{"NOERROR", []string{"answer a. 6 IN A 10.0.0.1", both[0]}, "a. 6"},
	} {
		r := &recorder{TB: t}
		dnstest.Want(r, resp, row.status, row.lines...)
		got := r.complaints
		if row.want == "" && len(got) != 0 || row.want != "" && (len(got) != 1 || !strings.Contains(got[0], row.want)) {
			t.Errorf("%s %q: complaints %q, want %q", row.status, row.lines, got, row.want)
		}
	}
}

// handler answers with the question alone, and keeps the last query it saw.
type handler struct{ queries chan string }

func (h handler) ServeDNS(_ *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	h.queries <- fmt.Sprint(from.Transport, " ", q.Name.String(), " ", q.Type, " ", q.Class, " rd=", q.RD, " cd=", q.CD, " ad=", q.AD,
		" edns=", q.EDNS, " do=", q.DO, " size=", q.UDPSize, " nsid=", q.Asked&wire.AskedNSID != 0)
	return dnsserver.Send
}

func TestServer_Query_Words(t *testing.T) {
	h := handler{make(chan string, 1)}
	s := dnstest.Start(t, h)
	for question, want := range map[string]string{
		"a. TYPE65280": "udp a. TYPE65280 IN rd=false cd=false ad=false edns=false do=false size=512 nsid=false",
		"a. A +edns":   "udp a. A IN rd=false cd=false ad=false edns=true do=false size=1232 nsid=false",
		"web.svc.internal srv +tcp +bufsize=4096 +dnssec +nsid +recurse +cd +ad +ch": "tcp web.svc.internal. SRV CH rd=true cd=true ad=true edns=true do=true size=4096 nsid=true",
	} {
		dnstest.Want(t, s.Query(t, question), "NOERROR qr")
		if got := <-h.queries; got != want {
			t.Errorf("%s: the server saw\n%s, want\n%s", question, got, want)
		}
	}
	dnstest.Want(t, s.Query(t, "a. SOA +opcode=4"), "NOTIMP qr")
	for _, bad := range []string{"", "a.", "a. NOSUCH", "a. A +nosuch", "a. A +bufsize=x", "a. TYPE65536"} {
		r := &recorder{TB: t}
		func() {
			defer func() {
				if v := recover(); v != (ended{}) {
					t.Errorf("%q is taken for a question (%v)", bad, v)
				}
			}()
			s.Query(r, bad)
		}()
	}
}
