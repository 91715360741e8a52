package locality_test

import (
	"net/netip"
	"testing"

	"github.com/musterdns/muster/lb/locality"
)

func TestTable_Find(t *testing.T) {
	var list []locality.Network
	for i, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/8", "0.0.0.0/0"} {
		list = append(list, locality.Network{Prefix: netip.MustParsePrefix(p), Locality: uint16(i + 1)})
	}
	table, err := locality.New(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		addr  string
		bits  uint8
		want  uint16
		scope uint8
	}{
		{"10.9.9.9", 32, 1, 24},
		{"10.1.9.9", 32, 2, 24},
		{"10.1.2.9", 32, 3, 24},
		{"::ffff:10.1.2.9", 32, 3, 24},
		{"10.1.2.0", 16, 2, 16}, // a resolver that tells 16 bits alone
		{"192.0.2.1", 32, 5, 24},
		{"fd12::1", 128, 4, 8},
		{"2001:db8::1", 128, 0, 8},
	} {
		if got, scope := table.Find(netip.MustParseAddr(tt.addr), tt.bits); got != tt.want || scope != tt.scope {
			t.Errorf("%s/%d: locality %d by %d bits, want %d by %d", tt.addr, tt.bits, got, scope, tt.want, tt.scope)
		}
	}
	if got, scope := (*locality.Table)(nil).Find(netip.MustParseAddr("10.0.0.1"), 32); got != 0 || scope != 0 {
		t.Errorf("without a table: %d, %d", got, scope)
	}
	addr := netip.MustParseAddr("10.1.9.9")
	if n := testing.AllocsPerRun(100, func() { table.Find(addr, 32) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, bad := range [][]locality.Network{{{Prefix: list[0].Prefix}}, {list[0], list[0]}, {{Locality: 1}}} {
		if _, err := locality.New(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
