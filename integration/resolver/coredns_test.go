package resolver_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// startCoreDNS starts CoreDNS, and returns the port where it forwards
// as the README configures it, and the one where it has a cache as the README
// allows it.
func startCoreDNS(t *testing.T, addr string) (plain, caching string) {
	t.Helper()
	plain, caching = freePort(t), freePort(t)
	runCoreDNS(t, fmt.Sprintf(`svc.internal:%[1]s {
    bind 127.0.0.1
    errors
    forward . %[3]s
}
svc.internal:%[2]s {
    bind 127.0.0.1
    errors
    cache {
        success 1000 3600 0
        denial 1000 3600 0
    }
    forward . %[3]s
}
`, plain, caching, addr))
	return plain, caching
}

// runCoreDNS starts CoreDNS on a Corefile.
func runCoreDNS(t *testing.T, corefile string) {
	t.Helper()
	argv, err := program.CoreDNS(t.Context(), t.TempDir(), corefile)
	if err != nil {
		t.Fatal(err)
	}
	start(t, argv...)
}

func TestCoreDNS_PassesAnswersOn(t *testing.T) {
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	register(t, l, "one", "10.9.0.1")
	plain, caching := startCoreDNS(t, s.DNS)
	for name, port := range map[string]string{"without a cache": plain, "with a cache": caching} {
		t.Run(name, func(t *testing.T) {
			c, err := fault.Dial(t.Context(), net.JoinHostPort("127.0.0.1", port))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Await(t.Context(), "web."+fault.Zone, dns.TypeA, fault.Has("10.9.0.1")); err != nil {
				t.Fatal(err) // CoreDNS has not started
			}
			passesOn(t, c)
		})
	}
}

// passesOn fails the test unless the answers are as Muster gives them.
func passesOn(t *testing.T, c *fault.Client) {
	t.Helper()
	ask := func(name string, qtype uint16, rcode int) *dns.Msg {
		t.Helper()
		m, err := c.Ask(name+fault.Zone, qtype)
		if err != nil {
			t.Fatal(err)
		}
		if m.Rcode != rcode {
			t.Errorf("%s %s: %s, want %s", name, dns.TypeToString[qtype], dns.RcodeToString[m.Rcode], dns.RcodeToString[rcode])
		}
		return m
	}
	srv := ask("web.", dns.TypeSRV, dns.RcodeSuccess)
	if len(srv.Answer) != 1 || srv.Answer[0].(*dns.SRV).Target != "one.web."+fault.Zone || srv.Answer[0].(*dns.SRV).Port != 8080 {
		t.Errorf("the answer is %v, want port 8080 of one.web", srv.Answer)
	}
	addresses := 0
	for _, rr := range srv.Extra {
		if a, ok := rr.(*dns.A); ok && a.A.String() == "10.9.0.1" && a.Hdr.Name == "one.web."+fault.Zone {
			addresses++
		}
	}
	if addresses != 1 {
		t.Errorf("the additional section is %v, want the address of one.web", srv.Extra)
	}
	for _, m := range []*dns.Msg{
		ask("absent.", dns.TypeA, dns.RcodeNameError),
		ask("web.", dns.TypeMX, dns.RcodeSuccess), // NODATA
	} {
		if len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA || m.Ns[0].Header().Ttl > uint32(negativeTTL/time.Second) {
			t.Errorf("%s: answer %v, authority %v; want the SOA alone, for %s", m.Question[0].Name, m.Answer, m.Ns, negativeTTL)
		}
	}
}

// negativeTTL is for how long a name or a type may be taken not to exist.
const negativeTTL = 2 * time.Second
