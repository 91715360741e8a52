package pool

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// Mode says how the service's answer comes about: that of the family which most
// instances have.
func (s *Service) Mode() Mode {
	if s.ancestor {
		return ModeUnset
	}
	return s.mainGroup().mode
}

// AppendWhy appends why instance i is in or out, as one clause of printable
// ASCII. It allocates only to make dst longer.
func (s *Service) AppendWhy(dst []byte, i uint32) []byte {
	inst := &s.instances[i]
	switch inst.admin {
	case registry.AdminDrain, registry.AdminMaintenance, registry.AdminUp, registry.AdminDown:
		return s.appendAdmin(dst, i)
	case registry.AdminNone, registry.AdminFreeze:
	}
	mode := s.Mode()
	switch {
	case inst.kept != keptNone:
		return inst.appendKept(dst)
	case inst.in && mode == ModeFailOpen && inst.health != health.Passing:
		dst = append(dst, inst.health.String()...)
		return append(dst, ", served all the same: too little passes (fail-open)"...)
	case inst.in && inst.health == health.Unknown:
		return append(dst, "unknown, served since nothing passes yet"...)
	case inst.in && inst.lowered:
		return append(dst, "passing, its weight lowered since requests through the proxy fail"...)
	case inst.in && inst.slow:
		return append(dst, "passing, in slow start"...)
	case inst.in:
		return append(dst, "passing"...)
	case inst.health == health.Failing:
		return append(dst, "failing"...)
	case inst.health == health.Unknown:
		return append(dst, "not checked yet"...)
	case inst.weight == 0:
		return append(dst, "weight 0: served only when nothing else is left"...)
	default:
		dst = append(dst, "passing, but its tier (priority "...)
		dst = strconv.AppendUint(dst, uint64(s.faces.list[i].priority), 10)
		return append(dst, ") is not needed"...)
	}
}

// appendAdmin is AppendWhy for an instance of which an administrator spoke.
func (s *Service) appendAdmin(dst []byte, i uint32) []byte {
	inst := &s.instances[i]
	dst = append(dst, adminName(inst.admin)...)
	dst = append(dst, " by an administrator"...)
	a, there := s.admin[string(s.faces.labelOf(i)[1:])]
	if !there || a.State != inst.admin {
		a = s.admin["*"]
	}
	if !a.Until.IsZero() {
		dst = a.Until.UTC().AppendFormat(append(dst, " until "...), time.RFC3339)
	}
	if a.Reason != "" {
		dst = append(dst, ": "...)
		for _, c := range []byte(a.Reason) {
			if c < ' ' || c > '~' {
				c = '?'
			}
			dst = append(dst, c)
		}
	}
	return dst
}

// Why is AppendWhy as a string.
func (s *Service) Why(i uint32) string { return string(s.AppendWhy(nil, i)) }

// ttlNow is the TTL of an answer of the group given at the time now, and what
// decides it.
func (s *Service) ttlNow(g *Group, v *SourceView, now time.Time) (time.Duration, string) {
	ttl, why := g.ttl, "the service's or zone's"
	if g.ttl != s.settings.ttl {
		why = "the least of the instances'"
	}
	for t := range g.tiers {
		for n := range g.tiers[t].Size() {
			i := g.tiers[t].At(n)
			if left := LeftTTL(ttl, s.instances[i].deadline, now.UnixNano()); left < ttl {
				ttl = left
				why = fmt.Sprintf("what is known of instance %s may change by then", s.faces.labelOf(i)[1:])
			}
		}
	}
	if v != nil {
		if f, age := v.Freshness(now.UnixNano()); f == Stale && ttl > StaleTTL {
			ttl, why = StaleTTL, fmt.Sprintf("the registry's state is %d s old", age)
		}
	}
	return time.Duration(ttl) * time.Second, why
}

// StaleTTL is the greatest TTL in seconds of an answer from a state that is
// stale or from a snapshot: it may be wrong, so it is not to live long.
const StaleTTL = 5

// LeftTTL lowers a TTL to the whole seconds until deadline (ns since 1970;
// 0: none), and never below one, which caches need to help at all.
func LeftTTL(ttl uint32, deadline, now int64) uint32 {
	if deadline == 0 {
		return ttl
	}
	left := max((deadline-now)/int64(time.Second), 1)
	return uint32(min(left, int64(ttl)))
}

// wholeSeconds rounds up: TCP keepalives count in seconds.
func wholeSeconds(d time.Duration) time.Duration {
	return max((d + time.Second - 1).Truncate(time.Second), time.Second)
}

// detectionWhy says what a check's kind adds to detection's bound; empty:
// nothing.
func detectionWhy(targets []health.Target) string {
	for i := range targets {
		switch {
		case targets[i].Type == health.TypeHeld && len(targets) == 1:
			return "at once when its connection ends, as a process's does that dies; the bound is for a machine that falls silent"
		case targets[i].Keep || targets[i].Type == health.TypeHeld:
			return "sooner when its connection ends: it is checked again at once"
		}
	}
	return ""
}

// detection is the longest time from an instance's death to its absence from
// new answers: the wait for the first check that fails, which jitter may make
// longer, the checks that must follow, and the last one's timeout.
func detection(targets []health.Target) time.Duration {
	var longest time.Duration
	for i := range targets {
		t := &targets[i]
		d := t.Interval + t.Interval/health.JitterShare
		switch t.Type {
		case health.TypeTTL:
			d = t.Interval
		case health.TypeHeld:
			d = wholeSeconds(t.Interval) + wholeSeconds(t.Timeout)
		default:
			d += time.Duration(max(t.Fall-1, 0))*max(cmp.Or(t.FastInterval, t.Interval), t.Timeout) + t.Timeout
		}
		longest = max(longest, d)
	}
	return longest
}
