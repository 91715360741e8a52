package app

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/sign"
	"github.com/musterdns/muster/zones/zonefile"
)

// zoneKeys are the keys that a zone is to be signed with, of which there must be one.
func zoneKeys(z *config.Zone, apex wire.Name) ([]*sign.Key, error) {
	keys, err := sign.ReadDir(z.DNSSEC, apex)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no key of the zone in %s: make one with muster keys generate", z.DNSSEC)
	}
	if err != nil {
		return nil, fmt.Errorf("zone %s: dnssec: %w", z.Name, err)
	}
	return keys, nil
}

// signingClock tells when what signs zones is to be read again, by the wall clock, which may
// be set: a machine without a clock of its own begins in 1970.
type signingClock struct{ began, next time.Time }

// clockSet is how soon a clock that was set is noticed, and clockBack by how much it must
// have been set back: signatures begin an hour before they were made.
const (
	clockSet  = time.Minute
	clockBack = 30 * time.Minute
)

func newSigningClock(cfg *config.Config) signingClock {
	now := time.Now().Round(0) // without its monotonic part
	return signingClock{now, resignAt(cfg, now)}
}

// wait is until when to look next.
func (c *signingClock) wait() time.Duration { return min(time.Until(c.next), clockSet) }

// due reports whether signatures are to be made anew.
func (c *signingClock) due(now time.Time) bool {
	now = now.Round(0)
	return !now.Before(c.next) || now.Before(c.began.Add(-clockBack))
}

// resignAt is when something of what signs zones changes next: a day begins, by which
// static zones, and service zones for secondaries, are signed again, or a time of a key comes. Never: far away.
func resignAt(cfg *config.Config, now time.Time) time.Time {
	at := now.Add(365 * 24 * time.Hour)
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		if z.DNSSEC == "" {
			continue
		}
		if z.Source == config.SourceFile || copied(cfg, z.Name) {
			at = earlier(at, sign.Day(now).Add(sign.Refresh*time.Second))
		}
		apex, err := wire.ParseName(z.Name)
		if err != nil {
			continue
		}
		if keys, err := sign.ReadDir(z.DNSSEC, apex); err == nil {
			if next := sign.Next(keys, now); !next.IsZero() {
				at = earlier(at, next)
			}
		}
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// loadStatic reads a zone file, and signs what is in it if the zone has keys, all day
// with the same signatures. With raise its serial number grows with the days.
func (s *server) loadStatic(z *config.Zone, apex wire.Name, raise bool) (*zones.Zone, []zonefile.Warning, error) {
	if z.DNSSEC == "" {
		return zonefile.Load(z.File, z.Name, nil)
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	online, err := sign.NewOnline(apex, keys, now, &s.signaturesEvicted)
	if err != nil {
		return nil, nil, err
	}
	zone, warnings, err := zonefile.Load(z.File, z.Name, func(r []zones.Record) ([]zones.Record, error) {
		return sign.Zone(&apex, r, keys, now, raise)
	})
	if err != nil {
		return nil, warnings, err
	}
	return zone.WithSigner(online), warnings, nil
}

// signedSource is the zone of a source, signed if it has keys.
func (s *server) signedSource(cfg *config.Config, z *config.Zone, apex wire.Name, src zones.Source) (*zones.Zone, error) {
	if z.DNSSEC == "" {
		return zones.NewSourceZone(apex, src), nil
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, err
	}
	online, err := sign.NewOnline(apex, keys, time.Now(), &s.signaturesEvicted)
	if err != nil {
		return nil, err
	}
	return zones.NewSourceZone(apex, online.Wrap(src, copied(cfg, z.Name))).WithSigner(online), nil
}

// copied reports whether a zone has secondaries.
func copied(cfg *config.Config, zone string) bool {
	return slices.ContainsFunc(cfg.Zones, func(z config.Zone) bool { return z.Name == zone && len(z.Notify) > 0 }) ||
		slices.ContainsFunc(cfg.Access, func(a config.Access) bool {
			return a.Transfer == "*" || a.Transfer == zone || a.Transfer != "" && strings.HasSuffix(zone, "."+a.Transfer)
		})
}

// aging says that signatures of a static zone have expired or, while a quarter of the
// time for which they are good is left, that they will; empty: neither.
func aging(z *zones.Zone, now time.Time) (text string, sev api.Severity) {
	first, ok := z.FirstToExpire()
	if !ok {
		return "", ""
	}
	left, all := first.Left(now.Unix())
	at := now.Add(time.Duration(left) * time.Second).UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return fmt.Sprintf("%s %s: its signature has expired, at %s: validators refuse it", first.Owner, first.Of, at), api.SeverityError
	case left < all/4:
		return fmt.Sprintf("%s %s: its signature expires at %s", first.Owner, first.Of, at), api.SeverityWarning
	}
	return "", ""
}

// signatureFindings tells of the zones whose signatures age.
func (s *server) signatureFindings() (out []api.Finding) {
	tree := s.authority.Tree()
	cfg := s.cfg.Load()
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		apex, err := wire.ParseName(z.Name)
		if err != nil {
			continue
		}
		zone := tree.Zone(&apex)
		if zone == nil {
			continue
		}
		text, sev := aging(zone, time.Now())
		if text == "" {
			continue
		}
		mend := "sign the zone file again"
		if z.DNSSEC != "" {
			mend = "see that " + z.DNSSEC + " has a key of it that signs, and send SIGHUP"
		}
		out = append(out, api.Finding{Severity: sev, Subject: "zone " + z.Name, Problem: text, Mend: mend})
	}
	return out
}

// signaturesExpire is when the first signature of a static zone expires, in seconds since
// 1970; 0: there is none.
func (s *server) signaturesExpire() float64 {
	now := time.Now().Unix()
	earliest := int64(0)
	tree := s.authority.Tree()
	for _, name := range s.zoneNames() {
		apex, err := wire.ParseName(name)
		if err != nil {
			continue
		}
		if zone := tree.Zone(&apex); zone != nil {
			if first, ok := zone.FirstToExpire(); ok {
				left, _ := first.Left(now)
				if at := now + int64(left); earliest == 0 || at < earliest {
					earliest = at
				}
			}
		}
	}
	return float64(earliest)
}
