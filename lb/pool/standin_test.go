package pool_test

import (
	"testing"
	"time"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// TestView_Standin_nearestZone: a name that a service fails over to is in the nearest of
// the zones that it lies below, whichever is configured first, as for every question.
func TestView_Standin_nearestZone(t *testing.T) {
	sources := []pool.Source{{ID: 1, Zone: zone}, {ID: 2, Zone: "internal."}, {ID: 3, Zone: "dc2.internal."}}
	e, stop := start(t, pool.Config{Settings: pool.Settings{Sources: sources}})
	defer stop()
	for _, src := range sources[1:] {
		b := registry.Batch{Source: src.ID, Reset: true, AsOf: time.Now()}
		switch src.ID {
		case 2: // a service of the same name in the zone above
			b.Instances = insts("web.dc2/far 10.0.0.2", "only.dc2/far 10.0.0.2")
		case 3:
			b.Instances = insts("web/near 10.0.0.3")
		}
		if err := e.sink(b); err != nil {
			t.Fatal(err)
		}
	}
	e.apply(registry.Batch{Reset: true, Services: []registry.Service{
		{Name: "a", Failover: []string{"web.dc2.internal."}}, {Name: "b", Failover: []string{"only.dc2.internal."}},
	}})
	view := e.pool.View()
	if got := view.Standin(e.find("a")).Domain(); got != "web.dc2.internal." || view.Standin(e.find("a")).Origin().ID() != 3 {
		t.Errorf("a: %s of source %d, want that of source 3", got, view.Standin(e.find("a")).Origin().ID())
	}
	if got := view.Standin(e.find("b")); got != e.find("b") {
		t.Errorf("b: %s, which the nearest zone does not have", got.Domain())
	}
}
