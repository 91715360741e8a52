package wire_test

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// TestType_NamesAsTheOracleHasThem: every mnemonic of ours is the oracle's, and
// of one type; the others are TYPE123 (RFC 3597 section 5).
func TestType_NamesAsTheOracleHasThem(t *testing.T) {
	named := 0
	types := map[string]wire.Type{}
	for i := range 1 << 16 {
		typ := wire.Type(i)
		s := typ.String()
		if other, ok := types[s]; ok {
			t.Fatalf("types %d and %d are %q", other, typ, s)
		}
		types[s] = typ
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
