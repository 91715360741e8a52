package fault_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

func TestHostile_ValuesLeaveTheGoodOnesServed(t *testing.T) {
	t.Parallel()
	r, err := fault.Hostile(t.Context(), newLab(t), 300, 1500)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d problems, %d log lines, the longest of %d octets, %d findings in %d octets, RSS %+d MiB to %d MiB",
		r.Problems, r.LogLines, r.LongestLine, len(r.Findings), r.FindingsSize, r.RSSMore>>20, r.RSS>>20)
	if r.Served != r.Good {
		t.Errorf("%d of %d good services are answered right", r.Served, r.Good)
	}
	if r.LogLines == 0 || r.LogLines > r.Bad || len(r.Forged) > 0 {
		t.Errorf("%d lines of the log are about %d bad keys, want one each at most; forged: %q", r.LogLines, r.Bad, r.Forged)
	}
	if r.LongestLine > 4096 {
		t.Errorf("a line of the log has %d octets, want at most 4096, however long the value is", r.LongestLine)
	}
	if r.RSSMore > 50<<20 {
		t.Errorf("the server has grown by %d MiB, want at most 50", r.RSSMore>>20)
	}
	if r.Panics != 0 {
		t.Errorf("%d panics", r.Panics)
	}
	if r.Problems < r.Bad/2 || len(r.Findings) == 0 || r.FindingsSize > 4<<20 {
		t.Errorf("%d problems and %d findings in %d octets, want most of %d keys, and a bound on what doctor says", r.Problems, len(r.Findings), r.FindingsSize, r.Bad)
	}
	for _, f := range r.Findings {
		if strings.HasPrefix(f.Subject, `"`+fault.Keys) && (f.Problem == "" || f.Mend == "") {
			t.Errorf("doctor's finding lacks a reason or a mend: %+v", f)
		}
		if strings.ContainsAny(f.Subject+f.Problem+f.Mend, "\n\r\x00\x1b\u2028") {
			t.Errorf("doctor's finding has control characters in it: %+q", f)
		}
	}
}

// TestHostile_NamesStayBelowTheirZone: in CVE-2022-2835 and CVE-2022-2837 whoever could
// make a service could give it the name of a host outside, and be asked in its place. A
// name of the registry is one below the zone that it was registered for, whatever it is
// called, and hides none of the zone's own.
func TestHostile_NamesStayBelowTheirZone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	write(t, l, "one.zone", zoneText("10.1.0.1"))
	write(t, l, "two.zone", zoneText("10.2.0.1"))
	e := etcd(t, l)
	const evil = "10.6.6.6"
	zone := strings.TrimSuffix(fault.Zone, ".")
	taken := []string{"one.test", "www.one.test", "test", "ns1", "localhost", "www.example.com", zone, "web." + zone, "other." + zone}
	for _, service := range taken {
		put(t, e, fault.Instance(service, "one"), evil+":80")
	}
	for _, key := range []string{
		"instances/one.test./one", "instances/../../one.test/one", "instances/*/one", "instances/@/one", "instances/./one",
		"instances/web/www.one.test.", "instances/web/../one", "instances/*.one.test/one",
	} {
		put(t, e, fault.Keys+key, evil+":80")
	}
	put(t, e, fault.Instance("last", "one"), "10.1.2.3:80")
	s := static(l)
	s.Etcd = e.URL
	c := dial(t, run(t, l, s))
	await(t, c, "last."+fault.Zone, dns.TypeA, fault.Has("10.1.2.3"))
	for _, service := range taken {
		if service != "ns1" {
			await(t, c, service+"."+fault.Zone, dns.TypeA, fault.Has(evil))
		}
	}
	for _, name := range []string{
		"one.test.", "www.one.test.", "ns1.one.test.", "test.", "localhost.", "www.example.com.", fault.Zone, "ns1." + fault.Zone,
		"web." + fault.Zone, "other." + fault.Zone, "*." + fault.Zone, "unregistered." + fault.Zone, ".", "two.test.",
	} {
		m, err := c.Ask(name, dns.TypeA)
		must(t, err)
		if strings.Contains(m.String(), evil) {
			t.Errorf("%s is answered by what is registered as something else:\n%s", name, m)
		}
	}
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.1"))
}
