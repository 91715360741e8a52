package pool

// LocalitiesMax is how many localities clients may be in.
const LocalitiesMax = 256

// Locality is where clients may be. Either may be empty: not known.
type Locality struct{ Region, Zone string }

// nearMin is the number of instances that may be answered below which all clients are
// answered from all: with fewer, one more or less is too large a part of a zone.
const nearMin = 6

// share is a zone's part in the answers to one locality.
type share struct {
	filter int32  // the zone's set, in filters
	upto   uint32 // cumulative, of nearWhole
}

const nearWhole = 1 << 16

// capacity is what one zone of a service has.
type capacity struct {
	filter int32
	region string
	have   float64 // weight that may be answered now, of all
	demand float64 // weight registered, of all: the part of the clients that is taken to be there
	spare  float64 // have beyond demand
}

// Nearest draws the zone from which a client at a locality (1 is the first of
// Settings.Localities; 0: not known) is answered, by a random word; nil: from all of
// the service. While a zone has its registered part of the capacity that is left, its
// clients get nothing else. When it has less, they get as much of it as is theirs,
// and the rest from zones that have more, by what they have more: so no instance gets
// more than another, as long as clients are where instances are registered.
func (s *Service) Nearest(locality uint16, random uint64) *Set {
	if int(locality) > len(s.near) || locality == 0 {
		return nil
	}
	r := uint32(random >> 48)
	for _, part := range s.near[locality-1] {
		if r < part.upto {
			return &s.filters[part.filter]
		}
	}
	return nil
}

// HasNear reports whether answers depend on where the client is.
func (s *Service) HasNear() bool { return s.located }

// Near is the parts that the zones have in the answers to a locality, by name; nil: it
// is answered from all. It allocates.
func (s *Service) Near(locality uint16) map[string]float64 {
	if int(locality) > len(s.near) || locality == 0 || s.near[locality-1] == nil {
		return nil
	}
	parts := map[string]float64{}
	last := uint32(0)
	for _, p := range s.near[locality-1] {
		parts[s.filters[p.filter].Name()] = float64(p.upto-last) / nearWhole
		last = p.upto
	}
	return parts
}

// nearOf reckons the shares of every locality.
func nearOf(s *svc, next *Service, localities []Locality) [][]share {
	if len(localities) == 0 || next.Mode() != ModeNormal || s.settings.kind == policyHash || s.settings.kind == policyAll {
		return nil
	}
	zones := capacities(s, next)
	if len(zones) < 2 {
		return nil
	}
	near := make([][]share, len(localities))
	for i, l := range localities {
		here := func(c *capacity) bool { return next.filters[c.filter].Name() == l.Zone }
		if !anyZone(zones, here) { // none of its zone is registered: its region
			here = func(c *capacity) bool { return l.Region != "" && c.region == l.Region }
		}
		near[i] = spread(zones, here)
	}
	return near
}

// capacities are the service's zones; nil where too few instances may be answered, or
// some have no zone that can be asked for.
func capacities(s *svc, next *Service) []capacity {
	var zones []capacity
	var have, demand float64
	in := 0
	for f := range next.filters {
		set := &next.filters[f]
		if set.filter.kind != FilterZone {
			continue
		}
		c := capacity{filter: int32(f)}
		if len(set.filter.members) > 0 {
			c.region = s.insts[set.filter.members[0]].rec.region()
		}
		for _, i := range set.filter.members {
			c.demand += float64(next.faces.list[i].weight)
			if next.instances[i].in {
				in++
				c.have += float64(next.instances[i].weight)
			}
		}
		have, demand = have+c.have, demand+c.demand
		zones = append(zones, c)
	}
	members := 0
	for _, c := range zones {
		members += len(next.filters[c.filter].filter.members)
	}
	if in < nearMin || have == 0 || demand == 0 || members != len(next.instances) {
		return nil
	}
	for i := range zones {
		c := &zones[i]
		c.have, c.demand = c.have/have, c.demand/demand
		c.spare = max(0, c.have-c.demand)
	}
	return zones
}

func anyZone(zones []capacity, here func(*capacity) bool) bool {
	for i := range zones {
		if here(&zones[i]) {
			return true
		}
	}
	return false
}

// spread shares the answers to the clients of some zones out; nil: nothing is there.
func spread(zones []capacity, here func(*capacity) bool) []share {
	var have, demand, spare float64
	for i := range zones {
		if c := &zones[i]; here(c) {
			have, demand = have+c.have, demand+c.demand
		} else {
			spare += c.spare
		}
	}
	if demand == 0 {
		return nil
	}
	local := min(1, have/demand)
	if spare == 0 {
		local = 1 // nobody has more than is theirs
	}
	if have == 0 && spare == 0 {
		return nil
	}
	var out []share
	sum := 0.0
	for i := range zones {
		c := &zones[i]
		part := 0.0
		switch {
		case here(c) && have > 0:
			part = local * c.have / have
		case !here(c) && spare > 0:
			part = (1 - local) * c.spare / spare
		}
		if part > 0 {
			sum += part
			out = append(out, share{c.filter, uint32(sum*nearWhole + 0.5)})
		}
	}
	if len(out) > 0 {
		out[len(out)-1].upto = nearWhole
	}
	return out
}
