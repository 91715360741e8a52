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
		if zone.Signed() {
			warnings = append(warnings, zone.Undelegated(apexes)...)
		}
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
	if z.Source == config.SourceFile {
		return s.loadStatic(z, apex, copied(cfg, z.Name))
	}
	src, err := s.zoneSource(cfg, z)
	if err != nil {
		return nil, nil, err
	}
	zone, err := s.signedSource(cfg, z, apex, src)
	return zone, nil, err
}

// zoneSource makes what answers a zone that is not static.
func (s *server) zoneSource(cfg *config.Config, z *config.Zone) (zones.Source, error) {
	head, err := headOf(cfg, z)
	if err != nil {
		return nil, err
	}
	switch z.Source {
	case config.SourceReverse:
		return service.NewReverse(service.ReverseConfig{Head: head, View: s.pool.View()})
	case config.SourceMuster, config.SourceNaming:
		sc := service.Config{Head: head, View: s.pool.View(), Source: s.sourceID(z.Name)}
		if copied(cfg, z.Name) {
			sc.Whole = s.pool.Whole
		}
		return service.New(sc)
	case config.SourceSkyDNS:
		return service.NewSky(service.SkyConfig{Head: head, View: s.pool.View(), Source: s.sourceID(z.Name), Tree: s.skyTree(z.Name)})
	case config.SourceFile:
	}
	return nil, fmt.Errorf("zone %s: unknown source %q", z.Name, z.Source)
}

// headOf is what a zone that is not static says of itself.
func headOf(cfg *config.Config, z *config.Zone) (h service.Head, err error) {
	h = service.Head{
		Hosts: nameServers(cfg), TTL: z.TTL, NegativeTTL: z.NegativeTTL,
		Refresh: z.SOA.Refresh, Retry: z.SOA.Retry, Expire: z.SOA.Expire,
	}
	if h.Apex, err = wire.ParseName(z.Name); err != nil {
		return h, fmt.Errorf("zone %s: %w", z.Name, err)
	}
	if z.SOA.Mailbox != "" {
		if h.Mailbox, err = wire.ParseName(z.SOA.Mailbox); err != nil {
			return h, fmt.Errorf("zone %s: soa.mailbox: %w", z.Name, err)
		}
	}
	for _, ns := range z.NameServers {
		name, err := wire.ParseName(ns.Name)
		if err != nil {
			return h, fmt.Errorf("zone %s: name server: %w", z.Name, err)
		}
		h.Servers = append(h.Servers, service.NameServer{Name: name, Addresses: ns.Addresses})
	}
	return h, nil
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
			head, _ := headOf(cfg, z) // the configuration was validated
			src := pool.Source{
				ID: s.sourceID(z.Name), Zone: z.Name, TTL: z.TTL, Reserved: head.Reserved(),
				Serial: s.snapshots.serial(z.Name), Seed: s.snapshots.seeds(z.Name), OwnTTLs: z.Source == config.SourceSkyDNS,
			}
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
