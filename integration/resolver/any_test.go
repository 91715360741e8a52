package resolver_test

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestValidators_believeANY: what there is of a name for ANY, one set (RFC 8482 section 4.1)
// or one made up (section 4.2), validates, and so do a wildcard's and what is denied. Knot
// Resolver asks nobody for ANY: it answers SERVFAIL of itself, for zones that are not signed
// as well. BIND answers it with what it has of a name by then, of an apex also the parent's
// NS, which nobody signs.
func TestValidators_believeANY(t *testing.T) {
	inWorld(t, 3*time.Minute, func(w *world) {
		if err := w.register(t.Context(), liveSigned, "web", "stable", "10.9.0.1"); err != nil {
			t.Fatal(err)
		}
		for _, v := range w.validators() {
			plain, err := v.ask(t.Context(), "www."+stillPlain, dns.TypeANY)
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			if plain.Rcode == dns.RcodeServerFailure && v.name == "Knot Resolver" {
				t.Logf("%s does not ask for ANY", v.name)
				continue
			}
			for name, there := range map[string]bool{
				"web.live.city.": true, "stable.web.live.city.": true, "live.city.": true, "_tcp.web.live.city.": false, "nobody.live.city.": false,
				"www.still.city.": true, "still.city.": true, "chain.still.city.": true, "a.wild.still.city.": true, "b.ent.still.city.": false, "nobody.still.city.": false,
			} {
				if v.name == "BIND" && dns.CountLabel(name) == 2 {
					continue
				}
				r, err := v.ask(t.Context(), name, dns.TypeANY)
				if err != nil {
					t.Errorf("%s: %s ANY: %v", v.name, name, err)
					continue
				}
				if r.Rcode != dns.RcodeSuccess && (there || r.Rcode != dns.RcodeNameError) || !r.AuthenticatedData || len(r.Answer) > 0 != there {
					t.Errorf("%s: want it authenticated and there %t:\n%s", v.name, there, r)
				}
			}
		}
	})
}
