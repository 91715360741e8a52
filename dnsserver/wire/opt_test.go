package wire_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

func TestBuilder_OPT(t *testing.T) {
	b := start(t, "web.svc.internal.", dns.TypeA, 512, edns)
	b.SetRCode(wire.RCodeBadVers)
	b.EDE(wire.EDEStale, []byte("etcd away for 12 s"))
	if !b.Option(65001, []byte("x")) {
		t.Error("an option does not fit")
	}
	m := read(t, b)
	opt := m.IsEdns0()
	if opt == nil || opt.UDPSize() != 1232 || opt.Version() != 0 || !opt.Do() || opt.Z() != 0 || m.Rcode != dns.RcodeBadVers || len(opt.Option) != 2 {
		t.Fatalf("OPT %v, code %d", opt, m.Rcode)
	}
	if ede := opt.Option[0].(*dns.EDNS0_EDE); ede.InfoCode != dns.ExtendedErrorCodeStaleAnswer || ede.ExtraText != "etcd away for 12 s" {
		t.Errorf("extended error %v", ede)
	}
}

func TestBuilder_EDE_TextIsCutAtARune(t *testing.T) {
	b := start(t, "a.", dns.TypeA, 512, edns)
	b.EDE(wire.EDEOther, []byte(strings.Repeat("x", 63)+"\u00e9"))
	if ede := read(t, b).IsEdns0().Option[0].(*dns.EDNS0_EDE); ede.ExtraText != strings.Repeat("x", 63) {
		t.Errorf("text %q", ede.ExtraText)
	}
}

func TestBuilder_OptionsOnlyForThoseWithEDNS(t *testing.T) {
	b := start(t, "a.", dns.TypeA, 512, nil)
	b.EDE(wire.EDEStale, nil)
	if b.Option(65001, nil) {
		t.Error("an option without EDNS")
	}
	b.SetRCode(wire.RCodeBadVers)
	if m := read(t, b); len(m.Extra) != 0 || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s: an extended code needs an OPT record", m)
	}
}

func TestBuilder_OptionsAreBounded(t *testing.T) {
	b := start(t, "a.", dns.TypeA, wire.MaxPayload, edns)
	n := 0
	for b.Option(65001, make([]byte, 60)) {
		n++
	}
	if n != 4 || b.Option(65001, make([]byte, 1)) {
		t.Errorf("%d options of 64 octets, want 4 in 256", n)
	}
	if got := len(read(t, b).IsEdns0().Option); got != n {
		t.Errorf("%d options arrive, want %d", got, n)
	}
	b = start(t, "a.", dns.TypeA, 512, edns)
	for b.A(wire.Answer, wire.RefQName, 1, [4]byte{}) {
	}
	if b.Option(65001, make([]byte, 60)) || len(b.Finish()) > 512 {
		t.Error("an option is written beyond the message's limit")
	}
}
