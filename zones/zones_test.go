package zones_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

func name(tb testing.TB, s string) wire.Name {
	tb.Helper()
	n, err := wire.ParseName(s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// records packs master file lines.
func records(tb testing.TB, lines ...string) []zones.Record {
	tb.Helper()
	var out []zones.Record
	buf := make([]byte, dns.MaxMsgSize)
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			tb.Fatal(err)
		}
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			tb.Fatal(err)
		}
		start, record := end-int(rr.Header().Rdlength), bytes.Clone(buf[:end])
		out = append(out, zones.Record{Owner: record[:start-10], Type: wire.Type(rr.Header().Rrtype), TTL: rr.Header().Ttl, RData: record[start:]})
	}
	return out
}

const soa = " 300 IN SOA ns. root. 1 2 3 4 60"

// zone makes a zone of its SOA and the lines.
func zone(tb testing.TB, apex string, lines ...string) *zones.Zone {
	tb.Helper()
	z, err := zones.NewZone(name(tb, apex), records(tb, append([]string{apex + soa}, lines...)...))
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

func tree(tb testing.TB, z ...*zones.Zone) *zones.Tree {
	tb.Helper()
	t, err := zones.NewTree(z)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// source answers NODATA to everything, and says what it was asked.
type source struct{ zones.Source }

func (source) Lookup(_ *wire.Name, below int, _ wire.Type, a *zones.Answer) {
	a.Kind, a.Own.Number = zones.NoData, uint32(below)
}

func TestTree_Lookup(t *testing.T) {
	tr := tree(t,
		zone(t, "test."),
		zone(t, "example.test.", "www.example.test. 60 A 192.0.2.1", "sub.example.test. 60 NS ns.", "sub.example.test. 60 DS 1 13 2 "+strings.Repeat("00", 32)),
		zone(t, "sub.example.test."),
		zones.NewSourceZone(name(t, "live.example.test."), source{}))
	tests := []struct {
		qname string
		qtype wire.Type
		zone  string // "": none
		kind  zones.Kind
	}{
		{"www.example.test.", wire.TypeA, "example.test.", zones.Found},
		{"example.test.", wire.TypeSOA, "example.test.", zones.Found},
		{"www.other.test.", wire.TypeA, "test.", zones.NXDomain},
		{"badexample.test.", wire.TypeA, "test.", zones.NXDomain},
		{"test.", wire.TypeA, "test.", zones.NoData},
		{"a.b.live.example.test.", wire.TypeA, "live.example.test.", zones.NoData},
		{"live.example.test.", wire.TypeA, "live.example.test.", zones.NoData},
		// A zone of ours comes before the delegation to it, but for DS.
		{"www.sub.example.test.", wire.TypeA, "sub.example.test.", zones.NXDomain},
		{"sub.example.test.", wire.TypeA, "sub.example.test.", zones.NoData},
		{"sub.example.test.", wire.TypeDS, "example.test.", zones.Found},
		{"test.", wire.TypeDS, "test.", zones.NoData},
		{"example.", wire.TypeA, "", zones.Refused},
		{".", wire.TypeNS, "", zones.Refused},
	}
	for _, tt := range tests {
		t.Run(tt.qname+" "+tt.qtype.String(), func(t *testing.T) {
			n := name(t, tt.qname)
			var a zones.Answer
			tr.Lookup(&n, tt.qtype, &a)
			got := ""
			if a.Zone != nil {
				got = a.Zone.Apex().String()
			}
			if got != tt.zone || a.Kind != tt.kind {
				t.Errorf("zone %q kind %d, want %q %d", got, a.Kind, tt.zone, tt.kind)
			}
			if a.EDE != zones.EDENone {
				t.Errorf("EDE %d", a.EDE)
			}
		})
	}
}

func TestTree_Lookup_root(t *testing.T) {
	tr := tree(t, zone(t, ".", "com. 60 NS a.gtld.", "a.gtld. 60 A 192.0.2.1"))
	for qname, want := range map[string]zones.Kind{".": zones.NoData, "www.example.com.": zones.Referral, "nope.": zones.NXDomain, "gtld.": zones.NoData} {
		n := name(t, qname)
		var a zones.Answer
		if tr.Lookup(&n, wire.TypeA, &a); a.Kind != want {
			t.Errorf("%s: kind %d, want %d", qname, a.Kind, want)
		}
	}
}

func TestNewTree(t *testing.T) {
	_, err := zones.NewTree([]*zones.Zone{zone(t, "a.test."), zone(t, "A.TEST.")})
	if err == nil || err.Error() != `zone "a.test.": given twice` {
		t.Errorf("got %v", err)
	}
	z := zone(t, "a.test.")
	tr := tree(t, zone(t, "b.test."), z)
	apex, other := name(t, "a.test."), name(t, "x.a.test.")
	if tr.Zone(&apex) != z || tr.Zone(&other) != nil {
		t.Error("Zone does not find by apex alone")
	}
}

func TestNewZone_errors(t *testing.T) {
	valid := records(t, "a.test."+soa)
	tests := []struct {
		name    string
		records []zones.Record
		want    string
	}{
		{"no SOA", records(t, "www.a.test. 60 A 192.0.2.1"), "no SOA at the apex"},
		{"a SOA elsewhere", records(t, "www.a.test."+soa), "no SOA at the apex"},
		{"two SOAs", records(t, "a.test."+soa, "a.test. 60 SOA ns. root. 2 2 3 4 5"), "2 SOA records, want 1"},
		{"outside", append(records(t, "www.b.test. 60 A 192.0.2.1"), valid...), "www.b.test. A: lies outside the zone"},
		{"an owner that is none", []zones.Record{{Owner: []byte("\x03www"), Type: wire.TypeA}}, "record 0: owner: malformed name"},
		{"an address of three octets", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeA, RData: make([]byte, 3)}}, "a.test. A: address of the wrong size"},
		{"an address of four octets", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeAAAA, RData: make([]byte, 4)}}, "a.test. AAAA: address of the wrong size"},
		{"a host that is none", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeMX, RData: []byte("\x00\x05\x03ww")}}, "a.test. MX: malformed name"},
		{"a short SRV", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeSRV, RData: []byte("\x00\x05")}}, "a.test. SRV: malformed name"},
		{"a short SOA", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeSOA, RData: []byte("\x00\x00abc")}}, "a.test. SOA: 5 octets of RDATA, want 22"},
		{"a SOA of one name", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeSOA, RData: []byte("\x00")}}, "a.test. SOA: malformed name"},
		{"RDATA that no record can have", []zones.Record{{Owner: []byte("\x01a\x04test\x00"), Type: wire.TypeTXT, RData: make([]byte, 65536)}}, "a.test. TXT: more than 65535 octets of RDATA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := zones.NewZone(name(t, "a.test."), tt.records)
			if want := `zone "a.test.": ` + tt.want; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestZone_sets(t *testing.T) {
	z := zone(t, "a.test.",
		"a.test. 60 NS ns1.a.test.", "a.test. 60 NS NS1.A.test.", // RFC 2181 section 5, RFC 4343
		"www.a.test. 60 A 192.0.2.2", "www.a.test. 30 A 192.0.2.1", "WWW.a.test. 90 A 192.0.2.2", // section 5.2
		"mx.a.test. 60 MX 65 x.", "mx.a.test. 60 MX 97 x.", // preferences that fold to each other as letters do
	)
	if got := z.Len(); got != 1+1+2+2 {
		t.Errorf("%d records, want 6", got)
	}
	if z.Serial() != 1 || z.Dynamic() {
		t.Errorf("serial %d, dynamic %v", z.Serial(), z.Dynamic())
	}
	s := set(t, z, "www.a.test.", wire.TypeA)
	var got []string
	s.All(func(rdata []byte) bool { got = append(got, netip.AddrFrom4([4]byte(rdata)).String()); return true })
	if want := []string{"192.0.2.1", "192.0.2.2"}; !slices.Equal(got, want) || s.TTL() != 30 || s.Type() != wire.TypeA {
		t.Errorf("got %v with TTL %d, want %v with 30", got, s.TTL(), want)
	}
}

func set(tb testing.TB, z *zones.Zone, owner string, typ wire.Type) *zones.Set {
	tb.Helper()
	n := name(tb, owner)
	var a zones.Answer
	if tree(tb, z).Lookup(&n, typ, &a); a.Kind != zones.Found {
		tb.Fatalf("%s %s: kind %d", owner, typ, a.Kind)
	}
	return a.RRset.(*zones.Set)
}

// TestTree_Lookup_model compares lookups with RFC 1034 section 4.3.2 written
// down over a list, for small zones of few labels, where everything meets
// everything: wildcards, cuts, redirections and empty non-terminals.
func TestTree_Lookup_model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		labels := rapid.SampledFrom([]string{"a", "b", "*"})
		names := rapid.Custom(func(rt *rapid.T) string {
			return strings.Join(append(rapid.SliceOfN(labels, 0, 4).Draw(rt, "labels"), "z."), ".")
		})
		m := model{}
		lines := []string{"z." + soa}
		m.add("z.", wire.TypeSOA)
		for range rapid.IntRange(0, 8).Draw(rt, "records") {
			owner := names.Draw(rt, "owner")
			switch rapid.SampledFrom([]string{"A", "NS", "CNAME", "DNAME"}).Draw(rt, "type") {
			case "A":
				lines = append(lines, owner+" 60 A 192.0.2.1")
				m.add(owner, wire.TypeA)
			case "NS":
				lines = append(lines, owner+" 60 NS ns.")
				m.add(owner, wire.TypeNS)
			case "CNAME":
				lines = append(lines, owner+" 60 CNAME x.")
				m.add(owner, wire.TypeCNAME)
			case "DNAME":
				lines = append(lines, owner+" 60 DNAME x.")
				m.add(owner, wire.TypeDNAME)
			}
		}
		z, err := zones.NewZone(name(t, "z."), records(t, lines...))
		if err != nil {
			rt.Fatal(err)
		}
		tr := tree(t, z)
		for range 20 {
			qname := names.Draw(rt, "qname")
			qtype := rapid.SampledFrom([]wire.Type{wire.TypeA, wire.TypeNS, wire.TypeCNAME, wire.TypeDS, wire.TypeTXT}).Draw(rt, "qtype")
			n := name(t, qname)
			var a zones.Answer
			tr.Lookup(&n, qtype, &a)
			kind, typ, strip := m.lookup(qname, qtype)
			if a.Kind != kind || a.Type != typ || a.Owner != strip {
				rt.Fatalf("%s %s in %q: kind %d type %s owner %d, want %d %s %d", qname, qtype, lines, a.Kind, a.Type, a.Owner, kind, typ, strip)
			}
		}
	})
}

// model is a zone as a list of names and their types.
type model map[string]map[wire.Type]bool

func (m model) add(owner string, typ wire.Type) {
	if m[owner] == nil {
		m[owner] = map[wire.Type]bool{}
	}
	m[owner][typ] = true
}

// exists: RFC 4592 section 2.2.2, a name exists when it or one below has data.
func (m model) exists(name string) bool {
	for owner := range m {
		if owner == name || strings.HasSuffix(owner, "."+name) {
			return true
		}
	}
	return false
}

func (m model) lookup(qname string, qtype wire.Type) (zones.Kind, wire.Type, int) {
	labels := strings.Split(strings.TrimSuffix(qname, "."), ".")
	at := func(strip int) string { return strings.Join(labels[strip:], ".") + "." }
	for strip := range slices.Backward(labels) { // from the apex down
		types := m[at(strip)]
		switch {
		case types[wire.TypeNS] && strip < len(labels)-1 && (strip > 0 || qtype != wire.TypeDS):
			return zones.Referral, wire.TypeNS, strip
		case types[wire.TypeDNAME] && strip > 0:
			return zones.Alias, wire.TypeDNAME, strip
		}
	}
	source := qname
	for strip := 1; !m.exists(source); strip++ {
		if m.exists(at(strip)) { // the closest encloser
			if source = "*." + at(strip); !m.exists(source) {
				return zones.NXDomain, qtype, 0
			}
		}
	}
	switch types := m[source]; {
	case types[wire.TypeCNAME] && qtype != wire.TypeCNAME:
		return zones.Alias, wire.TypeCNAME, 0
	case types[qtype]:
		return zones.Found, qtype, 0
	}
	return zones.NoData, qtype, 0
}

// TestTree_Warm: whatever is asked, in whatever number, it changes no lookup and
// allocates nothing.
func TestTree_Warm(t *testing.T) {
	tr := tree(t, zone(t, "a.test.", "www.a.test. 60 A 192.0.2.1", "deep.down.a.test. 60 A 192.0.2.1", "*.wild.a.test. 60 A 192.0.2.1"),
		zones.NewSourceZone(name(t, "live.test."), source{}))
	var questions []*wire.Query
	for _, qname := range []string{
		"www.a.test.", "a.test.", "down.a.test.", "deep.down.a.test.", "x.wild.a.test.", "nope.a.test.",
		"web.live.test.", "live.test.", "test.", ".", "elsewhere.",
	} {
		questions = append(questions, &wire.Query{Name: name(t, qname)})
	}
	for len(questions) <= 2*zones.WarmMax {
		questions = append(questions, questions...)
	}
	look := func() (kinds []zones.Kind) {
		for _, q := range questions {
			var a zones.Answer
			tr.Lookup(&q.Name, wire.TypeA, &a)
			kinds = append(kinds, a.Kind)
		}
		return kinds
	}
	before := look()
	if n := testing.AllocsPerRun(10, func() {
		for n := range questions {
			tr.Warm(questions[n:])
		}
		tr.Warm(nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if after := look(); !slices.Equal(before, after) {
		t.Errorf("looked up %v, before %v", after, before)
	}
}

// BenchmarkTree_Lookup_many looks up names of a large zone in no order, so that little of
// it is in a core's caches: one by one, and in batches as the server does them, with
// Warm counted in. It says what a name takes of the heap.
func BenchmarkTree_Lookup_many(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf("host-%d.a.test. 60 A 192.0.2.1", i)
		}
		tr := tree(b, zone(b, "a.test.", lines...))
		clear(lines)
		runtime.GC()
		runtime.ReadMemStats(&after)
		asked := make([]*wire.Query, 1<<16)
		random := rand.New(rand.NewPCG(1, 2))
		for i := range asked {
			asked[i] = &wire.Query{Name: name(b, fmt.Sprintf("host-%d.a.test.", random.IntN(n)))}
		}
		for _, batch := range []int{1, 4, zones.WarmMax} {
			b.Run(fmt.Sprintf("n=%d/batch=%d", n, batch), func(b *testing.B) {
				var a zones.Answer
				b.ReportAllocs()
				for i := 0; b.Loop(); i += batch {
					questions := asked[i&(1<<16-1):][:batch]
					if batch > 1 {
						tr.Warm(questions)
					}
					for _, q := range questions {
						if tr.Lookup(&q.Name, wire.TypeA, &a); a.Kind != zones.Found {
							b.Fatal("not found")
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/lookup")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/name")
			})
		}
	}
}

func BenchmarkTree_Lookup(b *testing.B) {
	for _, n := range []int{1, 1000, 100000} {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf("host-%d.a.test. 60 A 192.0.2.1", i)
		}
		tr := tree(b, zone(b, "a.test.", lines...))
		for _, qname := range []string{fmt.Sprintf("host-%d.a.test.", n/2), "nope.a.test."} {
			b.Run(fmt.Sprintf("%s/n=%d", strings.TrimRight(strings.TrimSuffix(qname, ".a.test."), "-0123456789"), n), func(b *testing.B) {
				q := name(b, qname)
				var a zones.Answer
				b.ReportAllocs()
				for b.Loop() {
					tr.Lookup(&q, wire.TypeA, &a)
				}
			})
		}
	}
}

// TestZone_FirstToExpire: times count modulo 2^32 (RFC 4034 section 3.1.5).
func TestZone_FirstToExpire(t *testing.T) {
	sig := func(of wire.Type, since, expire uint32) zones.Record {
		rdata := binary.BigEndian.AppendUint16(nil, uint16(of))
		rdata = append(rdata, 13, 1, 0, 0, 0, 60)
		rdata = binary.BigEndian.AppendUint32(rdata, expire)
		rdata = binary.BigEndian.AppendUint32(rdata, since)
		return zones.Record{Owner: []byte("\x04test\x00"), Type: wire.TypeRRSIG, TTL: 60, RData: append(rdata, "\x00\x01\x04test\x00sig"...)}
	}
	soa := zones.Record{Owner: []byte("\x04test\x00"), Type: wire.TypeSOA, TTL: 60, RData: append([]byte("\x00\x00"), make([]byte, 20)...)}
	with := func(records ...zones.Record) *zones.Zone {
		z, err := zones.NewZone(name(t, "test."), append(records, soa))
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	if first, ok := with().FirstToExpire(); ok {
		t.Errorf("without signatures: %v", first)
	}
	const end = 1<<32 - 1
	first, ok := with(sig(wire.TypeNS, end-500, 1000), sig(wire.TypeSOA, end-600, end-99), sig(wire.TypeTXT, 0, 50)).FirstToExpire()
	if !ok || first.Of != wire.TypeSOA || first.Owner != "test." {
		t.Fatalf("%+v, want that of the SOA", first)
	}
	if left, all := first.Left(end - 109); left != 10 || all != 501 {
		t.Errorf("%d of %d seconds left, want 10 of 501", left, all)
	}
	if left, _ := first.Left(1 << 32); left != -100 {
		t.Errorf("%d seconds left, want -100", left)
	}
}
