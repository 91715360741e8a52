package dispatch_test

import (
	"testing"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/registry"
)

// A service of which nothing may be served is stood in for by the one that it fails over
// to, whose instances are others though their ids may be the same; what they have may
// finish when the service is back.
func TestBackend_Choose_failsOver(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.apply(registry.Batch{
			Reset: true, Instances: append(insts("a"), registry.Instance{Service: "spare", ID: "a", Weight: 1, Port: 81, Addresses: insts("x")[0].Addresses}),
			Services: []registry.Service{{Name: "web", Failover: []string{"spare"}}},
		})
		b := e.web()
		defer b.Release()
		choose := func(want string) dispatch.Choice {
			t.Helper()
			c, err := b.Choose(dispatch.Request{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.ID() != want {
				t.Errorf("%s is chosen, want %s", c.ID(), want)
			}
			return c
		}
		first := choose("a")
		ends := make(chan dispatch.End, 1)
		stop := first.OnEnd(func(end dispatch.End) { ends <- end })
		e.apply(registry.Batch{Admin: []registry.Admin{{Service: "web", Instance: "*", State: registry.AdminDrain}}})
		if end := <-ends; end != dispatch.EndDrain {
			t.Errorf("the drained instance's end is %v", end)
		}
		stop()
		second := choose("a.spare.svc.internal.")
		if second.Addr().Port() != 81 {
			t.Errorf("it is at %s", second.Addr())
		}
		stop = second.OnEnd(func(end dispatch.End) { ends <- end })
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindAdmin, Service: "web", Name: "*"}}})
		third := choose("a")
		select {
		case end := <-ends:
			t.Errorf("the one that stood in ends: %v", end)
		default:
		}
		stop()
		for _, c := range []dispatch.Choice{first, second, third} {
			c.Done(dispatch.Outcome{})
		}
	})
}
