package wire_test

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// TestType_NamesAsTheOracleHasThem: every mnemonic of ours is the oracle's, and
// reads back; the others are TYPE123 (RFC 3597 section 5).
func TestType_NamesAsTheOracleHasThem(t *testing.T) {
	named := 0
	for i := range 1 << 16 {
		typ := wire.Type(i)
		s := typ.String()
		if back, ok := wire.ParseType(s); !ok || back != typ {
			t.Fatalf("type %d is %q, which reads as %d, %v", i, s, back, ok)
		}
		if theirs, ok := dns.TypeToString[uint16(i)]; s[:min(4, len(s))] != "TYPE" {
			named++
			if ok && s != theirs {
				t.Errorf("type %d is %q, the oracle has %q", i, s, theirs)
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d types have names", named)
	}
}

func TestParseType(t *testing.T) {
	for s, want := range map[string]wire.Type{"srv": wire.TypeSRV, "Aaaa": wire.TypeAAAA, "TYPE1": wire.TypeA, "type65280": 65280, "TYPE0": 0} {
		if got, ok := wire.ParseType(s); !ok || got != want {
			t.Errorf("%s: got %d, %v; want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "TYPE1x", "NOSUCH", "A ", "IN"} {
		if got, ok := wire.ParseType(s); ok {
			t.Errorf("%q is taken for type %d", s, got)
		}
	}
}

func TestClassAndRCode_String(t *testing.T) {
	for c, want := range map[wire.Class]string{wire.ClassIN: "IN", wire.ClassCH: "CH", wire.ClassNONE: "NONE", wire.ClassANY: "ANY", 0: "CLASS0"} {
		if c.String() != want {
			t.Errorf("class %d is %s, want %s", uint16(c), c, want)
		}
	}
	for c := range wire.RCode(11) {
		if theirs := dns.RcodeToString[int(c)]; c.String() != theirs && c.String()[:5] != "RCODE" {
			t.Errorf("code %d is %s, the oracle has %s", uint16(c), c, theirs)
		}
	}
	if wire.RCodeBadVers.String() != "BADVERS" || wire.RCode(4000).String() != "RCODE4000" {
		t.Error("codes above 15 have wrong names")
	}
}
