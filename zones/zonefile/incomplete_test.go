package zonefile_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/zones/zonefile"
)

// TestParse_IncompleteRecords: in CVE-2018-17419 a TA record that ended early was read
// through a nil pointer. Of each type there is, records that end after any word are
// either read or refused with the line.
func TestParse_IncompleteRecords(t *testing.T) {
	words := strings.Fields("1 1 1 a.example. 1 1 20260101000000 20260101000000 1 a.example. AAAA \"x\" - \\# 4 00000000 ( )")
	for _, typ := range slices.Sorted(maps.Values(dns.TypeToString)) {
		for n := range words {
			for _, end := range []string{"", "\n", " ;", " \"", " (", " \\"} {
				text := "@ 60 SOA ns1 root 1 1 1 1 1\n@ 60 NS ns1\nns1 60 A 192.0.2.1\nx 60 IN " + typ + " " + strings.Join(words[:n], " ") + end
				z, _, err := zonefile.Parse(strings.NewReader(text), "bad.zone", "example.")
				if (z == nil) != (err != nil) || err != nil && !strings.HasPrefix(err.Error(), "bad.zone:") {
					t.Fatalf("%q: zone %v with error %v", text, z, err)
				}
			}
		}
	}
}
