package service_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// The localities of these tests, by number.
const (
	inA = iota + 1
	inB
	inC
	inD // a zone without instances, in the region of A and B
	elsewhere
)

var places = []pool.Locality{{Region: "r1", Zone: "a"}, {Region: "r1", Zone: "b"}, {Region: "r2", Zone: "c"}, {Region: "r1", Zone: "d"}, {Region: "r9", Zone: "x"}}

// threeZones is a service with ten instances in each of three zones, of which some of
// the zone a are down.
func threeZones(policy string, down int) registry.Batch {
	b := registry.Batch{Reset: true, Services: []registry.Service{{Name: "web", Policy: policy}}}
	for z, zone := range []string{"a", "b", "c"} {
		for n := range 10 {
			i := instance("web", fmt.Sprintf("%s%d", zone, n), fmt.Sprintf("10.%d.0.%d", z+1, n+1))
			i.Zone, i.Region = zone, places[z].Region
			b.Instances = append(b.Instances, i)
			if zone == "a" && n < down {
				b.Admin = append(b.Admin, registry.Admin{Service: "web", Instance: i.ID, State: registry.AdminDown})
			}
		}
	}
	return b
}

// draw asks n times from each of some localities, and counts the instances answered and,
// of each locality, the zones.
func (s *server) draw(typ string, n int, from ...uint16) (instances map[string]float64, zones map[uint16]map[string]float64) {
	s.t.Helper()
	instances, zones = map[string]float64{}, map[uint16]map[string]float64{}
	for _, l := range from {
		zones[l] = map[string]float64{}
		s.req.Locality, s.req.LocalityBits = l, 16
		for range n {
			a := s.ask("web.svc.test", typ)
			if len(a.answer) == 0 {
				s.t.Fatalf("%s", a)
			}
			for _, line := range a.answer {
				f := strings.Fields(line)
				id := f[len(f)-1]
				if typ == "A" {
					octets := strings.Split(id, ".")
					id = string(rune('a'+octets[1][0]-'1')) + octets[3]
				}
				instances[id] += 1 / float64(len(a.answer))
				zones[l][id[:1]] += 1 / float64(len(a.answer)) / float64(n)
			}
		}
	}
	s.req.Locality, s.req.LocalityBits = 0, 0
	return instances, zones
}

func newNearServer(t *testing.T) (*server, func()) {
	t.Helper()
	s, stop := newServer(t, registry.Service{MaxAnswers: 1})
	settings := pool.Settings{Localities: places, Sources: []pool.Source{{ID: 1, Zone: "svc.test.", Defaults: []registry.Service{{Name: "*", MaxAnswers: 1}}}}}
	if err := s.pool.Reload(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	return s, stop
}

// One zone loses capacity step by step: its clients stay in it as far as it has its part
// of what is left, the rest spills in proportion, and no instance gets more than 1.3
// times its fair share, as long as clients are where instances are registered.
func TestZone_Lookup_nearest(t *testing.T) {
	s, stop := newNearServer(t)
	defer stop()
	const questions = 2000
	for policy, downs := range map[string][]int{"weighted": {0, 2, 5, 8, 10}, "round-robin": {5}} {
		for _, down := range downs {
			for _, typ := range []string{"A", "SRV"} {
				s.apply(threeZones(policy, down))
				instances, zones := s.draw(typ, questions, inA, inB, inC)
				fair := 3.0 * questions / float64(30-down)
				most := 0.0
				for _, n := range instances {
					most = max(most, n/fair)
				}
				if most > 1.3 {
					t.Errorf("%s %s, %d down: an instance has %.2f of its fair share", policy, typ, down, most)
				}
				left := float64(10-down) / float64(30-down) * 3 // of a's part of the demand
				if got := zones[inA]["a"]; math.Abs(got-min(1, left)) > 0.04 {
					t.Errorf("%s %s, %d down: %.3f of a's clients stay there, want %.3f", policy, typ, down, got, left)
				}
				if got := zones[inA]["b"] - zones[inA]["c"]; math.Abs(got) > 0.06 {
					t.Errorf("%s %s, %d down: a's clients spill unevenly by %.3f", policy, typ, down, got)
				}
				for _, l := range []uint16{inB, inC} {
					if own := zones[l][places[l-1].Zone]; own < 0.999 {
						t.Errorf("%s %s, %d down: %.3f of the clients of %s stay there", policy, typ, down, own, places[l-1].Zone)
					}
				}
			}
		}
	}
}

func TestZone_Lookup_nearest_exceptions(t *testing.T) {
	s, stop := newNearServer(t)
	defer stop()
	s.apply(threeZones("weighted", 0))
	_, zones := s.draw("A", 2000, inD, elsewhere)
	if c := zones[inD]["c"]; c != 0 {
		t.Errorf("clients of a zone without instances: %.3f leave their region", c)
	}
	if c := zones[elsewhere]["c"]; math.Abs(c-1.0/3) > 0.05 {
		t.Errorf("clients of another region: %.3f get the third zone", c)
	}
	s.req.Locality, s.req.LocalityBits, s.req.Client = inA, 16, netip.MustParseAddr("10.1.2.3")
	if a := s.ask("web.svc.test", "A"); a.res.Scope != 16 {
		t.Errorf("scope %d, want the bits that decided (RFC 7871 section 7.2.1)", a.res.Scope)
	}
	if a := s.ask("b._zone.web.svc.test", "A"); !strings.Contains(a.String(), "10.2.0.") || a.res.Scope != 0 {
		t.Errorf("a zone asked for by name: %s, scope %d", a, a.res.Scope)
	}
	t.Run("hash, few instances and fail-open know no nearness", func(t *testing.T) {
		few := threeZones("weighted", 0)
		few.Instances = few.Instances[8:12] // two in a, two in b
		for what, b := range map[string]registry.Batch{"hash": threeZones("hash", 0), "few": few} {
			s.apply(b)
			if v := s.pool.View().Find(1, []byte("\x03web")); v.HasNear() {
				t.Errorf("%s: it does", what)
			}
		}
	})
}
