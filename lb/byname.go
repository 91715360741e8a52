package lb

import (
	"fmt"
	"strings"
)

// policies is the names that configuration and registry keys use.
var policies = [...]struct {
	name   string
	policy Policy
}{
	{"weighted", Weighted},
	{"round-robin", RoundRobin},
	{"least-loaded", LeastLoaded},
	{"hash", Hash},
	{"all", All},
}

// Names lists the policies by name, the default first.
func Names() []string {
	names := make([]string, len(policies))
	for i := range policies {
		names[i] = policies[i].name
	}
	return names
}

// ByName returns the policy of that exact name. The error names what was asked
// for and lists what there is.
func ByName(name string) (Policy, error) {
	for i := range policies {
		if policies[i].name == name {
			return policies[i].policy, nil
		}
	}
	return nil, fmt.Errorf("unknown policy %q: must be one of %s", name, strings.Join(Names(), ", "))
}
