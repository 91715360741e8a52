package app

import (
	"fmt"
	"net/netip"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/notify"
	"github.com/musterdns/muster/dnsserver/tsig"
)

// notifySource is the address that DNS listens at by which a secondary may know the
// server: one of its own family that reaches as far.
func notifySource(cfg *config.Config, to netip.Addr) netip.Addr {
	for _, l := range cfg.DNS.Listen {
		if a := l.Addr(); !a.IsUnspecified() && a.Is4() == to.Is4() && a.IsLoopback() == to.IsLoopback() {
			return a
		}
	}
	return netip.Addr{}
}

// prepareKeys reads the configuration's keys of transaction signatures and which
// secondaries are told of changes, and returns what puts them in force.
func (s *server) prepareKeys(cfg *config.Config) (commit func(), err error) {
	list, err := cfg.ReadKeys()
	if err != nil {
		return nil, err
	}
	keys, err := tsig.New(list)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	byName := make(map[string]*tsig.Key, len(list))
	for i := range list {
		byName[list[i].Name.String()] = &list[i]
	}
	var targets []notify.Target
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		for _, to := range z.Notify {
			targets = append(targets, notify.Target{Zone: z.Name, To: to, Key: byName[z.NotifyTSIG], From: notifySource(cfg, to.Addr())})
		}
	}
	tell, err := s.notifier.Prepare(targets)
	if err != nil {
		return nil, err
	}
	return func() {
		tell()
		s.dns.SetKeys(keys)
	}, nil
}
