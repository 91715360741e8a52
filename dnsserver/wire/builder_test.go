package wire_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// start begins a response to a query of the oracle's making.
func start(t testing.TB, name string, qtype uint16, limit int, edit func(*dns.Msg)) *wire.Builder {
	t.Helper()
	q := new(wire.Query)
	if d := wire.ParseQuery(pack(t, name, qtype, edit), q); d != wire.Proceed {
		t.Fatalf("disposition %d", d)
	}
	b := new(wire.Builder)
	b.Start(make([]byte, limit), q, limit)
	return b
}

func edns(m *dns.Msg) { m.SetEdns0(1232, true) }

// read has the oracle read what b built.
func read(t testing.TB, b *wire.Builder) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b.Finish()); err != nil {
		t.Fatalf("the oracle cannot read %x: %v", b.Finish(), err)
	}
	return m
}

// records are the zone file lines of a section, blanks for tabs, without OPT.
func records(rrs []dns.RR) []string {
	var s []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			s = append(s, strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	return s
}

func wantRecords(t testing.TB, m *dns.Msg, answer, authority, additional []string) {
	t.Helper()
	for _, s := range []struct {
		name      string
		want, got []string
	}{{"answer", answer, records(m.Answer)}, {"authority", authority, records(m.Ns)}, {"additional", additional, records(m.Extra)}} {
		if diff := cmp.Diff(s.want, s.got); diff != "" {
			t.Errorf("%s section, -want +got:\n%s", s.name, diff)
		}
	}
}

// packRData is the RDATA of a zone file line, uncompressed.
func packRData(t testing.TB, line string) (dns.RR, []byte) {
	t.Helper()
	rr, err := dns.NewRR(line)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := dns.PackDomainName(rr.Header().Name, make([]byte, 256), 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return rr, buf[owner+10 : end]
}

func TestBuilder_AddressesAndFlags(t *testing.T) {
	b := start(t, "WeB.svc.internal.", dns.TypeA, 512, func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = true, true, true })
	b.SetAA(true)
	b.SetRA(true)
	b.SetRA(false)
	if !b.A(wire.Answer, wire.RefQName, 5, [4]byte{10, 0, 0, 11}) || !b.A(wire.Answer, wire.RefQName, 1<<31-1, [4]byte{192, 0, 2, 1}) {
		t.Fatal("an A record does not fit")
	}
	if !b.AAAA(wire.Additional, wire.RefQName, 0x12345678, netip.MustParseAddr("2001:db8::1").As16()) {
		t.Fatal("an AAAA record does not fit")
	}
	m := read(t, b)
	if got := strings.ReplaceAll(m.MsgHdr.String(), "\n", " "); got != ";; opcode: QUERY, status: NOERROR, id: 19797 ;; flags: qr aa rd cd;" {
		t.Errorf("header %q", got)
	}
	if m.Question[0].Name != "WeB.svc.internal." {
		t.Errorf("question %q: its case is not kept", m.Question[0].Name)
	}
	wantRecords(t, m, []string{"WeB.svc.internal. 5 IN A 10.0.0.11", "WeB.svc.internal. 2147483647 IN A 192.0.2.1"}, nil,
		[]string{"WeB.svc.internal. 305419896 IN AAAA 2001:db8::1"})
	if m.IsEdns0() != nil {
		t.Error("an OPT record nobody asked for")
	}
}

func TestBuilder_RootOwner(t *testing.T) {
	b := start(t, ".", dns.TypeA, 512, nil)
	if !b.A(wire.Answer, wire.RefNone, 5, [4]byte{10, 0, 0, 11}) || !b.AAAA(wire.Answer, wire.RefNone, 6, [16]byte{15: 1}) {
		t.Fatal("does not fit")
	}
	if ref, ok := b.NameRef([]byte{0}); !ok || ref != wire.RefNone {
		t.Errorf("the root is at %d, %v", ref, ok)
	}
	wantRecords(t, read(t, b), []string{". 5 IN A 10.0.0.11", ". 6 IN AAAA ::1"}, nil, nil)
}

// TestBuilder_SRVWithItsAddresses: the target is never compressed (RFC 2782),
// and its address points at it.
func TestBuilder_SRVWithItsAddresses(t *testing.T) {
	b := start(t, "_http._tcp.web.svc.internal.", dns.TypeSRV, 512, nil)
	target := mustName(t, "web-1.web.svc.internal.")
	ref, ok := b.SRV(wire.Answer, wire.RefQName, 5, wire.SRV{Priority: 1, Weight: 2, Port: 8080}, target.Prefix(1), string(target.Suffix(1)))
	if !ok || !b.A(wire.Additional, ref, 5, [4]byte{10, 0, 0, 11}) {
		t.Fatal("does not fit")
	}
	if got := bytes.Count(b.Finish(), target.Wire()); got != 1 {
		t.Errorf("the target stands %d times in full, want once", got)
	}
	wantRecords(t, read(t, b), []string{"_http._tcp.web.svc.internal. 5 IN SRV 1 2 8080 web-1.web.svc.internal."}, nil,
		[]string{"web-1.web.svc.internal. 5 IN A 10.0.0.11"})
}

// TestBuilder_RRCompress writes every type that is compressed, and
// some of those that are not compressed, and counts the octets.
func TestBuilder_RRCompress(t *testing.T) {
	rows := []struct {
		line     string
		octets   int  // of RDATA as written
		pointTo  bool // the Ref names the host in it
		hostname string
	}{
		{"conf.test. 300 IN NS NS1.conf.test.", 6, true, "ns1.conf.test."},
		{"conf.test. 300 IN CNAME conf.test.", 2, true, "conf.test."},
		{"conf.test. 300 IN PTR other.example.", 15, true, "other.example."},
		{"conf.test. 300 IN PTR .", 1, true, "."},
		{"conf.test. 300 IN MX 10 mail.CONF.test.", 9, true, "mail.conf.test."},
		{"conf.test. 300 IN SRV 1 2 3 www.conf.test.", 21, true, "www.conf.test."},
		{"conf.test. 300 IN SOA ns1.conf.test. admin.conf.test. 1 2 3 4 5", 34, false, ""},
		{"conf.test. 300 IN SOA a.b.example. c.b.example. 1 2 3 4 5", 37, false, ""},
		{"conf.test. 300 IN MINFO a.conf.test. b.a.conf.test.", 28, false, ""},
		{"conf.test. 300 IN MB www.conf.test.", 15, false, ""},
		{"conf.test. 300 IN DNAME www.conf.test.", 15, false, ""},
		{"conf.test. 300 IN TXT \"web\"", 4, false, ""},
		{"conf.test. 300 IN RP a.conf.test. b.conf.test.", 26, false, ""},
		{"conf.test. 300 IN TYPE65280 \\# 4 0a000001", 4, false, ""},
	}
	for _, r := range rows {
		t.Run(r.line, func(t *testing.T) {
			b := start(t, "conf.test.", dns.TypeANY, 512, nil)
			rr, rdata := packRData(t, r.line)
			before := b.Room()
			ref, ok := b.RRCompress(wire.Answer, wire.RefQName, wire.Type(rr.Header().Rrtype), wire.ClassIN, 300, rdata)
			if !ok {
				t.Fatal("does not fit")
			}
			if got := before - b.Room() - 12; got != r.octets {
				t.Errorf("RDATA of %d octets, want %d", got, r.octets)
			}
			var additional []string
			if r.pointTo {
				host := mustName(t, r.hostname)
				if known, ok := b.NameRef(host.Wire()); !ok || known != ref {
					t.Errorf("the host is at %d, %v; want %d", known, ok, ref)
				}
				b.A(wire.Additional, ref, 300, [4]byte{192, 0, 2, 1})
				additional = []string{r.hostname + " 300 IN A 192.0.2.1"}
			} else if ref != wire.RefNone {
				t.Errorf("a reference %d to a name that is no host", ref)
			}
			m := read(t, b)
			if got := records(m.Answer); len(got) != 1 || !strings.EqualFold(got[0], strings.ReplaceAll(rr.String(), "\t", " ")) {
				t.Errorf("got %q, want %q", got, rr)
			}
			if got := records(m.Extra); len(got) != len(additional) || len(got) == 1 && !strings.EqualFold(got[0], additional[0]) {
				t.Errorf("got %q, want %q", got, additional)
			}
		})
	}
}

func TestBuilder_RRCompress_MalformedRDataIsNotWritten(t *testing.T) {
	for _, typ := range []wire.Type{wire.TypeNS, wire.TypeMX, wire.TypeSRV, wire.TypeSOA} {
		b := start(t, "conf.test.", dns.TypeANY, 512, nil)
		if _, ok := b.RRCompress(wire.Answer, wire.RefQName, typ, wire.ClassIN, 1, nil); ok {
			t.Errorf("%s without data is written", typ)
		}
		wantRecords(t, read(t, b), nil, nil, nil)
	}
}

func TestBuilder_RROwner(t *testing.T) {
	b := start(t, "Nope.conf.test.", dns.TypeA, 512, nil)
	apex, www, far := mustName(t, "conf.test."), mustName(t, "www.conf.test."), mustName(t, "www.example.")
	for _, r := range []struct {
		owner *wire.Name
		size  int // of the owner as written
		is    wire.Ref
	}{{&apex, 2, 17}, {&www, 6, 0}, {&www, 2, 0}, {&far, 13, 0}, {&far, 2, 0}} {
		before := b.Room()
		ref, ok := b.RROwner(wire.Authority, r.owner.Wire(), wire.TypeTXT, wire.ClassIN, 60, []byte{1, 'x'})
		if !ok || before-b.Room()-12 != r.size {
			t.Errorf("%s takes %d octets, want %d", r.owner.String(), before-b.Room()-12, r.size)
		}
		if known, ok := b.NameRef(r.owner.Wire()); !ok || known != ref || r.is != 0 && ref != r.is {
			t.Errorf("%s is at %d, and %d is returned", r.owner.String(), known, ref)
		}
	}
	if _, ok := b.NameRef([]byte("\x07example\x00")); !ok {
		t.Error("a suffix of a name written is not found")
	}
	if _, ok := b.NameRef([]byte("\x04nope\x00")); ok {
		t.Error("a name is found that is nowhere")
	}
	wantRecords(t, read(t, b), nil, []string{`conf.test. 60 IN TXT "x"`, `www.conf.test. 60 IN TXT "x"`, `www.conf.test. 60 IN TXT "x"`, `www.example. 60 IN TXT "x"`, `www.example. 60 IN TXT "x"`}, nil)
}

func TestBuilder_SectionsInOrder(t *testing.T) {
	b := start(t, "a.", dns.TypeA, 512, nil)
	ip := [4]byte{1, 2, 3, 4}
	if !b.A(wire.Answer, wire.RefQName, 1, ip) || !b.A(wire.Additional, wire.RefQName, 2, ip) {
		t.Fatal("does not fit")
	}
	name := mustName(t, "a.")
	_, named := b.RRName(wire.Answer, wire.RefQName, wire.TypeNS, wire.ClassIN, 1, nil, name.Wire(), true)
	_, owned := b.RROwner(wire.Answer, name.Wire(), wire.TypeTXT, wire.ClassIN, 1, nil)
	if b.A(wire.Answer, wire.RefQName, 3, ip) || b.AAAA(wire.Authority, wire.RefQName, 3, [16]byte{}) || b.RR(wire.Authority, wire.RefQName, 1, 1, 1, nil) || named || owned {
		t.Error("a record is written into a section that is over")
	}
	wantRecords(t, read(t, b), []string{"a. 1 IN A 1.2.3.4"}, nil, []string{"a. 2 IN A 1.2.3.4"})
}

// TestBuilder_NeverBeyondItsLimit fills messages of every size with every way of
// writing, until nothing fits.
func TestBuilder_NeverBeyondItsLimit(t *testing.T) {
	host := mustName(t, "ns.far.example.")
	soa := slices.Concat(host.Wire(), host.Wire(), make([]byte, 20))
	ways := map[string]func(b *wire.Builder, s wire.Section, o wire.Ref) bool{
		"A":    func(b *wire.Builder, s wire.Section, o wire.Ref) bool { return b.A(s, o, 1, [4]byte{1}) },
		"AAAA": func(b *wire.Builder, s wire.Section, o wire.Ref) bool { return b.AAAA(s, o, 1, [16]byte{1}) },
		"RR": func(b *wire.Builder, s wire.Section, o wire.Ref) bool {
			return b.RR(s, o, wire.TypeNULL, wire.ClassIN, 1, []byte("12345"))
		},
		"RRName": func(b *wire.Builder, s wire.Section, o wire.Ref) bool {
			_, ok := b.RRName(s, o, wire.TypeSRV, wire.ClassIN, 1, make([]byte, 6), host.Wire(), false)
			return ok
		},
		"SRV": func(b *wire.Builder, s wire.Section, o wire.Ref) bool {
			_, ok := b.SRV(s, o, 1, wire.SRV{}, []byte("\x02ab"), string(host.Wire()))
			return ok
		},
		"SOA": func(b *wire.Builder, s wire.Section, o wire.Ref) bool {
			_, ok := b.RRCompress(s, o, wire.TypeSOA, wire.ClassIN, 1, soa)
			return ok
		},
		"RROwner": func(b *wire.Builder, s wire.Section, _ wire.Ref) bool {
			_, ok := b.RROwner(s, host.Wire(), wire.TypeNULL, wire.ClassIN, 1, []byte("12"))
			return ok
		},
	}
	for name, write := range ways {
		for size := 512; size < 576; size++ {
			for _, owner := range []wire.Ref{wire.RefQName, wire.RefNone} {
				for _, edit := range []func(*dns.Msg){nil, edns} {
					b := start(t, "a.test.", dns.TypeANY, size, edit)
					b.EDE(wire.EDEStale, []byte("12 s"))
					n := 0
					for write(b, wire.Answer, owner) {
						n++
					}
					if full := b.Room(); full < 0 || full > 63 {
						t.Fatalf("%s: %d octets left of %d", name, full, size)
					}
					m := read(t, b)
					if len(b.Finish()) > size || len(m.Answer) != n || n < 8 || (m.IsEdns0() != nil) != (edit != nil) {
						t.Fatalf("%s: %d octets of %d, %d records of %d", name, len(b.Finish()), size, len(m.Answer), n)
					}
				}
			}
		}
	}
}

func TestBuilder_Rewind(t *testing.T) {
	b := start(t, "a.test.", dns.TypeNS, 512, edns)
	empty := slices.Clone(b.Finish())
	mark := b.Mark()
	far := mustName(t, "ns.far.example.")
	if _, ok := b.RRCompress(wire.Authority, wire.RefQName, wire.TypeNS, wire.ClassIN, 1, far.Wire()); !ok {
		t.Fatal("does not fit")
	}
	b.Rewind(mark)
	if _, ok := b.NameRef(far.Wire()); ok {
		t.Error("a name is still known that is no more written")
	}
	if got := b.Finish(); !bytes.Equal(got, empty) {
		t.Errorf("after going back %x, before %x", got, empty)
	}
	if !b.A(wire.Answer, wire.RefQName, 1, [4]byte{1, 2, 3, 4}) {
		t.Error("an earlier section cannot be written to after going back")
	}
	b.SetTC()
	if m := read(t, b); !m.Truncated || len(m.Answer) != 1 {
		t.Errorf("got %s", m)
	}
}

// TestBuilder_NamesBeyondAPointersReach: a pointer has 14 bits, a stream's
// message 64 KiB.
func TestBuilder_NamesBeyondAPointersReach(t *testing.T) {
	b := start(t, "big.test.", dns.TypeSRV, wire.MaxMessage, edns)
	var want, glue []string
	var refs []wire.Ref
	for i := range 1000 {
		target := mustName(t, fmt.Sprintf("target-%d.somewhere.example.", i))
		ref, ok := b.RRName(wire.Answer, wire.RefQName, wire.TypeSRV, wire.ClassIN, 1, []byte{0, 0, 0, 0, 0, 1}, target.Wire(), false)
		if !ok {
			t.Fatal("does not fit")
		}
		refs = append(refs, ref)
		want = append(want, "big.test. 1 IN SRV 0 0 1 "+target.String())
	}
	for i, ref := range refs[len(refs)-50:] {
		if !b.A(wire.Additional, ref, 1, [4]byte{1, 2, 3, 4}) || !b.AAAA(wire.Additional, ref, 1, [16]byte{15: 1}) {
			t.Fatal("does not fit")
		}
		owner := fmt.Sprintf("target-%d.somewhere.example.", 950+i)
		glue = append(glue, owner+" 1 IN A 1.2.3.4", owner+" 1 IN AAAA ::1")
	}
	owner := mustName(t, "target-999.somewhere.example.")
	if _, ok := b.RROwner(wire.Additional, owner.Wire(), wire.TypeA, wire.ClassIN, 1, []byte{1, 2, 3, 4}); !ok {
		t.Fatal("does not fit")
	}
	glue = append(glue, owner.String()+" 1 IN A 1.2.3.4")
	wantRecords(t, read(t, b), want, nil, glue)
}

func FuzzBuilder(f *testing.F) {
	f.Add([]byte("\x05www.a\x02a.b\x41"), uint16(600))
	f.Fuzz(func(t *testing.T, script []byte, limit uint16) { runScript(t, script, max(int(limit), 512)) })
}

// runScript writes records as the octets of script say, each an operation, its
// section and its names, and has the oracle read the outcome.
func runScript(t *testing.T, script []byte, limit int) {
	names := []string{".", "test.", "a.test.", "b.a.test.", "A.TEST.", "x.example.", "y.x.example.", strings.Repeat("l.", 100) + "test."}
	b := start(t, "b.a.Test.", dns.TypeANY, limit, edns)
	refs := []wire.Ref{wire.RefQName, wire.RefNone}
	owners := []string{"b.a.test.", "."}
	var want [3][]string
	marks := b.Mark()
	var marked [3]int
	for len(script) >= 3 {
		op, s, o, n := script[0]%9, wire.Section(script[0]/9%3), int(script[1])%len(refs), names[int(script[2])%len(names)]
		script = script[3:]
		name := mustName(t, n)
		var ok bool
		line, ref := "", wire.RefNone
		switch op {
		case 0:
			ok, line = b.A(s, refs[o], 7, [4]byte{1, 2, 3, 4}), owners[o]+" 7 IN A 1.2.3.4"
		case 1:
			ok, line = b.AAAA(s, refs[o], 7, [16]byte{15: 9}), owners[o]+" 7 IN AAAA ::9"
		case 2, 3:
			ref, ok = b.RRName(s, refs[o], wire.TypeMX, wire.ClassIN, 7, []byte{0, 5}, name.Wire(), op == 2)
			line = owners[o] + " 7 IN MX 5 " + n
		case 4:
			ref, ok = b.RROwner(s, name.Wire(), wire.TypeTXT, wire.ClassIN, 7, []byte("\x01t"))
			line = n + ` 7 IN TXT "t"`
		case 5:
			rdata := slices.Concat(name.Wire(), name.Wire(), make([]byte, 20))
			_, ok = b.RRCompress(s, refs[o], wire.TypeSOA, wire.ClassIN, 7, rdata)
			line = owners[o] + " 7 IN SOA " + n + " " + n + " 0 0 0 0 0"
		case 6:
			marks, marked = b.Mark(), [3]int{len(want[0]), len(want[1]), len(want[2])}
		case 8:
			n = "s." + strings.TrimPrefix(n, ".")
			ref, ok = b.SRV(s, refs[o], 7, wire.SRV{Priority: 1, Weight: 2, Port: 3}, []byte("\x01s"), string(name.Wire()))
			line = owners[o] + " 7 IN SRV 1 2 3 " + n
		case 7:
			b.Rewind(marks)
			for i := range want {
				want[i] = want[i][:min(marked[i], len(want[i]))]
			}
			refs, owners = refs[:2], owners[:2]
		}
		if ok {
			want[s] = append(want[s], strings.ToLower(line))
			if ref != wire.RefNone {
				refs, owners = append(refs, ref), append(owners, n)
			}
		}
	}
	if len(b.Finish()) > limit {
		t.Fatalf("%d octets, the limit is %d", len(b.Finish()), limit)
	}
	m := read(t, b)
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var got []string
		for _, l := range records(section) {
			got = append(got, strings.ToLower(l))
		}
		if !slices.Equal(got, want[i]) {
			t.Fatalf("section %d: got %q, want %q", i, got, want[i])
		}
	}
}
