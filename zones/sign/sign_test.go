package sign_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/sign"
	"github.com/musterdns/muster/zones/zonefile"
)

const zoneText = `$TTL 60
@ SOA ns1 Hostmaster.Example.COM. 1 60 10 86400 30
@ NS ns1
@ MX 10 WWW
@ NAPTR 1 2 "S" "SIP+D2U" "" _sip._udp.EXAMPLE.test.
ns1 A 192.0.2.1
www A 192.0.2.7
www A 192.0.2.6
alias CNAME www
*.wild A 192.0.2.9
a.b.ent TXT "x"
sub NS ns.sub
ns.sub A 192.0.2.99
secure NS ns.sub
secure DS 1 13 2 F946C0B78A4B5664596BCCD5E4979AD5EFD20A3984DD71E0B2FDA5B176AE7E66
lent ALIAS web.svc.test.
srv SRV 0 0 80 www
`

func name(t testing.TB, s string) wire.Name {
	t.Helper()
	n, err := wire.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func generate(t testing.TB, zone string, a sign.Algorithm) *sign.Key {
	t.Helper()
	k, err := sign.Generate(name(t, zone), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// parsed is a key as miekg/dns has it.
func parsed(t testing.TB, k *sign.Key) *dns.DNSKEY {
	t.Helper()
	h := dns.RR_Header{Name: k.Zone.String(), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600, Rdlength: uint16(len(k.DNSKEY()))}
	rr, _, err := dns.UnpackRRWithHeader(h, k.DNSKEY(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return rr.(*dns.DNSKEY)
}

// signed signs the zone and returns its records as miekg/dns has them.
func signed(t *testing.T, keys []*sign.Key, now time.Time) []dns.RR {
	t.Helper()
	return signedBy(t, keys, now, false)
}

func signedBy(t *testing.T, keys []*sign.Key, now time.Time, raise bool) []dns.RR {
	t.Helper()
	apex := name(t, "example.test.")
	var out []zones.Record
	file := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte(zoneText), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := zonefile.Load(file, "example.test.", func(r []zones.Record) (_ []zones.Record, err error) {
		out, err = sign.Zone(&apex, r, keys, now, raise)
		return out, err
	})
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for _, r := range out {
		owner, _, err := dns.UnpackDomainName(r.Owner, 0)
		if err != nil {
			t.Fatal(err)
		}
		rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{Name: owner, Rrtype: uint16(r.Type), Class: dns.ClassINET, Ttl: r.TTL, Rdlength: uint16(len(r.RData))}, r.RData, 0)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

func TestZone_EverySetIsSignedAndVerifies(t *testing.T) {
	now := time.Now()
	keys := []*sign.Key{generate(t, "example.test.", sign.ECDSAP256SHA256), generate(t, "example.test.", sign.Ed25519)}
	type id struct {
		name string
		typ  uint16
	}
	sets := map[id][]dns.RR{}
	sigs := map[id][]*dns.RRSIG{}
	for _, rr := range signed(t, keys, now) {
		h := rr.Header()
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs[id{h.Name, sig.TypeCovered}] = append(sigs[id{h.Name, sig.TypeCovered}], sig)
			continue
		}
		sets[id{h.Name, h.Rrtype}] = append(sets[id{h.Name, h.Rrtype}], rr)
	}
	for k, set := range sets {
		unsigned := k.typ == uint16(wire.TypeALIAS) || strings.HasSuffix(k.name, "sub.example.test.") && k.typ != dns.TypeNSEC || k.name == "secure.example.test." && k.typ == dns.TypeNS
		if unsigned {
			if len(sigs[k]) > 0 {
				t.Errorf("%s %d is signed, which is not the zone's to say", k.name, k.typ)
			}
			continue
		}
		if len(sigs[k]) != len(keys) {
			t.Errorf("%s %d has %d signatures, want %d", k.name, k.typ, len(sigs[k]), len(keys))
		}
		for _, sig := range sigs[k] {
			for _, key := range keys {
				if p := parsed(t, key); p.KeyTag() == sig.KeyTag && p.Algorithm == sig.Algorithm { // tags may be equal
					if err := sig.Verify(p, set); err != nil {
						t.Errorf("%s %d: %v", k.name, k.typ, err)
					}
				}
			}
			if !sig.ValidityPeriod(now) || !sig.ValidityPeriod(now.Add(-50*time.Minute)) || !sig.ValidityPeriod(now.Add(7*24*time.Hour)) || sig.ValidityPeriod(now.Add(10*24*time.Hour)) {
				t.Errorf("%s %d holds from %d to %d", k.name, k.typ, sig.Inception, sig.Expiration)
			}
		}
	}
}

func TestZone_NSECIsOneCircleOfAllNames(t *testing.T) {
	next, types := map[string]string{}, map[string][]uint16{}
	for _, rr := range signed(t, []*sign.Key{generate(t, "example.test.", sign.Ed25519)}, time.Now()) {
		if n, ok := rr.(*dns.NSEC); ok {
			next[n.Hdr.Name], types[n.Hdr.Name] = n.NextDomain, n.TypeBitMap
			if n.Hdr.Ttl != 30 {
				t.Errorf("%s: TTL %d, want the SOA's minimum (RFC 9077)", n.Hdr.Name, n.Hdr.Ttl)
			}
		}
	}
	var got []string
	for at := "example.test."; len(got) <= len(next); {
		got = append(got, strings.TrimSuffix(at, "example.test."))
		if at = next[at]; at == "example.test." {
			break
		}
	}
	want := []string{"", "alias.", "a.b.ent.", "lent.", "ns1.", "secure.", "srv.", "sub.", "*.wild.", "www."}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for owner, want := range map[string][]uint16{
		"sub.example.test.":    {dns.TypeNS, dns.TypeRRSIG, dns.TypeNSEC},
		"secure.example.test.": {dns.TypeNS, dns.TypeDS, dns.TypeRRSIG, dns.TypeNSEC},
		"lent.example.test.":   {dns.TypeA, dns.TypeAAAA, dns.TypeRRSIG, dns.TypeNSEC},
		"example.test.":        {dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeNAPTR, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDNSKEY},
	} {
		if !slices.Equal(types[owner], want) {
			t.Errorf("%s has %d, want %d", owner, types[owner], want)
		}
	}
}

func TestZone_RefusesWhatIsSignedAlready(t *testing.T) {
	apex := name(t, "example.test.")
	_, err := sign.Zone(&apex, []zones.Record{{Owner: apex.Wire(), Type: wire.TypeDNSKEY}}, []*sign.Key{generate(t, "example.test.", sign.Ed25519)}, time.Now(), false)
	if err == nil || !strings.Contains(err.Error(), "DNSKEY records already") {
		t.Errorf("%v", err)
	}
	if _, err := sign.Zone(&apex, nil, nil, time.Now(), false); err == nil {
		t.Error("without a key, it signs")
	}
}

// answer is a message as it is written, with one set in its answer section, which begins
// at an octet: the owners are pointers to the question.
func answer(t *testing.T, records ...string) (m *dns.Msg, msg []byte, from int) {
	t.Helper()
	m = &dns.Msg{Compress: true}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if m.Question == nil {
			m.SetQuestion(rr.Header().Name, rr.Header().Rrtype)
			if msg, err = m.Pack(); err != nil {
				t.Fatal(err)
			}
			from = len(msg)
		}
		m.Answer = append(m.Answer, rr)
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return m, msg, from
}

func TestOnline(t *testing.T) {
	key := generate(t, "example.test.", sign.ECDSAP256SHA256)
	o, err := sign.NewOnline(name(t, "example.test."), []*sign.Key{key}, time.Now(), new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	m, msg, from := answer(t, "Www.example.test. 5 IN A 192.0.2.9", "Www.example.test. 5 IN A 192.0.2.1")
	owner := []byte("\x03www\x07example\x04test\x00")
	now := time.Now().UnixNano()
	found, id := o.Find(owner, msg[from:], now)
	if found != nil {
		t.Fatal("a signature is there before it was made")
	}
	blob, err := o.Sign(id, owner, msg, from, now)
	if err != nil {
		t.Fatal(err)
	}
	rdata := blob[2 : 2+binary.BigEndian.Uint16(blob)]
	rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{Name: "www.example.test.", Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 5, Rdlength: uint16(len(rdata))}, rdata, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := rr.(*dns.RRSIG).Verify(parsed(t, key), m.Answer); err != nil {
		t.Errorf("%s: %v", rr, err)
	}
	if found, again := o.Find(owner, msg[from:], now); again != id || !slices.Equal(found, blob) {
		t.Error("it is not found again")
	}
	if found, _ := o.Find([]byte("\x03ftp\x07example\x04test\x00"), msg[from:], now); found != nil {
		t.Error("it is found for another owner")
	}
	if found, _ := o.Find(owner, msg[from:], now+(sign.Refresh+1)*1e9); found != nil {
		t.Error("it is found when it is to be made anew")
	}
	if n := testing.AllocsPerRun(100, func() { o.Find(owner, msg[from:], now) }); n != 0 {
		t.Errorf("finding allocates %v times", n)
	}
}

// TestOnline_Find/a set is found in any order: that of a service's instances changes
// with each answer.
func TestOnline_Find(t *testing.T) {
	o, err := sign.NewOnline(name(t, "example.test."), []*sign.Key{generate(t, "example.test.", sign.Ed25519)}, time.Now(), new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	owner := []byte("\x03www\x07example\x04test\x00")
	now := time.Now().UnixNano()
	kept := func(records ...string) bool {
		t.Helper()
		_, msg, from := answer(t, records...)
		found, key := o.Find(owner, msg[from:], now)
		if found == nil {
			if _, err := o.Sign(key, owner, msg, from, now); err != nil {
				t.Fatal(err)
			}
		}
		return found != nil
	}
	const one, two, three = "www.example.test. 5 IN A 192.0.2.1", "www.example.test. 5 IN A 192.0.2.2", "www.example.test. 5 IN A 192.0.2.3"
	for _, c := range []struct {
		records []string
		kept    bool
	}{
		{[]string{one, two, three}, false},
		{[]string{three, one, two}, true},
		{[]string{one, two}, false},
		{[]string{one, one}, false},
		{[]string{"www.example.test. 5 IN SRV 1 2 80 a.example.test.", "www.example.test. 5 IN SRV 1 2 81 b.example.test."}, false},
		{[]string{"www.example.test. 5 IN SRV 1 2 81 b.example.test.", "www.example.test. 5 IN SRV 1 2 80 a.example.test."}, true},
		// Names that may be pointers are not the same anywhere.
		{[]string{"www.example.test. 5 IN NS a.example.test.", "www.example.test. 5 IN NS b.example.test."}, false},
		{[]string{"www.example.test. 5 IN NS b.example.test.", "www.example.test. 5 IN NS a.example.test."}, false},
	} {
		if got := kept(c.records...); got != c.kept {
			t.Errorf("%q: found %v", c.records, got)
		}
	}
}

// TestClocks: signatures hold for validators whose clocks are most of an hour behind, and
// for ones that are days ahead, when they were made just now and when they are as old as they
// get: of a service zone a day, of a static zone what the day has been.
func TestClocks(t *testing.T) {
	const late, early = -59 * time.Minute, 6 * 24 * time.Hour
	check := func(what string, rdata []byte, now time.Time) {
		t.Helper()
		inception, expires := time.Unix(int64(binary.BigEndian.Uint32(rdata[12:])), 0), time.Unix(int64(binary.BigEndian.Uint32(rdata[8:])), 0) // RFC 4034 section 3.1
		if inception.After(now.Add(late)) || expires.Before(now.Add(early)) {
			t.Errorf("%s: from %s to %s at %s, want it %s before and %s after that too", what, inception.UTC(), expires.UTC(), now, late, early)
		}
	}
	key := generate(t, "example.test.", sign.ECDSAP256SHA256)
	apex := name(t, "example.test.")
	made := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	o, err := sign.NewOnline(apex, []*sign.Key{key}, made, new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	_, msg, from := answer(t, "www.example.test. 5 IN A 192.0.2.1")
	owner := []byte("\x03www\x07example\x04test\x00")
	_, at := o.Find(owner, msg[from:], made.UnixNano())
	blob, err := o.Sign(at, owner, msg, from, made.UnixNano())
	if err != nil {
		t.Fatal(err)
	}
	check("a signature just made", blob[2:], made)
	for _, c := range []struct {
		after time.Duration
		found bool
	}{
		{-365 * 24 * time.Hour, false}, {-time.Hour, false}, {-29 * time.Minute, true}, // the server's clock was set back
		{24 * time.Hour, true}, {24*time.Hour + time.Second, false},
	} {
		found, _ := o.Find(owner, msg[from:], made.Add(c.after).UnixNano())
		if (found != nil) != c.found {
			t.Errorf("%s after it was made a signature is found %t, want %t", c.after, found != nil, c.found)
		}
		if found != nil && c.after > 0 {
			check("a signature as old as it gets", found[2:], made.Add(c.after))
		}
	}
	soa := (&exporter{}).soa()
	for _, now := range []time.Time{made, made.Add(24*time.Hour - time.Second)} {
		records, err := sign.Zone(&apex, []zones.Record{soa}, []*sign.Key{key}, now, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Type == wire.TypeRRSIG {
				check("a static zone's", r.RData, now)
			}
		}
	}
}

// TestOnline_Sign/denials of random names take no place of what there is.
func TestOnline_Sign(t *testing.T) {
	var evicted atomic.Uint64
	o, err := sign.NewOnline(name(t, "example.test."), []*sign.Key{generate(t, "example.test.", sign.Ed25519)}, time.Now(), &evicted)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixNano()
	_, msg, from := answer(t, "www.example.test. 5 IN A 192.0.2.1")
	_, denial, denied := answer(t, "x.example.test. 5 IN NSEC \\000.x.example.test. RRSIG NSEC TYPE128")
	owner := func(kind string, i int) []byte { return fmt.Appendf(nil, "\x05%s%04d\x07example\x04test\x00", kind, i) }
	const sets, denials = 300, 3000 // with four places for each of 1024 hashes, some give way
	sign := func(owner, msg []byte, from int) {
		_, key := o.Find(owner, msg[from:], now)
		if _, err := o.Sign(key, owner, msg, from, now); err != nil {
			t.Fatal(err)
		}
	}
	for i := range sets {
		sign(owner("s", i), msg, from)
	}
	for i := range denials {
		sign(owner("d", i), denial, denied)
	}
	for i := range sets {
		if found, _ := o.Find(owner("s", i), msg[from:], now); found == nil {
			t.Fatalf("set %d is not found any more", i)
		}
	}
	if evicted.Load() == 0 {
		t.Error("no denial has given way to another")
	}
}

// exporter is a source with a SOA and some addresses.
type exporter struct {
	zones.Source

	serial byte
	www    []byte
}

func (e *exporter) soa() zones.Record {
	rdata := append([]byte("\x02ns\x00\x00"), make([]byte, 20)...)
	rdata[len(rdata)-17] = e.serial
	return zones.Record{Owner: []byte("\x07example\x04test\x00"), Type: wire.TypeSOA, TTL: 5, RData: rdata}
}

func (e *exporter) SOA() zones.RRset { return (*exportedSOA)(e) }

func (e *exporter) Export(context.Context) ([]zones.Record, error) {
	return []zones.Record{
		e.soa(),
		{Owner: []byte("\x07example\x04test\x00"), Type: wire.TypeNS, TTL: 5, RData: []byte("\x02ns\x07example\x04test\x00")},
		{Owner: []byte("\x03www\x07example\x04test\x00"), Type: wire.TypeA, TTL: 5, RData: e.www},
		{Owner: []byte("\x03ftp\x07example\x04test\x00"), Type: wire.TypeA, TTL: 5, RData: []byte{192, 0, 2, 9}},
	}, nil
}

type exportedSOA exporter

func (s *exportedSOA) All(yield func([]byte) bool) { yield((*exporter)(s).soa().RData) }
func (s *exportedSOA) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	b.RR(r.Section, owner, wire.TypeSOA, wire.ClassIN, 5, (*exporter)(s).soa().RData)
	return zones.Result{Answers: 1, TTL: 5, EDE: zones.EDENone}
}

// TestOnline_Wrap_export: a source's zone is transferred with signatures and NSEC; what has
// not changed keeps its signatures; its serial number is that of the day at least.
func TestOnline_Wrap_export(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	key := generate(t, "example.test.", sign.ECDSAP256SHA256)
	o, err := sign.NewOnline(name(t, "example.test."), []*sign.Key{key}, now, new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	src := &exporter{serial: 7, www: []byte{192, 0, 2, 1}}
	if e, ok := o.Wrap(src, false).(zones.Exporter); ok {
		if _, err := e.Export(t.Context()); !errors.Is(err, zones.ErrNoExport) {
			t.Errorf("a zone without secondaries: %v, want ErrNoExport", err)
		}
	}
	wrapped := o.Wrap(src, true)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := wrapped.(zones.Exporter).Export(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for the export any more: %v, want context.Canceled", err)
	}
	export := func() map[string]zones.Record {
		t.Helper()
		records, err := wrapped.(zones.Exporter).Export(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]zones.Record{}
		for _, r := range records {
			k := fmt.Sprintf("%q %s", r.Owner, r.Type)
			if r.Type == wire.TypeRRSIG {
				k += fmt.Sprintf(" %d", binary.BigEndian.Uint16(r.RData))
			}
			out[k] = r
		}
		return out
	}
	const apex, www, ftp = `"\aexample\x04test\x00"`, `"\x03www\aexample\x04test\x00"`, `"\x03ftp\aexample\x04test\x00"`
	first := export()
	for _, k := range []string{apex + " NSEC", www + " NSEC", ftp + " NSEC", apex + " DNSKEY", www + " RRSIG 1", www + " RRSIG 47", apex + " RRSIG 6"} {
		if _, there := first[k]; !there {
			t.Errorf("%s is not there", k)
		}
	}
	day := uint32(sign.Day(now).Unix())
	serial := func(rdata []byte) uint32 { return binary.BigEndian.Uint32(rdata[len(rdata)-20:]) }
	if got := serial(first[apex+" SOA"].RData); got != day {
		t.Errorf("serial number %d, want %d", got, day)
	}
	for rdata := range wrapped.SOA().All {
		if got := serial(rdata); got != day {
			t.Errorf("the SOA record has the serial number %d, want %d", got, day)
		}
	}
	src.www = []byte{192, 0, 2, 2}
	second := export()
	same := func(k string) bool { return &first[k].RData[0] == &second[k].RData[0] }
	if !same(ftp+" RRSIG 1") || !same(ftp+" RRSIG 47") || same(www+" RRSIG 1") {
		t.Error("what has not changed was signed again, or what has was not")
	}
}
