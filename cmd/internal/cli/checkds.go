package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/sign"
)

// checkDelegations holds the DS records that zone files have of other zones that are served
// against the keys of those: with records of others alone validators take all of such a zone
// for forged (RFC 4035 section 5).
func (s *session) checkDelegations(cfg *config.Config, read []*zones.Zone, apexes []wire.Name) (warnings int) {
	for i := range cfg.Zones {
		child, err := wire.ParseName(cfg.Zones[i].Name)
		if err != nil {
			continue // has been told
		}
		parent := fileOf(read, above(apexes, &child))
		if parent == nil {
			continue
		}
		ds := recordsOf(parent, child, wire.TypeDS)
		if len(ds) == 0 {
			continue
		}
		keys, mend, err := zoneKeys(&cfg.Zones[i], fileOf(read, &child), child)
		if err != nil || slices.ContainsFunc(ds, func(ds []byte) bool {
			return slices.ContainsFunc(keys, func(key []byte) bool {
				_, counts := sign.Describes(ds, &child, key)
				return counts
			})
		}) {
			continue
		}
		wrong := "and none is of a key that it is signed with: validators take nothing of it"
		if len(keys) == 0 {
			wrong, mend = "which is not signed: validators take nothing of it", ": take them out, or sign it (dnssec)"
		}
		fmt.Fprintf(s.stdout, "warning: %s has DS records of %s, %s%s\n", parent.Apex().String(), child.String(), wrong, mend)
		warnings++
	}
	return warnings
}

// zoneKeys are the DNSKEY records of a zone: of the keys that sign it, or that its file has;
// and, of the former, what mends DS records of none.
func zoneKeys(z *config.Zone, file *zones.Zone, apex wire.Name) (keys [][]byte, mend string, err error) {
	if z.DNSSEC == "" {
		if file != nil {
			keys = recordsOf(file, apex, wire.TypeDNSKEY)
		}
		return keys, "", nil
	}
	all, err := sign.ReadDir(z.DNSSEC, apex)
	if err != nil {
		return nil, "", err // has been told
	}
	var right []string
	for _, k := range all {
		if k.Signs(time.Now()) {
			keys = append(keys, k.DNSKEY())
		}
		if !k.Retiring() {
			right = append(right, k.DSText())
		}
	}
	return keys, ": the right ones are: " + strings.Join(right, ", "), nil
}

// above is the apex next above a name; nil: there is none.
func above(apexes []wire.Name, name *wire.Name) *wire.Name {
	var nearest *wire.Name
	least := 0
	for i := range apexes {
		if depth, inside := name.Below(&apexes[i]); inside && depth > 0 && (nearest == nil || depth < least) {
			nearest, least = &apexes[i], depth
		}
	}
	return nearest
}

// fileOf is the zone of an apex that was read from a file; nil: there is none.
func fileOf(read []*zones.Zone, apex *wire.Name) *zones.Zone {
	for _, z := range read {
		if apex != nil && z.Apex().Equal(apex) {
			return z
		}
	}
	return nil
}

// recordsOf is the data that a zone has of a name and type.
func recordsOf(z *zones.Zone, name wire.Name, typ wire.Type) (out [][]byte) {
	tree, err := zones.NewTree([]*zones.Zone{z})
	if err != nil {
		return nil // unreachable: one zone stands beside no other
	}
	var a zones.Answer
	if tree.Lookup(&name, typ, &a); a.Kind == zones.Found {
		a.RRset.All(func(rdata []byte) bool {
			out = append(out, slices.Clone(rdata))
			return true
		})
	}
	return out
}
