package authority

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Rule says who may ask for the names at and below Zone. Of the rules whose zone
// a name lies under, label by label, the one with the longest zone decides; a
// name that no rule speaks of may be asked for by everyone.
type Rule struct {
	Zone  string // a domain name; "*" or "." for all names
	Allow []netip.Prefix
}

// rule is a Rule made ready.
type rule struct {
	zone  wire.Name
	allow []netip.Prefix
}

// newRules checks the rules and puts those with the longest zone first.
func newRules(in []Rule) ([]rule, error) {
	rules := make([]rule, 0, len(in))
	for i, r := range in {
		name, err := ruleZone(r.Zone)
		if err != nil {
			return nil, fmt.Errorf("Access[%d].Zone: %w", i, err)
		}
		for j, p := range r.Allow {
			if !p.IsValid() {
				return nil, fmt.Errorf("Access[%d].Allow[%d]: not a network", i, j)
			}
		}
		for _, earlier := range rules {
			if earlier.zone.Equal(&name) {
				return nil, fmt.Errorf("Access[%d].Zone: %s has a rule already", i, name.String())
			}
		}
		rules = append(rules, rule{name, slices.Clone(r.Allow)})
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(b.zone.Labels(), a.zone.Labels()) })
	for len(rules) > 0 && rules[len(rules)-1].open() {
		rules = rules[:len(rules)-1] // as if it were not there: nothing is below it
	}
	return rules, nil
}

// ruleZone is the zone of a rule.
func ruleZone(zone string) (wire.Name, error) {
	if zone == "*" {
		zone = "."
	}
	return wire.ParseName(zone)
}

// open reports whether the rule allows everyone.
func (r *rule) open() bool {
	return slices.Contains(r.allow, netip.PrefixFrom(netip.IPv4Unspecified(), 0)) &&
		slices.Contains(r.allow, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
}

// allows reports whether client may ask for name.
func (p *policy) allows(name *wire.Name, client netip.Addr) bool {
	for i := range p.rules {
		if _, ok := name.Below(&p.rules[i].zone); ok {
			return contains(p.rules[i].allow, client)
		}
	}
	return true
}

// whyLabel begins the names under which a dynamic zone explains itself.
const whyLabel = "_why"

// explains reports whether name asks for an explanation.
func explains(name *wire.Name) bool { return name.Labels() > 0 && string(name.Label(0)) == whyLabel }

func contains(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// loopback is the networks of this host alone.
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// private is the networks that the internet does not reach: loopback, RFC 1918,
// link-local (RFC 3927, RFC 4291) and unique local (RFC 4193).
func private() []netip.Prefix {
	return append(loopback(),
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"))
}
