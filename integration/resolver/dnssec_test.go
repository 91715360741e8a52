package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// signedStill is a static zone with all that a proof may be needed for.
const signedStill = `$TTL 60
@ SOA ns1 hostmaster 1 60 10 86400 60
@ NS ns1
@ ALIAS web.live.test.
ns1 A 192.0.2.1
www A 192.0.2.7
alias CNAME www
live CNAME web.live.test.
*.wild A 192.0.2.9
*.wildc CNAME www
a.b.ent TXT "x"
sub NS ns.sub
ns.sub A 192.0.2.99
secure NS ns.sub
secure DS 1 13 2 F946C0B78A4B5664596BCCD5E4979AD5EFD20A3984DD71E0B2FDA5B176AE7E66
mx MX 10 WWW
`

// questions are asked of signed zones; each answer must validate, whatever it is.
var signedQuestions = []struct{ zone, name, typ string }{
	{"live.test", "web.live.test", "A"},
	{"live.test", "web.live.test", "AAAA"},
	{"live.test", "web.live.test", "SRV"},
	{"live.test", "web.live.test", "HTTPS"},
	{"live.test", "web.live.test", "MX"},
	{"live.test", "one.web.live.test", "A"},
	{"live.test", "_https._tcp.live.test", "PTR"},
	{"live.test", "_tcp.live.test", "A"},
	{"live.test", "nope.live.test", "A"},
	{"live.test", "a.b.nope.live.test", "A"},
	{"live.test", "web.live.test", "NSEC"}, // was denied by a record that said it was there
	{"live.test", "nope.live.test", "NSEC"},
	{"live.test", "live.test", "SOA"},
	{"live.test", "live.test", "NS"},
	{"live.test", "live.test", "DNSKEY"},
	{"live.test", "live.test", "CDS"},
	{"still.test", "still.test", "A"},
	{"still.test", "still.test", "AAAA"},
	{"still.test", "still.test", "MX"},
	{"still.test", "www.still.test", "A"},
	{"still.test", "www.still.test", "TXT"},
	{"still.test", "alias.still.test", "A"},
	{"still.test", "x.wild.still.test", "A"},
	{"still.test", "x.wild.still.test", "TXT"},
	{"still.test", "x.wildc.still.test", "A"},
	{"still.test", "b.ent.still.test", "A"},
	{"still.test", "nope.still.test", "A"},
	{"still.test", "a.nope.still.test", "A"},
	{"still.test", "mx.still.test", "MX"},
	{"still.test", "secure.still.test", "DS"},
	{"still.test", "sub.still.test", "DS"},
	{"still.test", "still.test", "CDNSKEY"},
}

// signedServer is a server with a signed service zone and a signed static zone.
func signedServer(t *testing.T) (host, port string, anchors map[string]string) {
	t.Helper()
	l := newLab(t)
	anchors = map[string]string{}
	keys := l.Path("keys")
	for zone, algorithm := range map[string]string{"live.test": "ECDSAP256SHA256", "still.test": "ED25519"} {
		run(t, l, "keys", "generate", "--zone", zone, "--dir", keys, "--algorithm", algorithm, "--cds")
		list, err := l.CLI(t.Context(), "keys", "list", "--zone", zone, "--dir", keys)
		if err != nil {
			t.Fatal(err)
		}
		anchors[zone], _, _ = strings.Cut(list, ";")
	}
	// Its name server has the address that it is asked at, for those that go by it.
	write(t, l.Path("still.zone"), strings.Replace(signedStill, "ns1 A 192.0.2.1\n", "ns1 A "+l.Addr(1).String()+"\n", 1))
	s, err := l.Run(t.Context(), fault.Settings{Zones: []string{
		fmt.Sprintf("{name: live.test, source: muster, prefix: /live/v1, dnssec: %q}", keys),
		fmt.Sprintf("{name: still.test, file: %q, dnssec: %q}", l.Path("still.zone"), keys),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"one", "two", "three"} {
		run(t, l, "register", "web", "--zone", "live.test", "--id", id, "--address", fmt.Sprintf("10.9.0.%d", i+1), "--port", "8080", "--named-port", "https=443", "--check", "none", "--forever")
	}
	host, port, err = net.SplitHostPort(s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	return host, port, anchors
}

func TestDelv_ValidatesEveryAnswer(t *testing.T) {
	host, port, anchors := signedServer(t)
	delv := find(t, "delv", "bind9-dnsutils")
	for zone, key := range anchors {
		for _, q := range signedQuestions {
			if q.zone != zone {
				continue
			}
			if err := validate(t, delv, host, port, key, q.name, q.typ); err != nil {
				t.Error(err)
			}
		}
	}
}

// validate asks by delv, which trusts a zone's key alone.
func validate(t *testing.T, delv, host, port, key, name, typ string) error {
	t.Helper()
	f := strings.Fields(key) // ZONE IN DNSKEY FLAGS PROTOCOL ALGORITHM KEY
	file := filepath.Join(t.TempDir(), "anchor")
	write(t, file, fmt.Sprintf("trust-anchors { %q static-key %s %s %s %q; };\n", f[0], f[3], f[4], f[5], f[6]))
	out, err := exec.CommandContext(t.Context(), delv, "@"+host, "-p", port, "-a", file, "+root="+f[0], name, typ).CombinedOutput()
	if err == nil && (!strings.Contains(string(out), "fully validated") || strings.Contains(string(out), "insecur")) {
		err = errNotValid
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, typ, err, out)
	}
	return nil
}

var (
	errNotValid = errors.New("not validated")
	errBogus    = errors.New("SERVFAIL")
)

func TestUnbound_ValidatesEveryAnswer(t *testing.T) {
	host, port, anchors := signedServer(t)
	ask := startValidating(t, host, port, anchors)
	for _, q := range signedQuestions {
		if err := ask(q.name, q.typ); err != nil {
			t.Errorf("%s %s: %v", q.name, q.typ, err)
		}
	}
}

// startValidating starts an unbound that trusts the zones' keys, and returns how to ask
// it: an answer that it does not authenticate is an error, errBogus if it has none.
func startValidating(t *testing.T, host, port string, anchors map[string]string) (ask func(name, typ string) error) {
	t.Helper()
	u := program.Unbound{
		Dir: t.TempDir(), Listen: freeAddr(t), Server: netip.MustParseAddrPort(net.JoinHostPort(host, port)),
		More: []string{`module-config: "validator iterator"`, `local-zone: "test" nodefault`},
	}
	for zone, key := range anchors {
		u.More = append(u.More, fmt.Sprintf("trust-anchor: %q", strings.TrimSpace(key)))
		u.Zones = append(u.Zones, zone)
	}
	argv, err := u.Command()
	if err != nil {
		t.Fatal(err)
	}
	start(t, argv...)
	listen := fmt.Sprint(u.Listen.Port())
	dig := find(t, "dig", "bind9-dnsutils")
	return func(name, typ string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var unsigned error
		err := fault.Until(ctx, 50*time.Millisecond, func() error { // it is starting
			out, err := exec.CommandContext(ctx, dig, "@127.0.0.1", "-p", listen, "+dnssec", "+tries=1", name, typ).CombinedOutput()
			switch {
			case err != nil:
				return err
			case strings.Contains(string(out), "SERVFAIL"):
				return fmt.Errorf("%w:\n%s", errBogus, out)
			case !strings.Contains(string(out), " ad;") && !strings.Contains(string(out), " ad "):
				unsigned = fmt.Errorf("%w:\n%s", errNotValid, out)
			}
			return nil
		})
		return errors.Join(err, unsigned)
	}
}

func TestSignatures_AreThereForNearlyEveryAnswer(t *testing.T) {
	l := newLab(t)
	run(t, l, "keys", "generate", "--zone", "live.test", "--dir", l.Path("keys"))
	s, err := l.Run(t.Context(), fault.Settings{Zones: []string{fmt.Sprintf("{name: live.test, source: muster, prefix: /live/v1, dnssec: %q}", l.Path("keys"))}})
	if err != nil {
		t.Fatal(err)
	}
	const instances, questions = 50, 20_000
	for i := range instances {
		run(t, l, "register", "web", "--zone", "live.test", "--id", fmt.Sprintf("w%d", i), "--address", fmt.Sprintf("10.9.0.%d", i+1),
			"--port", "8080", "--weight", fmt.Sprint(1+i%3), "--check", "none", "--forever")
	}
	c, err := dns.Dial("udp", s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := new(dns.Msg)
	m.SetQuestion("web.live.test.", dns.TypeA)
	m.SetEdns0(1232, true)
	counts := map[string]int{}
	for range questions {
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		r, err := c.ReadMsg()
		if err != nil || len(r.Answer) != 2 {
			t.Fatalf("%v, %v", r, err)
		}
		counts[r.Answer[0].(*dns.A).A.String()]++
	}
	found, err := s.Metric(t.Context(), "muster_dns_signatures_found_total")
	if err != nil {
		t.Fatal(err)
	}
	missed, err := s.Metric(t.Context(), "muster_dns_signatures_missed_total")
	if err != nil {
		t.Fatal(err)
	}
	if rate := found / (found + missed); rate < 0.99 {
		t.Errorf("%.2f %% of the signatures were there: %v found, %v made", 100*rate, found, missed)
	}
	// Of a turn at most 16 choices are answered.
	if len(counts) > 2*16 {
		t.Errorf("%d instances were answered in a turn or two", len(counts))
	}
}

// TestCompactDenial_RCode asks for a name that is not there, with and without saying
// that NXDOMAIN is understood beside compact denial (RFC 9824 section 5.1).
func TestCompactDenial_RCode(t *testing.T) {
	host, port, _ := signedServer(t)
	const do, co = 0x8000, 0x4000
	for _, tt := range []struct {
		name  string
		flags uint32
		rcode int
		want  uint32
	}{
		{"nope.live.test.", 0, dns.RcodeNameError, 0},
		{"nope.live.test.", co, dns.RcodeNameError, 0},
		{"nope.live.test.", do, dns.RcodeSuccess, do},
		{"nope.live.test.", do | co, dns.RcodeNameError, do | co},
		{"web.live.test.", do | co, dns.RcodeSuccess, do | co},
		{"nope.still.test.", do | co, dns.RcodeNameError, do}, // denied by NSEC of the file
	} {
		m := new(dns.Msg).SetQuestion(tt.name, dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Hdr.Ttl = tt.flags
		r, _, err := new(dns.Client).ExchangeContext(t.Context(), m, net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.IsEdns0().Hdr.Ttl; r.Rcode != tt.rcode || got != tt.want {
			t.Errorf("%s, flags %#x: %s, flags %#x, want %s, %#x", tt.name, tt.flags, dns.RcodeToString[r.Rcode], got, dns.RcodeToString[tt.rcode], tt.want)
		}
	}
}

// TestCompactDenial_ListsEveryType: resolvers go by the types of an NSEC record for other
// questions (RFC 8198), so it must have all that are answered. MX was missing, and A where
// SkyDNS has a host's name.
func TestCompactDenial_ListsEveryType(t *testing.T) {
	l := newLab(t)
	run(t, l, "keys", "generate", "--zone", "skydns.local", "--dir", l.Path("keys"))
	e, err := l.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	putSky(t, e, skyKeys)
	run(t, l, "keys", "generate", "--zone", "live.test", "--dir", l.Path("keys"))
	s, err := l.Run(t.Context(), fault.Settings{Etcd: e.URL, Zones: []string{
		fmt.Sprintf("{name: skydns.local, source: skydns, dnssec: %q}", l.Path("keys")),
		fmt.Sprintf("{name: live.test, source: muster, prefix: /live/v1, dnssec: %q}", l.Path("keys")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, "register", "web", "--zone", "live.test", "--id", "one", "--address", "10.9.0.1", "--port", "8080", "--named-port", "https=443", "--check", "none", "--forever")
	names := []string{"live.test.", "ns1.live.test.", "web.live.test.", "one.web.live.test.", "_tcp.web.live.test.", "_https._tcp.web.live.test.", "_https._tcp.live.test.", "skydns.local."}
	for _, name := range skyNames {
		if !strings.Contains(name, "*") && !strings.Contains(name, "any") {
			names = append(names, name+".skydns.local.")
		}
	}
	ask := func(name string, typ uint16) *dns.Msg {
		t.Helper()
		m := new(dns.Msg).SetQuestion(name, typ)
		m.SetEdns0(4096, true)
		r, err := dns.ExchangeContext(t.Context(), m, s.DNS)
		if err == nil && r.Truncated {
			r, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), m, s.DNS)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, name := range names {
		denied := ask(name, dns.TypeLOC)
		at := slices.IndexFunc(denied.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNSEC })
		if at < 0 {
			if len(denied.Answer) == 0 { // but for CNAME records
				t.Errorf("%s LOC is denied without NSEC: %s", name, denied)
			}
			continue
		}
		listed := denied.Ns[at].(*dns.NSEC).TypeBitMap
		for typ := uint16(1); typ < dns.TypeANY; typ++ {
			if typ == dns.TypeCNAME {
				continue // SkyDNS has them for some types, and no NSEC record can say so
			}
			has := len(ask(name, typ).Answer) > 0
			if has && !slices.Contains(listed, typ) {
				t.Errorf("%s has %s, and its NSEC record says %v", name, dns.TypeToString[typ], listed)
			}
			if !has && slices.Contains(listed, typ) && typ != dns.TypeNXNAME {
				t.Errorf("%s has no %s, and its NSEC record says %v", name, dns.TypeToString[typ], listed)
			}
		}
	}
}
