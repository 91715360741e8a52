package zones_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// hashedZone is a zone with NSEC3 records, made by the hash of another library, and
// signatures of nobody.
func hashedZone(tb testing.TB) (z *zones.Zone, hash func(string) string) {
	tb.Helper()
	return hashedZoneOf(tb, "1 0 3 c0ffee")
}

// hashedZoneOf is hashedZone with NSEC3PARAM records of the caller's.
func hashedZoneOf(tb testing.TB, params ...string) (z *zones.Zone, hash func(string) string) {
	tb.Helper()
	const iterations, salt = 3, "c0ffee"
	hash = func(name string) string { return strings.ToLower(dns.HashName(name, dns.SHA1, iterations, salt)) }
	sig := func(owner, typ string) string {
		return fmt.Sprintf("%s 60 RRSIG %s 13 2 60 20380101000000 20200101000000 1 z.test. AAAA", owner, typ)
	}
	lines := []string{
		sig("z.test.", "SOA"), sig("z.test.", "NSEC3PARAM"),
		"www.z.test. 60 A 192.0.2.1", "*.w.z.test. 60 A 192.0.2.2", "a.ent.z.test. 60 A 192.0.2.3",
		"out.left.z.test. 60 NS ns.", "sub.z.test. 60 NS ns.",
	}
	for _, p := range params {
		lines = append(lines, "z.test. 60 NSEC3PARAM "+p)
	}
	var hashes []string
	for _, name := range []string{"z.test.", "www.z.test.", "w.z.test.", "*.w.z.test.", "ent.z.test.", "a.ent.z.test.", "sub.z.test."} {
		hashes = append(hashes, hash(name))
	}
	slices.Sort(hashes)
	for i, h := range hashes {
		owner := h + ".z.test."
		lines = append(lines, fmt.Sprintf("%s 60 NSEC3 1 1 3 c0ffee %s A RRSIG", owner, hashes[(i+1)%len(hashes)]), sig(owner, "NSEC3"))
	}
	return zone(tb, "z.test.", lines...), hash
}

// denies reports whether an NSEC3 record is of a name, or covers it.
func denies(rr *dns.NSEC3, name string) string {
	switch {
	case rr.Match(name):
		return "is of " + name
	case rr.Cover(name):
		return "covers " + name
	}
	return ""
}

func TestZone_Deny_hashed(t *testing.T) {
	z, hash := hashedZone(t)
	tr := tree(t, z)
	if !z.Signed() {
		t.Fatal("the zone is not signed")
	}
	tests := []struct {
		name string
		typ  wire.Type
		kind zones.Kind
		want []string // of RFC 5155 section 7.2
	}{
		{"www.z.test.", wire.TypeTXT, zones.NoData, []string{"is of www.z.test."}},
		{"ent.z.test.", wire.TypeA, zones.NoData, []string{"is of ent.z.test."}},
		{"no.z.test.", wire.TypeA, zones.NXDomain, []string{"is of z.test.", "covers no.z.test.", "covers *.z.test."}},
		{"x.no.ent.z.test.", wire.TypeA, zones.NXDomain, []string{"is of ent.z.test.", "covers no.ent.z.test.", "covers *.ent.z.test."}},
		{"x.y.w.z.test.", wire.TypeTXT, zones.NoData, []string{"is of w.z.test.", "covers y.w.z.test.", "is of *.w.z.test."}},
		{"x.y.w.z.test.", wire.TypeA, zones.Found, []string{"covers y.w.z.test."}},
		{"sub.z.test.", wire.TypeDS, zones.NoData, []string{"is of sub.z.test."}},
		{"out.left.z.test.", wire.TypeDS, zones.NoData, []string{"is of z.test.", "covers left.z.test."}}, // opt-out has left out both
		{"left.z.test.", wire.TypeA, zones.NoData, []string{"is of z.test.", "covers left.z.test."}},
		{hash("www.z.test.") + ".z.test.", wire.TypeNSEC3, zones.NXDomain, []string{"is of z.test.", "covers " + hash("www.z.test.") + ".z.test.", "covers *.z.test."}}, // section 7.2.8
		{"x." + hash("www.z.test.") + ".z.test.", wire.TypeA, zones.NXDomain, []string{"is of z.test.", "covers " + hash("www.z.test.") + ".z.test.", "covers *.z.test."}},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.typ.String(), func(t *testing.T) {
			n := name(t, tt.name)
			var a zones.Answer
			tr.Lookup(&n, tt.typ, &a)
			if a.Kind != tt.kind {
				t.Fatalf("found %v, want %v", a.Kind, tt.kind)
			}
			b := start(t, tt.name, tt.typ)
			if !z.Deny(b, &n, &a) {
				t.Fatal("does not fit")
			}
			holds(t, b, tt.want)
		})
	}
}

// TestZone_Signed_params: of the NSEC3PARAM records that one is gone by that a chain is
// there of (RFC 5155 section 7.3), and none that has flags (section 4.1.2) or a hash that
// is not known (section 8.1).
func TestZone_Signed_params(t *testing.T) {
	for _, tt := range []struct {
		what   string
		params []string
		want   bool
	}{
		{"behind one whose chain is not there", []string{"1 0 0 -", "1 0 3 c0ffee"}, true},
		{"before one", []string{"1 0 3 c0ffee", "1 0 3 d0ffee"}, true},
		{"beside one with flags", []string{"1 0 3 c0ffee", "1 1 3 c0ffee"}, true},
		{"beside another hash", []string{"0 0 3 c0ffee", "1 0 3 c0ffee", "2 0 3 c0ffee"}, true},
		{"beside too many iterations", []string{"1 0 151 c0ffee", "1 0 3 c0ffee"}, true},
		{"flags alone", []string{"1 1 3 c0ffee"}, false},
		{"another hash alone", []string{"2 0 3 c0ffee"}, false},
		{"chains that are not there", []string{"1 0 0 -", "1 0 3 d0ffee"}, false},
	} {
		if z, _ := hashedZoneOf(t, tt.params...); z.Signed() != tt.want {
			t.Errorf("%s: signed %t, want %t", tt.what, z.Signed(), tt.want)
		}
	}
}

func TestZone_Deny_hashedAllocatesNothing(t *testing.T) {
	z, _ := hashedZone(t)
	tr := tree(t, z)
	n := name(t, "x.no.ent.z.test.")
	var a zones.Answer
	tr.Lookup(&n, wire.TypeA, &a)
	b := start(t, "x.no.ent.z.test.", wire.TypeA)
	mark := b.Mark()
	if got := testing.AllocsPerRun(100, func() {
		z.Deny(b, &n, &a)
		b.Rewind(mark)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestZone_Refer_hashed(t *testing.T) {
	z, _ := hashedZone(t)
	tr := tree(t, z)
	for asked, want := range map[string][]string{
		"x.sub.z.test.":      {"is of sub.z.test."},
		"x.out.left.z.test.": {"is of z.test.", "covers left.z.test."},
	} {
		n := name(t, asked)
		var a zones.Answer
		tr.Lookup(&n, wire.TypeA, &a)
		if a.Kind != zones.Referral {
			t.Fatalf("%s: found %v", asked, a.Kind)
		}
		b := start(t, asked, wire.TypeA)
		owner, _ := b.NameRef(n.Suffix(a.Owner))
		if res := z.Refer(b, &n, owner, &zones.Request{DO: true, Section: wire.Authority}, &a); res.Truncated {
			t.Fatalf("%s: does not fit", asked)
		}
		holds(t, b, want)
	}
}

// holds reads the message, whose NSEC3 records must be signed, and say what is wanted and
// nothing else.
func holds(t *testing.T, b *wire.Builder, want []string) {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(b.Finish()); err != nil {
		t.Fatal(err)
	}
	var proofs []*dns.NSEC3
	signatures := 0
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *dns.NSEC3:
			proofs = append(proofs, rr)
		case *dns.RRSIG:
			signatures++
		}
	}
	if len(proofs) == 0 || signatures != len(proofs) {
		t.Errorf("%d NSEC3 records with %d signatures", len(proofs), signatures)
	}
	for _, w := range want {
		said := w[strings.LastIndex(w, " ")+1:]
		if !slices.ContainsFunc(proofs, func(rr *dns.NSEC3) bool { return denies(rr, said) == w }) {
			t.Errorf("no record %s in %v", w, m.Ns)
		}
	}
	if len(proofs) > len(want) {
		t.Errorf("%d records, want %d at most", len(proofs), len(want))
	}
}

// start begins the response to a question that wants signatures.
func start(t *testing.T, asked string, typ wire.Type) *wire.Builder {
	t.Helper()
	m := new(dns.Msg).SetQuestion(asked, uint16(typ)).SetEdns0(4096, true)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q wire.Query
	if d := wire.ParseQuery(packed, &q); d != wire.Proceed {
		t.Fatalf("the question has disposition %d", d)
	}
	var b wire.Builder
	b.Start(make([]byte, 4096), &q, 4096)
	return &b
}
