package app

import (
	"fmt"
	"slices"
	"strings"
	"time"

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
func loadStatic(z *config.Zone, apex wire.Name, raise bool) (*zones.Zone, []zonefile.Warning, error) {
	if z.DNSSEC == "" {
		return zonefile.Load(z.File, z.Name, nil)
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	online, err := sign.NewOnline(apex, keys, now)
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

// sourceZone is the zone of a source, signed if it has keys.
func sourceZone(cfg *config.Config, z *config.Zone, apex wire.Name, src zones.Source) (*zones.Zone, error) {
	if z.DNSSEC == "" {
		return zones.NewSourceZone(apex, src), nil
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, err
	}
	online, err := sign.NewOnline(apex, keys, time.Now())
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
