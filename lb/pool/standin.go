package pool

// place is a service that may stand in: by its name as View.Find takes it, in the zone of
// the service itself or by an absolute name.
type place struct {
	name     []byte // in wire form
	absolute bool   // the root is at its end
}

// placesOf are those of a Service.Failover.
func placesOf(names []string) []place {
	var out []place
	for _, name := range names {
		p := place{name: WireName(name)}
		if n := len(name); n > 0 && name[n-1] == '.' {
			p = place{name: append(WireName(name[:n-1]), 0), absolute: true}
		}
		out = append(out, p)
	}
	return out
}

// Standin is the service that is answered in the place of s: s itself while it is well,
// and else the first of those that it fails over to which is; s, when none is. What one
// that stands in fails over to is of no matter. It allocates nothing.
func (v *View) Standin(s *Service) *Service {
	if len(s.settings.places) == 0 || s.well() {
		return s
	}
	for _, p := range s.settings.places {
		if other := v.at(p, s.origin); other != nil && other != s && other.well() {
			return other
		}
	}
	return s
}

// well reports whether enough of its instances pass and may be answered.
func (s *Service) well() bool {
	if s.ancestor {
		return false
	}
	g := s.mainGroup()
	if g.mode != ModeNormal || len(g.tiers) == 0 {
		return false
	}
	f, _ := s.origin.Freshness(s.origin.Clock())
	return f == Fresh || f == Stale
}

// at is the service of a place, seen from a service of a source; nil: there is none.
// Of zones that lie in one another the nearest has the name (RFC 1034 section 4.3.2
// step 2).
func (v *View) at(p place, from *SourceView) *Service {
	if !p.absolute {
		return v.Find(from.id, p.name)
	}
	for at := 0; at < len(p.name)-1; at += 1 + int(p.name[at]) { // a zone's name begins where a label does
		for _, src := range v.Sources() {
			if src != nil && src.apex == string(p.name[at:]) {
				return v.Find(src.id, p.name[:at])
			}
		}
	}
	return nil
}
