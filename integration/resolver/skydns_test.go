package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// skyKeys are records that CoreDNS and Muster read from one etcd.
var skyKeys = map[string]string{
	"prod/web/a":   `{"host":"10.9.0.1","port":8080,"ttl":30}`,
	"prod/web/b":   `{"host":"10.9.0.2","port":8081,"priority":20,"ttl":60}`,
	"prod/six/a":   `{"host":"fd00::9","port":53}`,
	"prod/old":     `{"host":"b.web.prod.skydns.local"}`,
	"prod/mx/one":  `{"host":"mail.example.com","mail":true,"priority":7}`,
	"prod/mx/two":  `{"host":"10.9.0.7","mail":true}`,
	"prod/note":    `{"text":"hello there"}`,
	"ext/1a2b3c4d": `{"host":"10.9.1.1","targetstrip":1}`,
	"ext/5e6f7a8b": `{"host":"10.9.1.1","targetstrip":1}`,
	"ext/99999999": `{"host":"10.9.1.2","targetstrip":1,"port":80}`,
	"dom/one":      `{"host":"10.9.2.1","group":"g1"}`,
	"dom/sub/two":  `{"host":"10.9.2.2","group":"g2"}`,
	"nosrv/a":      `{"host":"10.9.3.1","port":-1}`,
	"deep/a/b/c":   `{"host":"10.9.4.1","port":1}`,
	"deep/a/x/c":   `{"host":"10.9.4.2","port":1}`,
	"_tcp/_x/a":    `{"host":"10.9.5.1","port":5}`,
}

// skyNames are asked for every type.
var skyNames = []string{
	"a.web.prod", "web.prod", "six.prod", "old.prod", "mx.prod", "note.prod", "ext", "1a2b3c4d.ext", "dom", "sub.dom", "two.sub.dom",
	"nosrv", "deep", "b.a.deep", "c.*.a.deep", "*.a.deep", "any.any.a.deep", "_x._tcp", "nope", "x.a.web.prod", "nope.deep",
}

// startSky starts Muster and CoreDNS on an etcd with keys below the zones, and returns
// where they answer.
func startSky(t *testing.T, l *fault.Lab, keys map[string]string) (muster, other string, e *fault.Etcd) {
	t.Helper()
	e, err := l.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	putSky(t, e, keys)
	s, err := l.Run(t.Context(), fault.Settings{Etcd: e.URL, Zones: []string{
		"{name: skydns.local, source: skydns}", "{name: 10.in-addr.arpa, source: skydns}",
	}})
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	runCoreDNS(t, fmt.Sprintf(`skydns.local:%[1]s 10.in-addr.arpa:%[1]s {
    bind 127.0.0.1
    errors
    etcd {
        path /skydns
        endpoint %[2]s
    }
}
`, port, e.URL))
	other = "127.0.0.1:" + port
	putSky(t, e, map[string]string{"started": `{"host":"10.9.255.1"}`})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, server := range []string{s.DNS, other} {
		if err := fault.Until(ctx, 20*time.Millisecond, func() error {
			got, err := skyAnswer(ctx, server, "started", dns.TypeA)
			if err == nil && !strings.Contains(got, "10.9.255.1") {
				err = errors.New(got)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return s.DNS, other, e
}

// putSky puts keys of skydns.local, and those that begin with a slash of any zone.
func putSky(t *testing.T, e *fault.Etcd, keys map[string]string) {
	t.Helper()
	for path, value := range keys {
		if path[0] != '/' {
			path = "/local/skydns/" + path
		}
		if _, err := e.Put(t.Context(), "/skydns"+path, value); err != nil {
			t.Fatal(err)
		}
	}
}

// What CoreDNS's etcd plugin answers from the keys is what Muster does, but for what is
// different on purpose: weights as they are, TTLs, no CNAME beside addresses, one for
// every type where there are none, and no NXDOMAIN for a name that exists.
func TestSkyDNS_AnswersAsCoreDNS(t *testing.T) {
	muster, coreDNS, _ := startSky(t, newLab(t), skyKeys)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, name := range skyNames {
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeMX, dns.TypeTXT, dns.TypeCNAME, dns.TypeHINFO} {
			want, err := skyAnswer(ctx, coreDNS, name, typ)
			if err != nil {
				t.Fatal(err)
			}
			got, err := skyAnswer(ctx, muster, name, typ)
			if typ == dns.TypeCNAME && want == "NXDOMAIN " && got == "NOERROR " {
				continue // the name exists, whatever it has: RFC 8020
			}
			if err != nil || got != want {
				t.Errorf("%s %s: %q, %v; CoreDNS: %q", name, dns.TypeToString[typ], got, err, want)
			}
		}
	}
}

// skyAnswer is the response code and the answer section, sorted, without TTLs, weights
// and the CNAMEs of other types' answers.
func skyAnswer(ctx context.Context, server, name string, typ uint16) (string, error) {
	m := new(dns.Msg)
	m.SetQuestion(name+".skydns.local.", typ)
	r, _, err := new(dns.Client).ExchangeContext(ctx, m, server)
	if err != nil {
		return "", err
	}
	var out []string
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == dns.TypeCNAME && typ != dns.TypeCNAME {
			continue
		}
		rr.Header().Ttl = 0
		if srv, ok := rr.(*dns.SRV); ok {
			srv.Weight = 0
		}
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	slices.Sort(out)
	return dns.RcodeToString[r.Rcode] + " " + strings.Join(out, "; "), nil
}
