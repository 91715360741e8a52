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

// skyKeys are records that CoreDNS and Muster read from one etcd: as people write them for
// CoreDNS, and as external-dns (provider coredns) does.
var skyKeys = map[string]string{
	"prod/web/a":      `{"host":"10.9.0.1","port":8080,"ttl":30}`,
	"prod/web/b":      `{"host":"10.9.0.2","port":8081,"priority":20,"ttl":60}`,
	"prod/six/a":      `{"host":"fd00::9","port":53}`,
	"prod/old":        `{"host":"b.web.prod.skydns.local"}`,
	"prod/mx/one":     `{"host":"mail.example.com","mail":true,"priority":7}`,
	"prod/mx/two":     `{"host":"10.9.0.7","mail":true}`,
	"prod/note":       `{"text":"hello there"}`,
	"ext/1a2b3c4d":    `{"host":"10.9.1.1","targetstrip":1}`,
	"ext/5e6f7a8b":    `{"host":"10.9.1.1","targetstrip":1}`,
	"ext/99999999":    `{"host":"10.9.1.2","targetstrip":1,"port":80}`,
	"dom/one":         `{"host":"10.9.2.1","group":"g1"}`,
	"dom/sub/two":     `{"host":"10.9.2.2","group":"g2"}`,
	"nosrv/a":         `{"host":"10.9.3.1","port":-1}`,
	"deep/a/b/c":      `{"host":"10.9.4.1","port":1}`,
	"deep/a/x/c":      `{"host":"10.9.4.2","port":1}`,
	"_tcp/_x/a":       `{"host":"10.9.5.1","port":5}`,
	"east/web1":       `{"host":"10.0.0.1","port":8080,"ttl":60}`,
	"east/web2":       `{"host":"10.0.0.2","port":8081,"priority":20,"ttl":60}`,
	"west/web3":       `{"host":"fd00::3","port":8080,"ttl":60}`,
	"one":             `{"host":"10.0.1.1","ttl":77}`,
	"unsaid":          `{"host":"10.0.1.2"}`,
	"named":           `{"host":"one.skydns.local","ttl":60}`,
	"elsewhere":       `{"host":"www.example.com","port":443,"ttl":60}`,
	"noted":           `{"text":"a note","ttl":60}`,
	"long":            `{"text":"` + strings.Repeat("0123456789", 30) + `","ttl":60}`,
	"post/mx1":        `{"host":"10.0.2.1","mail":true,"priority":15,"ttl":60}`,
	"post/mx2":        `{"host":"mail.example.com","mail":true,"ttl":60}`,
	"groups/a/x":      `{"host":"10.0.3.1","group":"g1","ttl":60}`,
	"groups/a/y":      `{"host":"10.0.3.2","group":"g2","ttl":60}`,
	"groups/a/deep/z": `{"host":"10.0.3.3","group":"g1","ttl":60}`,
	"same/a":          `{"host":"10.0.4.1","group":"g1","ttl":60}`,
	"same/deep/b":     `{"host":"10.0.4.2","group":"g2","ttl":60}`,
	"same/deep/c":     `{"host":"10.0.4.3","group":"g1","ttl":60}`,
	"same/deep/d":     `{"host":"10.0.4.4","ttl":60}`,
	"twice/a":         `{"host":"10.0.5.1","ttl":60}`,
	"twice/b":         `{"host":"10.0.5.1","ttl":60}`,
	"portless/a":      `{"host":"10.0.6.1","port":-1,"ttl":60}`,
	"portless/b":      `{"host":"10.0.6.2","port":53,"ttl":60}`,
	// external-dns: an A and a CNAME record, with the notes on who owns them.
	"app/0a1b2c3d":   `{"host":"10.0.7.1","text":"\"heritage=external-dns,external-dns/owner=default,external-dns/resource=ingress/default/app\"","ttl":90,"targetstrip":1}`,
	"app/4e5f6a7b":   `{"host":"10.0.7.2","ttl":90,"targetstrip":1}`,
	"a-app/0c1d2e3f": `{"text":"\"heritage=external-dns,external-dns/owner=default,external-dns/resource=ingress/default/app\"","targetstrip":1}`,
	"alias/1a2b3c4d": `{"host":"app.skydns.local","ttl":90,"targetstrip":1}`,
	// Reverse zones.
	"/arpa/in-addr/10/0/1/1":          `{"host":"one.skydns.local","ttl":60}`,
	"/arpa/in-addr/10/0/7/1/5a5a5a5a": `{"host":"below.skydns.local","ttl":60}`,
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
			got, err := skyAnswer(ctx, server, "started.skydns.local.", dns.TypeA)
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

// TestSkyDNS_AnswersAsCoreDNS compares the two servers on the same records.
func TestSkyDNS_AnswersAsCoreDNS(t *testing.T) {
	muster, coreDNS, e := startSky(t, newLab(t), skyKeys)
	t.Run("every type of a name", func(t *testing.T) { sameOfEveryType(t, muster, coreDNS) })
	t.Run("whole answers", func(t *testing.T) { sameWhole(t, muster, coreDNS) })
	t.Run("but for what is different on purpose", func(t *testing.T) { differOnPurpose(t, muster, coreDNS, e) })
}

// What CoreDNS's etcd plugin answers from the keys is what Muster does, but for what is
// different on purpose: weights as they are, TTLs, no CNAME beside addresses, one for
// every type where there are none, and no NXDOMAIN for a name that exists.
func sameOfEveryType(t *testing.T, muster, coreDNS string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, name := range skyNames {
		name += ".skydns.local."
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeMX, dns.TypeTXT, dns.TypeCNAME, dns.TypeHINFO} {
			want, err := skyAnswer(ctx, coreDNS, name, typ)
			if err != nil {
				t.Fatal(err)
			}
			got, err := skyAnswer(ctx, muster, name, typ)
			if typ == dns.TypeCNAME && want == "NXDOMAIN" && got == "NOERROR" {
				continue // the name exists, whatever it has: RFC 8020
			}
			if err != nil || got != want {
				t.Errorf("%s %s: %q, %v; CoreDNS: %q", name, dns.TypeToString[typ], got, err, want)
			}
		}
	}
}

// answered is an answer as lines: the response code, and the records of the answer section
// that edit, which may change them, says are to be there, sorted.
func answered(ctx context.Context, server, name string, typ uint16, edit func(dns.RR) bool) (string, error) {
	r, _, err := new(dns.Client).ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, typ), server)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, rr := range r.Answer {
		if edit(rr) {
			lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	slices.Sort(lines)
	return strings.Join(append([]string{dns.RcodeToString[r.Rcode]}, lines...), "\n"), nil
}

// skyAnswer is answered without TTLs, weights and the CNAMEs of other types' answers.
func skyAnswer(ctx context.Context, server, name string, typ uint16) (string, error) {
	return answered(ctx, server, name, typ, func(rr dns.RR) bool {
		rr.Header().Ttl = 0
		if srv, ok := rr.(*dns.SRV); ok {
			srv.Weight = 0
		}
		return rr.Header().Rrtype != dns.TypeCNAME || typ == dns.TypeCNAME
	})
}

// wholeAnswer is answered with all that there is.
func wholeAnswer(t *testing.T, server, name string, typ uint16) string {
	t.Helper()
	got, err := answered(t.Context(), server, name, typ, func(dns.RR) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// sameWhole compares answers with their TTLs, to questions whose answers differ in
// nothing: what external-dns writes, groups, reverse zones among them.
func sameWhole(t *testing.T, muster, coreDNS string) {
	type question struct {
		name  string
		qtype uint16
	}
	questions := []question{
		{"one", dns.TypeA},
		{"one", dns.TypeAAAA},
		{"one", dns.TypeTXT},
		{"one", dns.TypeSRV},
		{"web1.east", dns.TypeA},
		{"web1.east", dns.TypeSRV},
		{"web3.west", dns.TypeAAAA},
		{"west", dns.TypeAAAA},
		{"west", dns.TypeA},
		{"ONE", dns.TypeA},
		{"noted", dns.TypeTXT},
		{"noted", dns.TypeA},
		{"long", dns.TypeTXT},
		{"elsewhere", dns.TypeSRV},
		{"groups", dns.TypeA},
		{"a.groups", dns.TypeA},
		{"same", dns.TypeA},
		{"deep.same", dns.TypeA},
		{"twice", dns.TypeA},
		{"portless", dns.TypeA},
		{"b.portless", dns.TypeSRV},
		{"post", dns.TypeMX},
		{"app", dns.TypeA},
		{"0a1b2c3d.app", dns.TypeA},
		{"4e5f6a7b.app", dns.TypeSRV},
		{"named", dns.TypeCNAME},
		{"named", dns.TypeA},
		{"alias", dns.TypeA},
		{"1a2b3c4d.alias", dns.TypeCNAME},
		{"absent", dns.TypeA},
		{"absent.east", dns.TypeSRV},
		{"absent", dns.TypeTXT},
		{"one", dns.TypeHINFO},
		{"*.same", dns.TypeA},
		{"any.east", dns.TypeA},
		{"*.deep.same", dns.TypeA},
		{"web1.*", dns.TypeA},
	}
	for i := range questions {
		questions[i].name += ".skydns.local."
	}
	for _, q := range append(questions, question{"1.1.0.10.in-addr.arpa.", dns.TypePTR}, question{"9.9.9.10.in-addr.arpa.", dns.TypePTR}) {
		want, got := wholeAnswer(t, coreDNS, q.name, q.qtype), wholeAnswer(t, muster, q.name, q.qtype)
		if got != want {
			t.Errorf("%s %s\nMuster:  %s\nCoreDNS: %s", q.name, dns.TypeToString[q.qtype], got, want)
		}
	}
}

// differOnPurpose holds both servers to what README and the package say of the
// differences: if CoreDNS changes, so should they.
func differOnPurpose(t *testing.T, muster, coreDNS string, e *fault.Etcd) {
	putSky(t, e, map[string]string{
		"both": `{"host":"10.1.0.1","ttl":60}`, "both/x": `{"host":"10.1.0.2","ttl":60}`,
		"ttls/a": `{"host":"10.1.1.1","ttl":60}`, "ttls/b": `{"host":"10.1.1.2","ttl":30}`,
		"mixed": `{"host":"10.1.2.1","text":"a note","ttl":60}`,
		"bad/a": `{"host":"10.1.3.1","ttl":60}`, "bad/b": `{"host":`,
		"names/a": `{"host":"one.example.","ttl":60}`, "names/b": `{"host":"10.1.4.1","ttl":60}`,
		"parts/a": `{"host":"one.example","port":1,"weight":3,"ttl":60}`, "parts/b": `{"host":"two.example","port":1,"weight":1,"ttl":60}`,
	})
	putSky(t, e, map[string]string{"last": `{"host":"10.1.5.1"}`})
	c, err := fault.Dial(t.Context(), muster)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Await(t.Context(), "last.skydns.local.", dns.TypeA, fault.Has("10.1.5.1")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct {
		why, name       string
		qtype           uint16
		muster, coreDNS string
	}{
		{
			"a record is answered together with those below", "both", dns.TypeA,
			"NOERROR\nQ 60 IN A 10.1.0.1\nQ 60 IN A 10.1.0.2", "NOERROR\nQ 60 IN A 10.1.0.2",
		},
		{
			"a set has one TTL", "ttls", dns.TypeA,
			"NOERROR\nQ 30 IN A 10.1.1.1\nQ 30 IN A 10.1.1.2", "NOERROR\nQ 30 IN A 10.1.1.2\nQ 60 IN A 10.1.1.1",
		},
		{
			"an address with a text has both", "mixed", dns.TypeTXT,
			"NOERROR\nQ 60 IN TXT \"a note\"", "NOERROR",
		},
		{
			"a bad record hides no other", "bad", dns.TypeA,
			"NOERROR\nQ 60 IN A 10.1.3.1", "SERVFAIL",
		},
		{
			"an alias has no other data", "names", dns.TypeA,
			"NOERROR\nQ 60 IN A 10.1.4.1", "NOERROR\nQ 60 IN A 10.1.4.1\nQ 60 IN CNAME one.example.",
		},
		{
			"weights are those registered", "parts", dns.TypeSRV,
			"NOERROR\nQ 60 IN SRV 10 1 1 two.example.\nQ 60 IN SRV 10 3 1 one.example.", "NOERROR\nQ 60 IN SRV 10 25 1 two.example.\nQ 60 IN SRV 10 75 1 one.example.",
		},
		{
			"notes on owners are hidden", "a-app", dns.TypeTXT,
			"NOERROR", "NOERROR\nQ 300 IN TXT \"\\\"heritage=external-dns,external-dns/owner=default,external-dns/resource=ingress/default/app\\\"\"",
		},
		{"a name that fits nothing does not exist", "q.*", dns.TypeA, "NXDOMAIN", "NOERROR"},
		{
			"what has no TTL has the zone's", "unsaid", dns.TypeA,
			"NOERROR\nQ 5 IN A 10.0.1.2", "NOERROR\nQ 300 IN A 10.0.1.2",
		},
	} {
		name := d.name + ".skydns.local."
		for _, s := range []struct {
			server, at, want string
		}{{"Muster", muster, d.muster}, {"CoreDNS", coreDNS, d.coreDNS}} {
			got := strings.ReplaceAll(wholeAnswer(t, s.at, name, d.qtype), name+" ", "Q ")
			if got != s.want {
				t.Errorf("%s: %s says to %s %s\n%s\nwant\n%s", d.why, s.server, name, dns.TypeToString[d.qtype], got, s.want)
			}
		}
	}
}

// TestSkyDNS_StartsFromTheSnapshot begins without etcd: records that are no
// instances are answered as well as those that are.
func TestSkyDNS_StartsFromTheSnapshot(t *testing.T) {
	l := newLab(t)
	e, err := l.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	putSky(t, e, map[string]string{"east/web": `{"host":"10.9.0.1","port":80}`, "text": `{"text":"kept","host":"10.9.0.2"}`})
	settings := fault.Settings{Etcd: e.URL, Snapshot: l.Path("snapshot"), Zones: []string{"{name: skydns.local., source: skydns}"}}
	s, err := l.Run(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	c, err := fault.Dial(t.Context(), s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Await(t.Context(), "text.skydns.local.", dns.TypeA, fault.Has("10.9.0.2")); err != nil {
		t.Fatal(err)
	}
	s.Stop() // which writes the last snapshot
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if s, err = l.Serve(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(t.Context(), "east.skydns.local.", dns.TypeA, fault.Has("10.9.0.1")); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Fields(wholeAnswer(t, s.DNS, "text.skydns.local.", dns.TypeTXT)), `"kept"`; got[len(got)-1] != want {
		t.Errorf("the answer is %v, want %s", got, want)
	}
}
