package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/zones/service"
)

func (v *validator) zones() {
	if len(v.c.Zones) == 0 {
		v.warn("zones", "is empty: every question is refused or forwarded", "name at least one zone")
	}
	for i, z := range v.c.Zones {
		at := index("zones", i)
		v.zoneKeys(at, z)
		for _, other := range v.c.Zones[:i] {
			v.zonePair(at, z, other)
		}
	}
}

// zoneKeys checks that a zone has the keys of its source and no others.
func (v *validator) zoneKeys(at string, z Zone) {
	set := func(key string) bool { _, ok := v.c.where[at+"."+key]; return ok }
	switch z.Source {
	case SourceMuster, SourceSkyDNS:
	case SourceNaming:
		if z.Prefix == "" {
			v.bad(at, "prefix is missing: source is naming", "set it to what the keys of the targets begin with, as /services")
		}
	case SourceReverse:
		if !inside(z.Name, "in-addr.arpa.") && !inside(z.Name, "ip6.arpa.") {
			v.bad(at+".name", quote(z.Name)+": is no reverse zone", "use a name below in-addr.arpa. or ip6.arpa.")
		}
	case SourceFile:
		if z.File == "" {
			v.bad(at, "file is missing: source is file", "name the zone's master file")
		}
	default:
		v.bad(at, "source is missing", "set it to muster, naming, skydns, reverse or file")
		return
	}
	v.key(at+".notify_tsig", z.NotifyTSIG)
	if z.NotifyTSIG != "" && len(z.Notify) == 0 {
		v.bad(at+".notify_tsig", "has no effect: notify names nobody", "take it out, or name secondaries")
	}
	if len(z.Notify) > 0 && z.Source == SourceReverse {
		v.bad(at+".notify", "has no effect: a zone of source reverse has no transfers", "take it out")
	}
	if z.Source != SourceFile && set("file") {
		v.bad(at+".file", "has no effect: source is "+string(z.Source), "set source to file, or take it out")
	}
	if !z.Source.Services() && set("prefix") {
		v.bad(at+".prefix", "has no effect: source is "+string(z.Source), "set source to muster, naming or skydns, or take it out")
	}
	v.nameServers(at, z)
	if e := z.SOA.Expire; e != 0 && e <= z.SOA.Refresh {
		v.bad(at+".soa.expire", short(e)+" is no more than refresh", "make it days: it is how long secondaries answer without having reached the server")
	}
	if z.Source == SourceFile {
		for _, key := range []string{"name_servers", "soa"} {
			if set(key) {
				v.bad(at+"."+key, "has no effect: the master file has these records", "take it out")
			}
		}
		for _, key := range []string{"ttl", "negative_ttl"} {
			if v.c.where[at+"."+key] != v.c.where[at] { // a default stands where its entry does
				v.bad(at+"."+key, "has no effect: the master file has the TTLs", "take it out")
			}
		}
	}
}

// nameServers checks the name servers of a zone.
func (v *validator) nameServers(at string, z Zone) {
	if len(z.NameServers) > service.ServersMax {
		v.bad(at+".name_servers", fmt.Sprintf("has %d name servers", len(z.NameServers)), fmt.Sprintf("list at most %d", service.ServersMax))
	}
	for i, n := range z.NameServers {
		at := index(at+".name_servers", i)
		label, below := strings.CutSuffix(n.Name, "."+z.Name)
		switch {
		case slices.ContainsFunc(z.NameServers[:i], func(o NameServer) bool { return o.Name == n.Name }):
			v.bad(at+".name", quote(n.Name)+": is there twice", "keep one, with all addresses")
		case n.Name == z.Name, below && strings.Contains(strings.ReplaceAll(label, `\.`, ""), "."):
			v.bad(at+".name", quote(n.Name)+": lies deeper in the zone, or is its name", "use a name right below the zone's, such as ns1."+z.Name+", or one outside")
		case below && len(n.Addresses) == 0:
			v.bad(at, "addresses are missing: the name is below the zone's, and nobody else has them", "list them, as the parent zone's glue does")
		case !below && len(n.Addresses) > 0:
			v.bad(at+".addresses", "has no effect: "+quote(n.Name)+" lies outside the zone, and its own zone has them", "take it out")
		}
	}
}

// zonePair checks a zone against an earlier one.
func (v *validator) zonePair(at string, z, other Zone) {
	switch {
	case z.Name == other.Name:
		v.bad(at+".name", quote(z.Name)+": is there twice", "keep one")
	case other.Source.Services() && inside(z.Name, other.Name):
		v.bad(at+".name", fmt.Sprintf("%q: lies inside the service zone %q and would hide services", z.Name, other.Name), "use a name outside it")
	case z.Source.Services() && inside(other.Name, z.Name):
		v.bad(at+".name", fmt.Sprintf("%q: is a service zone around the zone %q, which would hide services", z.Name, other.Name), "use a name not around it")
	}
	if !z.Source.Services() || !other.Source.Services() {
		return
	}
	if a, b := z.Prefix+"/", other.Prefix+"/"; z.Prefix != "" && other.Prefix != "" && overlap(a, b) && !apart(z, other) && !apart(other, z) {
		key := at + ".prefix"
		if v.c.where[key] == (Origin{}) {
			key = at
		}
		v.bad(key, fmt.Sprintf("prefix %q overlaps with %q of zone %q", z.Prefix, other.Prefix, other.Name), "give each service zone a prefix of its own")
	}
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// apart reports whether a foreign zone's keys lie where no record of a native
// one's can.
func apart(foreign, zone Zone) bool {
	return foreign.Source != SourceMuster && zone.Source == SourceMuster && strings.HasPrefix(foreign.Prefix, zone.Prefix+"/zones/")
}

func (v *validator) services() {
	seen := map[[2]string]bool{}
	for i, s := range v.c.Services {
		at := index("services", i)
		switch {
		case s.Zone == "":
			v.bad(at, "zone is missing: there is not exactly one service zone", "name the service zone")
		case !v.isServiceZone(s.Zone):
			v.bad(at+".zone", quote(s.Zone)+": is no service zone", "use the name of one")
		}
		if seen[[2]string{s.Zone, s.Name}] {
			v.bad(at+".name", fmt.Sprintf("%q: is there twice for zone %q", s.Name, s.Zone), "keep one")
		}
		seen[[2]string{s.Zone, s.Name}] = true
		if s.HashOn != "" && s.Policy != "" && s.Policy != "hash" {
			v.bad(at+".hash_on", "has no effect: policy is "+s.Policy, "set policy to hash, or take it out")
		}
		policy := s.Service
		policy.Checks = nil // each is checked below, so that every problem is told
		v.record(at, policy.Validate())
		if len(s.Checks) > registry.ChecksMax {
			v.bad(at+".checks", fmt.Sprintf("has %d checks", len(s.Checks)), fmt.Sprintf("list at most %d", registry.ChecksMax))
		}
		for j, c := range s.Checks {
			v.check(index(at+".checks", j), c)
		}
	}
}

// record adds the problem that the registry finds with a part of the entry at
// the key given.
func (v *validator) record(at string, err error) {
	field, ok := errors.AsType[*registry.FieldError](err)
	if !ok {
		return // Validate returns no others
	}
	key := at + "." + field.Field
	if _, set := v.c.where[key]; !set {
		v.bad(at, field.Field+" "+field.Reason, field.Mend)
		return
	}
	text := field.Reason
	if field.Value != "" {
		text = field.Value + ": " + text
	}
	v.bad(key, text, field.Mend)
}

func (v *validator) isServiceZone(name string) bool {
	for _, z := range v.c.Zones {
		if z.Name == name && z.Source.Services() {
			return true
		}
	}
	return false
}

// checkKinds says which kinds of check each key is for; others are for all.
var checkKinds = map[string]string{
	"path": "http https held", "host": "http https held", "method": "http https held", "status": "http https held",
	"insecure": "https", "service": "grpc", "name": "dns", "record": "dns", "keep": "http https grpc", "command": "exec",
}

func (v *validator) check(at string, c registry.Check) {
	for _, k := range checkKeys().keys {
		kinds, some := checkKinds[k.name]
		_, set := v.c.where[at+"."+k.name]
		if some && set && !strings.Contains(" "+kinds+" ", " "+c.Type+" ") {
			v.bad(at+"."+k.name, "has no effect: type is "+c.Type, "it is for "+strings.ReplaceAll(kinds, " ", " and "))
		}
	}
	v.record(at, c.Validate())
	// A timeout by default is cut to a shorter interval; one that was written is not.
	interval := cmp.Or(c.Interval, v.c.Health.Defaults.Interval)
	if c.Type != "ttl" && c.Timeout > interval {
		v.bad(at+".timeout", fmt.Sprintf("%q: is more than the interval, %s: checks would overlap", short(c.Timeout), short(interval)), "make it at most the interval")
	}
}
