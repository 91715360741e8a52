package resolver_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// zonemasterAllows is what Zonemaster may remark on a zone at the level NOTICE, and why it
// stands. Anything else, and whatever is graver, fails the test.
var zonemasterAllows = map[string]map[string]string{
	liveSigned: {
		"SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER": "a name that is not there now may be there in a moment: 2 s (negative_ttl)",
		"Z09_MISSING_MAIL_TARGET":             "no mail goes to a service zone",
	},
	livePlain: {
		"SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER": "as above",
		"Z09_MISSING_MAIL_TARGET":             "as above",
		"NEITHER_DNSKEY_NOR_DS":               "it is not signed",
		"NOT_SIGNED":                          "it is not signed",
	},
	stillSigned: {},
	stillPlain: {
		"NEITHER_DNSKEY_NOR_DS": "it is not signed",
		"NOT_SIGNED":            "it is not signed",
	},
}

// TestZonemaster_FindsNothing has Zonemaster, by whose tests registries take delegations,
// look at service and static zones, signed and not.
func TestZonemaster_FindsNothing(t *testing.T) {
	inWorld(t, 4*time.Minute, func(w *world) {
		cli := find(t, "zonemaster-cli", "zonemaster-cli")
		for _, zone := range []string{liveSigned, livePlain} {
			if err := w.register(t.Context(), zone, "web", "one", "10.9.0.1"); err != nil {
				t.Fatal(err)
			}
		}
		for zone, allowed := range zonemasterAllows {
			out, err := exec.CommandContext(t.Context(), cli, "--hints", w.lab.Path("hints"), "--json", "--no-json-translate", "--level", "INFO", strings.TrimSuffix(zone, ".")).Output()
			if err != nil {
				t.Fatalf("%s: zonemaster-cli: %v\n%s", zone, err, out)
			}
			var said []struct {
				Level, Module, Tag string
				Args               map[string]any
			}
			if err := json.Unmarshal(out, &said); err != nil {
				t.Fatalf("%s: %v\n%s", zone, err, out)
			}
			tests := map[string]bool{}
			for _, m := range said {
				tests[m.Module] = true
				if m.Level != "INFO" && (m.Level != "NOTICE" || allowed[m.Tag] == "") {
					t.Errorf("%s: %s %s %v", zone, m.Level, m.Tag, m.Args)
				}
			}
			for _, module := range []string{"CONNECTIVITY", "CONSISTENCY", "DELEGATION", "DNSSEC", "NAMESERVER", "ZONE"} {
				if !tests[module] {
					t.Errorf("%s: nothing is said of %s: %s", zone, module, out)
				}
			}
		}
	})
}
