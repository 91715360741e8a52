package app

import (
	"net/netip"
	"slices"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/lb/locality"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// localityOf is where a client of a proxy is.
func (s *server) localityOf(client netip.Addr) uint16 {
	id, _ := s.networks.Load().Find(client, uint8(client.Unmap().BitLen()))
	return id
}

// near is the zones' parts in the answers of a service to a client.
func (s *server) near(source registry.SourceID, name string, client netip.Addr) map[string]float64 {
	found := s.pool.View().Find(source, pool.WireName(name))
	if found == nil || found.Ancestor() {
		return nil
	}
	return found.Near(s.localityOf(client))
}

// localities are where clients are: the places, each once, and the networks that are
// there, by the number of the place, from 1 on. The table is nil where there are none.
func localities(cfg *config.Config) ([]pool.Locality, *locality.Table, error) {
	var places []pool.Locality
	var networks []locality.Network
	for _, l := range cfg.Localities {
		place := pool.Locality{Region: l.Region, Zone: l.Zone}
		at := slices.Index(places, place)
		if at < 0 {
			at, places = len(places), append(places, place)
		}
		networks = append(networks, locality.Network{Prefix: l.CIDR, Locality: uint16(at + 1)})
	}
	if len(networks) == 0 {
		return nil, nil, nil
	}
	t, err := locality.New(networks)
	return places, t, err
}
