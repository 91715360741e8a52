package app

import (
	"fmt"
	"slices"
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

// signs reports whether static zones are signed here, which must be done again before
// the signatures end.
func signs(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Zones, func(z config.Zone) bool { return z.DNSSEC != "" && z.Source == config.SourceFile })
}

// loadStatic reads a zone file, and signs what is in it if the zone has keys.
func loadStatic(z *config.Zone, apex wire.Name) (*zones.Zone, []zonefile.Warning, error) {
	if z.DNSSEC == "" {
		return zonefile.Load(z.File, z.Name, nil)
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, nil, err
	}
	online, err := sign.NewOnline(apex, keys)
	if err != nil {
		return nil, nil, err
	}
	zone, warnings, err := zonefile.Load(z.File, z.Name, func(r []zones.Record) ([]zones.Record, error) {
		return sign.Zone(&apex, r, keys, uint32(time.Now().Unix()))
	})
	if err != nil {
		return nil, warnings, err
	}
	return zone.WithSigner(online), warnings, nil
}

// sourceZone is the zone of a source, signed if it has keys.
func sourceZone(z *config.Zone, apex wire.Name, src zones.Source) (*zones.Zone, error) {
	if z.DNSSEC == "" {
		return zones.NewSourceZone(apex, src), nil
	}
	keys, err := zoneKeys(z, apex)
	if err != nil {
		return nil, err
	}
	online, err := sign.NewOnline(apex, keys)
	if err != nil {
		return nil, err
	}
	return zones.NewSourceZone(apex, online.Wrap(src)).WithSigner(online), nil
}
