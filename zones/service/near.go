package service

import (
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// nearest is the part of a set that a client is answered from: of the whole of a
// service, the zone that is drawn for where the client is. What was asked for as a part,
// or is chosen by hash, stays as it is.
func nearest(s *pool.Set, f pool.Family, r *zones.Request) *pool.Set {
	if r.Locality == 0 || s.Kind() != pool.FilterNone || r.Hashed {
		return s
	}
	near := s.Service().Nearest(r.Locality, r.Rand)
	if near == nil {
		return s
	}
	if g := near.Group(f); g == nil || len(g.Tiers()) == 0 {
		return s // none of this family is there
	}
	r.Rand = mix(r.Rand)
	return near
}

// localScope is how many bits of the client nearest goes by.
func localScope(s *pool.Set, r *zones.Request) uint8 {
	if s.Kind() != pool.FilterNone || r.Hashed || !s.Service().HasNear() {
		return 0
	}
	return r.LocalityBits
}
