package wire_test

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// answerA and answerSRV compose the two answers that service discovery is about:
// five addresses, and five targets with theirs.
func answerA(b *wire.Builder, buf []byte, q *wire.Query) []byte {
	b.Start(buf, q, wire.MaxPayload)
	b.SetAA(true)
	for i := range 5 {
		b.A(wire.Answer, wire.RefQName, 5, [4]byte{10, 0, 0, byte(i)})
	}
	return b.Finish()
}

func answerSRV(b *wire.Builder, buf []byte, q *wire.Query, targets *[5]wire.Name) []byte {
	b.Start(buf, q, wire.MaxPayload)
	b.SetAA(true)
	var refs [5]wire.Ref
	for i := range targets {
		refs[i], _ = b.SRV(wire.Answer, wire.RefQName, 5, wire.SRV{Weight: 1, Port: 8080}, targets[i].Prefix(1), "\x03web\x03svc\x08internal\x00")
	}
	for i, ref := range refs {
		b.A(wire.Additional, ref, 5, [4]byte{10, 0, 0, byte(i)})
	}
	return b.Finish()
}

func answerNXDomain(b *wire.Builder, buf []byte, q *wire.Query, soa []byte) []byte {
	b.Start(buf, q, wire.MaxPayload)
	b.SetAA(true)
	b.SetRCode(wire.RCodeNXDomain)
	apex, _ := b.NameRef(q.Name.Suffix(q.Name.Labels() - 2))
	b.RRCompress(wire.Authority, apex, wire.TypeSOA, wire.ClassIN, 2, soa)
	return b.Finish()
}

func fixtures(t testing.TB) (q *wire.Query, targets *[5]wire.Name, soa []byte) {
	q, targets = new(wire.Query), new([5]wire.Name)
	if d := wire.ParseQuery(pack(t, "web.svc.internal.", dns.TypeA, edns), q); d != wire.Proceed {
		t.Fatal("not parsed")
	}
	for i := range targets {
		targets[i] = mustName(t, "web-"+string(rune('0'+i))+".web.svc.internal.")
	}
	_, soa = packRData(t, "svc.internal. 5 IN SOA ns1.svc.internal. hostmaster.svc.internal. 1 2 3 4 5")
	return q, targets, soa
}

// TestBuilder_Allocations: nothing on the query path allocates (errors too, as a
// flood of junk is a load like any other).
func TestBuilder_Allocations(t *testing.T) {
	q, targets, soa := fixtures(t)
	b, buf := new(wire.Builder), make([]byte, wire.MaxPayload)
	for name, f := range map[string]func(){
		"A":        func() { answerA(b, buf, q) },
		"SRV":      func() { answerSRV(b, buf, q, targets) },
		"NXDOMAIN": func() { answerNXDomain(b, buf, q, soa) },
		"EDE":      func() { b.Start(buf, q, 512); b.EDE(3, []byte("old")); b.Finish() },
		"Error":    func() { b.Start(buf, q, wire.MinPayload); b.Fail(wire.RCodeFormErr) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseQuery(b *testing.B) {
	msg := pack(b, "web.svc.internal.", dns.TypeA, edns)
	var q wire.Query
	b.ReportAllocs()
	for b.Loop() {
		wire.ParseQuery(msg, &q)
	}
}

func BenchmarkBuilder(b *testing.B) {
	q, targets, soa := fixtures(b)
	builder, buf := new(wire.Builder), make([]byte, wire.MaxPayload)
	b.Run("A5", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			answerA(builder, buf, q)
		}
	})
	b.Run("SRV5", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			answerSRV(builder, buf, q, targets)
		}
	})
	b.Run("NXDOMAIN", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			answerNXDomain(builder, buf, q, soa)
		}
	})
}
