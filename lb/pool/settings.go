package pool

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// The built-in defaults: the last layer.
const (
	ttlDefault        = 5 * time.Second // short, since caches keep what has died; long enough to help
	staleAfterDefault = 10 * time.Second
	slowStartDefault  = 0

	intervalDefault     = 2 * time.Second
	timeoutDefault      = time.Second
	fastIntervalDefault = 500 * time.Millisecond
	riseDefault         = 2
	fallDefault         = 3
)

// sourcesMax bounds SourceIDs, which index a table.
const sourcesMax = 1024

// HashOn says what the hash policy hashes. Zero is the client's address.
type HashOn uint8

// What can be hashed.
const (
	HashClient HashOn = iota // the address that asks
	HashSubnet               // its /24 or /56
	HashName                 // only what a `_hash` name brings
)

// policyKind is what the pool itself must know of a policy.
type policyKind uint8

const (
	policyWeighted policyKind = iota
	policyRoundRobin
	policyLeastLoaded
	policyHash
	policyAll
)

// settings is the policy of a service with every layer applied. Immutable, and
// shared by the services of a source that have none of their own.
type settings struct {
	policy   registry.Service // no field is unset but Name, Meta, Revision
	pick     lb.Policy
	kind     policyKind
	hashOn   HashOn
	answers  int // 0: auto
	ttl      uint32
	vips     [2][]netip.Addr // by family
	places   []place         // that it fails over to
	tierRule lb.TierRule
	failOpen bool
	ownTTLs  bool // Source.OwnTTLs
	slow     time.Duration
	nobody   Group // of sets and families that have no instance
}

// Validate reports the first setting that is wrong, by its path.
func (s *Settings) Validate() error {
	seen := map[registry.SourceID]bool{}
	for i := range s.Sources {
		src := &s.Sources[i]
		switch {
		case src.ID == 0 || src.ID > sourcesMax:
			return fmt.Errorf("sources[%d].id: %d: must be 1 to %d", i, src.ID, sourcesMax)
		case seen[src.ID]:
			return fmt.Errorf("sources[%d].id: %d: there are two of it", i, src.ID)
		case !isDomain(src.Zone):
			return fmt.Errorf("sources[%d].zone: %q: is not an absolute lower-case domain name", i, src.Zone)
		case src.TTL < 0:
			return fmt.Errorf("sources[%d].ttl: %s: must not be negative", i, src.TTL)
		}
		seen[src.ID] = true
		for j := range src.Defaults {
			d := &src.Defaults[j]
			if _, err := lb.ByName(cmp.Or(d.Policy, "weighted")); err != nil {
				return fmt.Errorf("sources[%d].defaults[%d].policy: %w", i, j, err)
			}
			if d.Name == "" {
				return fmt.Errorf("sources[%d].defaults[%d].name: must not be empty", i, j)
			}
		}
	}
	if s.StaleAfter < 0 || s.MaxStale < 0 {
		return fmt.Errorf("stale_after %s, max_stale %s: must not be negative", s.StaleAfter, s.MaxStale)
	}
	return nil
}

// isDomain reports whether s is an absolute name of plain labels.
func isDomain(s string) bool {
	rest, absolute := strings.CutSuffix(s, ".")
	if !absolute || len(s) > 254 {
		return false
	}
	for label := range strings.SplitSeq(rest, ".") {
		if rest != "" && !isLabel([]byte(strings.ReplaceAll(label, "_", "x"))) {
			return false
		}
	}
	return true
}

// withDefaults fills the zero fields.
func (d CheckDefaults) withDefaults() CheckDefaults {
	d.Interval = cmp.Or(d.Interval, intervalDefault)
	d.Timeout = cmp.Or(d.Timeout, timeoutDefault)
	d.FastInterval = cmp.Or(d.FastInterval, fastIntervalDefault)
	d.Rise = cmp.Or(d.Rise, riseDefault)
	d.Fall = cmp.Or(d.Fall, fallDefault)
	return d
}

// newSettings applies the layers: the service's own key, the configuration by
// name, the configuration for all, the zone, the built-in defaults.
func newSettings(src *source, name string, own *registry.Service) *settings {
	var p registry.Service
	if own != nil {
		p = *own
	}
	for _, n := range [...]string{name, "*"} {
		for i := range src.cfg.Defaults {
			if src.cfg.Defaults[i].Name == n {
				p = src.cfg.Defaults[i].Merge(p)
			}
		}
	}
	threshold, slow := 0.0, time.Duration(slowStartDefault)
	p = registry.Service{
		Policy: "weighted", TTL: src.cfg.TTL, MaxAnswers: registry.MaxAnswersAuto, HashOn: "client",
		Checks: []registry.Check{}, Fail: "open", PanicThreshold: &threshold, SlowStart: &slow, Spill: "auto",
	}.Merge(p)
	s := &settings{policy: p, ttl: clampTTL(p.TTL), slow: *p.SlowStart, failOpen: p.Fail == "open", ownTTLs: src.cfg.OwnTTLs}
	s.answers = max(p.MaxAnswers, 0)
	for _, a := range p.VIP {
		f := FamilyAAAA
		if a.Is4() {
			f = FamilyA
		}
		s.vips[f] = append(s.vips[f], a)
	}
	s.nobody = Group{mode: ModeEmpty, ttl: s.ttl}
	s.places = placesOf(p.Failover)
	s.choose()
	return s
}

// choose translates the words of the policy.
func (s *settings) choose() {
	s.pick = lb.Weighted
	if pick, err := lb.ByName(s.policy.Policy); err == nil {
		s.pick = pick
	}
	switch s.policy.Policy {
	case "round-robin":
		s.kind = policyRoundRobin
	case "least-loaded":
		s.kind = policyLeastLoaded
	case "hash":
		s.kind = policyHash
	case "all":
		s.kind = policyAll
	}
	switch s.policy.HashOn {
	case "subnet":
		s.hashOn = HashSubnet
	case "name":
		s.hashOn = HashName
	}
	switch s.policy.Spill {
	case "proportional":
		s.tierRule.Spill = lb.SpillProportional
	case "when-empty":
		s.tierRule.Spill = lb.SpillWhenEmpty
	}
	// A threshold means "rather the ill ones too", which closed and tier rule
	// out.
	if s.failOpen {
		s.tierRule.PanicPercent = percent(*s.policy.PanicThreshold)
		s.tierRule.FailOpen = true
	}
}

// millis is a TTL as records keep it.
func millis(ms uint32) time.Duration { return time.Duration(ms) * time.Millisecond }

// clampTTL is d in whole seconds, rounded up, within registry.TTLMin and TTLMax.
func clampTTL(d time.Duration) uint32 {
	d = min(max(d, registry.TTLMin), registry.TTLMax)
	return uint32((d + time.Second - 1) / time.Second)
}

// hasOwn reports whether a name has settings apart from the source's own.
func (src *source) hasOwn(name string) bool {
	return slices.ContainsFunc(src.cfg.Defaults, func(d registry.Service) bool { return d.Name == name })
}

// settingsFor returns the settings of a service.
func (src *source) settingsFor(name string, own *registry.Service) *settings {
	if own == nil && !src.hasOwn(name) {
		return src.common
	}
	return newSettings(src, name, own)
}

// parentOf splits the first label off a service name; rest is "" when it has
// only one.
func parentOf(name string) (first, rest string) {
	first, rest, _ = strings.Cut(name, ".")
	return first, rest
}
