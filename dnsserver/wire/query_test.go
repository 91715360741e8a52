package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// pack is a query made by the oracle and then changed by edit.
func pack(t testing.TB, name string, qtype uint16, edit func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.Id, m.RecursionDesired = 0x4d55, false
	if edit != nil {
		edit(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseQuery_ReadsWhatItProceedsWith(t *testing.T) {
	msg := pack(t, "WEB.svc.Internal.", dns.TypeSRV, func(m *dns.Msg) {
		m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = true, true, true
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("first")},
			&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("second")},
			&dns.EDNS0_NSID{Code: dns.EDNS0NSID},
		}
	})
	var q wire.Query
	if d := wire.ParseQuery(msg, &q); d != wire.Proceed {
		t.Fatalf("disposition %d", d)
	}
	if q.ID != 0x4d55 || q.Opcode != wire.OpcodeQuery || !q.RD || !q.CD || !q.AD || !q.EDNS || !q.DO || q.Version != 0 || q.UDPSize != 4096 {
		t.Errorf("header or OPT read wrongly: %+v", q)
	}
	if q.Name.String() != "web.svc.internal." || string(q.RawName) != "\x03WEB\x03svc\x08Internal\x00" || q.Type != wire.TypeSRV || q.Class != wire.ClassIN {
		t.Errorf("question read wrongly: %s %q %s %s", q.Name.String(), q.RawName, q.Type, q.Class)
	}
	if want := "\xfd\xe9\x00\x05first\xfd\xe9\x00\x06second\x00\x03\x00\x00"; string(q.Options) != want {
		t.Errorf("options %q, want %q", q.Options, want)
	}
	// The same Query serves for the next message, and nothing is left of this one.
	if d := wire.ParseQuery(pack(t, "a.", dns.TypeA, nil), &q); d != wire.Proceed || q.EDNS || q.DO || q.RD || q.CD || q.AD || q.Options != nil || q.UDPSize != 512 || q.Name.Labels() != 1 {
		t.Errorf("left over from the query before: %+v", q)
	}
}

// TestParseQuery_Corpus goes through testdata/query: messages in hexadecimal,
// each in a file named with a sentence, whose first line is what must become of
// it: a disposition, and the flags and sections of the error response.
func TestParseQuery_Corpus(t *testing.T) {
	files, err := filepath.Glob("testdata/query/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("corpus of %d files: %v", len(files), err)
	}
	for _, file := range files {
		sentence := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".txt"), "_", " ")
		t.Run(sentence, func(t *testing.T) {
			want, msg := readCase(t, file)
			if diff := cmp.Diff(want, outcome(t, msg)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// readCase reads a corpus file: the outcome's line, then hexadecimal with
// comments from # to the end of a line.
func readCase(t *testing.T, file string) (want string, msg []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, body, _ := strings.Cut(string(b), "\n")
	var digits strings.Builder
	for line := range strings.Lines(body) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	msg, err = hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return want, msg
}

// outcome says in a line what becomes of msg: "ignore", "proceed NAME TYPE
// CLASS" and "edns" if so, "cookie" for a query of that alone, or the error response as the oracle reads it:
// its code, "question" and "opt" if it has them, and its additional records.
func outcome(t *testing.T, msg []byte) string {
	t.Helper()
	var q wire.Query
	d := wire.ParseQuery(msg, &q)
	if d == wire.Ignore {
		return "ignore"
	}
	if d == wire.Proceed {
		s := "proceed " + q.Name.String() + " " + q.Type.String() + " " + q.Class.String()
		if q.EDNS {
			s += " edns"
		}
		return s
	}
	if d == wire.CookieQuery {
		return "cookie"
	}
	var b wire.Builder
	b.Start(make([]byte, 512), &q, wire.MinPayload)
	resp := b.Fail(d.RCode())
	m := new(dns.Msg)
	if err := m.Unpack(resp); err != nil {
		t.Fatalf("the oracle cannot read the response %x: %v", resp, err)
	}
	if m.Id != binary.BigEndian.Uint16(msg) || !m.Response || m.Opcode != int(msg[2]>>3&15) || m.Authoritative || m.Truncated || m.RecursionAvailable || m.AuthenticatedData || m.Zero || m.RecursionDesired != (msg[2]&1 != 0) {
		t.Errorf("header of the response is wrong: %s", m.MsgHdr.String())
	}
	s := dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeBadVers { // which shares its number with TSIG's BADSIG
		s = "BADVERS"
	}
	if len(m.Question) == 1 {
		if !bytes.Equal(resp[12:12+len(q.RawName)], msg[12:12+len(q.RawName)]) {
			t.Errorf("the question is not echoed as it came: %x", resp)
		}
		s += " question"
	}
	if opt := m.IsEdns0(); opt != nil {
		s += " opt"
		if opt.Version() != 0 || opt.UDPSize() != 1232 || opt.Z() != 0 || len(opt.Option) != 0 {
			t.Errorf("OPT of the response is wrong: %s", opt.String())
		}
	}
	if ts := m.IsTsig(); ts != nil {
		s += " tsig " + ts.Hdr.Name + " " + dns.RcodeToString[int(ts.Error)]
		if ts.MACSize != 0 || ts.OtherLen != 0 {
			t.Errorf("TSIG of the response is wrong: %s", ts.String())
		}
	}
	if len(m.Answer)+len(m.Ns) != 0 {
		t.Errorf("an error has records: %s", m.String())
	}
	return s
}

func TestParseQuery_EveryPrefixOfAMessage(t *testing.T) {
	whole := pack(t, "www.conf.test.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) })
	for n := range whole {
		want := "FORMERR"
		switch {
		case n < 12:
			want = "ignore"
		case n >= 12+19:
			want = "FORMERR question"
		}
		if got := outcome(t, whole[:n]); got != want {
			t.Errorf("first %d octets: %s, want %s", n, got, want)
		}
	}
}

func TestParseQuery_EveryOpcode(t *testing.T) {
	for op := range 16 {
		msg := pack(t, "conf.test.", dns.TypeSOA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
		msg[2] = byte(op << 3)
		want := "NOTIMP opt"
		switch wire.Opcode(op) {
		case wire.OpcodeQuery:
			want = "proceed conf.test. SOA IN edns"
		case wire.OpcodeUpdate:
			want = "REFUSED opt"
		}
		if got := outcome(t, msg); got != want {
			t.Errorf("opcode %d: %s, want %s", op, got, want)
		}
		if header := msg[:12:12]; op != 0 {
			header[5], header[11] = 0, 0 // a header alone, as RFC 8906 section 8.1.4 sends it
			if got := outcome(t, header); got != strings.TrimSuffix(want, " opt") {
				t.Errorf("opcode %d, header alone: %s", op, got)
			}
		}
	}
}

func TestParseQuery_Allocations(t *testing.T) {
	msg := pack(t, "web.svc.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) })
	var q wire.Query
	if n := testing.AllocsPerRun(100, func() { wire.ParseQuery(msg, &q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParseQuery holds the parser against the oracle: what proceeds has the
// question and OPT that miekg/dns reads, and what is answered with an error gets
// a response that miekg/dns reads.
func FuzzParseQuery(f *testing.F) {
	f.Add(pack(f, "WEB.svc.internal.", dns.TypeSRV, nil))
	f.Add(pack(f, ".", dns.TypeNS, func(m *dns.Msg) { m.SetEdns0(512, true) }))
	f.Add(pack(f, "a.", dns.TypeIXFR, func(m *dns.Msg) { m.SetIxfr("a.", 1, "b.", "c."); m.SetTsig("k.", dns.HmacSHA256, 300, 1) }))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got := outcome(t, msg)
		if !strings.HasPrefix(got, "proceed ") {
			return
		}
		var q wire.Query
		wire.ParseQuery(msg, &q)
		question := bytes.Clone(msg[:12+len(q.RawName)+4])
		copy(question[6:12], make([]byte, 6)) // no records
		m := new(dns.Msg)
		if err := m.Unpack(question); err != nil || len(m.Question) != 1 {
			t.Fatalf("the oracle cannot read the question of %x: %v", msg, err)
		}
		theirs := m.Question[0]
		if dns.CanonicalName(theirs.Name) != q.Name.String() || theirs.Qtype != uint16(q.Type) || theirs.Qclass != uint16(q.Class) || m.Id != q.ID || m.RecursionDesired != q.RD || m.CheckingDisabled != q.CD || m.AuthenticatedData != q.AD {
			t.Fatalf("%x: we read %s, the oracle %s", msg, got, m.String())
		}
		if m = new(dns.Msg); m.Unpack(msg) != nil {
			return // a record that means nothing to us is wrong inside
		}
		opt := m.IsEdns0()
		if (opt != nil) != q.EDNS || opt != nil && (max(opt.UDPSize(), 512) != q.UDPSize || opt.Do() != q.DO || opt.Version() != 0) {
			t.Fatalf("%x: the oracle's OPT is %v, ours %v size %d", msg, opt, q.EDNS, q.UDPSize)
		}
	})
}
