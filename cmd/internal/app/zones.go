package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/service"
	"github.com/musterdns/muster/zones/zonefile"
)

// loadTree builds the tree of a configuration's zones. A static zone whose file
// is bad is taken from old, if that has it; the errors say so. Without it there
// the tree is nil.
func (s *server) loadTree(cfg *config.Config, old *zones.Tree) (*zones.Tree, []string, error) {
	var all []*zones.Zone
	var apexes []wire.Name
	var warnings []string
	var failed []error
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		apex, err := wire.ParseName(z.Name)
		if err != nil {
			return nil, nil, fmt.Errorf("zone %s: %w", z.Name, err)
		}
		apexes = append(apexes, apex)
		zone, warned, err := s.makeZone(cfg, z, apex)
		for _, w := range warned {
			warnings = append(warnings, w.String())
		}
		if err != nil {
			failed = append(failed, err)
			if old == nil {
				continue
			}
			if zone = old.Zone(&apex); zone == nil {
				continue
			}
		}
		all = append(all, zone)
	}
	for _, zone := range all {
		warnings = append(warnings, zone.Stray(apexes)...)
		if text, _ := aging(zone, time.Now()); text != "" {
			warnings = append(warnings, text)
		}
	}
	if old == nil && len(failed) > 0 {
		return nil, warnings, errors.Join(failed...)
	}
	tree, err := zones.NewTree(all)
	if err != nil {
		return nil, warnings, err
	}
	return tree, warnings, errors.Join(failed...)
}

// makeZone makes one zone.
func (s *server) makeZone(cfg *config.Config, z *config.Zone, apex wire.Name) (*zones.Zone, []zonefile.Warning, error) {
	switch z.Source {
	case config.SourceFile:
		return loadStatic(z, apex, copied(cfg, z.Name))
	case config.SourceReverse:
		src, err := service.NewReverse(service.ReverseConfig{
			Apex: apex, View: s.pool.View(), TTL: z.TTL, NegativeTTL: z.NegativeTTL, Hosts: s.nameServers(),
		})
		if err != nil {
			return nil, nil, err
		}
		zone, err := sourceZone(cfg, z, apex, src)
		return zone, nil, err
	case config.SourceMuster, config.SourceNaming:
		src, err := service.New(service.Config{
			Apex: apex, View: s.pool.View(), Source: s.sourceID(z.Name), TTL: z.TTL, NegativeTTL: z.NegativeTTL, Hosts: s.nameServers(),
			Whole: s.pool.Whole,
		})
		if err != nil {
			return nil, nil, err
		}
		zone, err := sourceZone(cfg, z, apex, src)
		return zone, nil, err
	case config.SourceSkyDNS:
		src, err := service.NewSky(service.SkyConfig{
			Apex: apex, View: s.pool.View(), Source: s.sourceID(z.Name), Tree: s.skyTree(z.Name),
			TTL: z.TTL, NegativeTTL: z.NegativeTTL, Hosts: s.nameServers(),
		})
		if err != nil {
			return nil, nil, err
		}
		zone, err := sourceZone(cfg, z, apex, src)
		return zone, nil, err
	default:
		return nil, nil, fmt.Errorf("zone %s: unknown source %q", z.Name, z.Source)
	}
}

// settings is what the pool takes of a configuration.
func (s *server) settings(cfg *config.Config) pool.Settings {
	d := cfg.Health.Defaults
	places, _, _ := localities(cfg) // the configuration was validated
	out := pool.Settings{
		Health: pool.CheckDefaults{
			Interval: d.Interval, Timeout: d.Timeout, FastInterval: d.FastInterval, Rise: d.Rise, Fall: d.Fall,
		},
		Localities: places, StaleAfter: cfg.Registry.StaleAfter, MaxStale: cfg.Registry.MaxStale, ChurnHold: cfg.Health.ChurnHold,
	}
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		switch z.Source {
		case config.SourceReverse:
			out.Reverse = true
		case config.SourceMuster, config.SourceNaming, config.SourceSkyDNS:
			src := pool.Source{ID: s.sourceID(z.Name), Zone: z.Name, TTL: z.TTL, Reserved: service.Reserved(), Serial: s.snapshots.serial(z.Name), Seed: s.snapshots.seeds(z.Name), OwnTTLs: z.Source == config.SourceSkyDNS}
			for j := range cfg.Services {
				if cfg.Services[j].Zone == z.Name {
					src.Defaults = append(src.Defaults, cfg.Services[j].Service)
				}
			}
			out.Sources = append(out.Sources, src)
		case config.SourceFile:
		}
	}
	return out
}
