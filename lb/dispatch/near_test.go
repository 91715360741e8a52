package dispatch_test

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// Connections go where DNS sends clients: to their zone as far as it has its part of
// what is left, and no instance gets more than 1.3 times its fair share.
func TestBackend_Choose_nearest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := pool.New(pool.Config{Settings: pool.Settings{
			Sources:    []pool.Source{{ID: 1, Zone: "svc.internal."}},
			Localities: []pool.Locality{{Zone: "a"}, {Zone: "b"}, {Zone: "c"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := dispatch.New(dispatch.Config{Pool: p, Locality: func(a netip.Addr) uint16 { return uint16(a.As4()[3]) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := runBoth(t, p, d)
		defer stop()
		e := &env{t: t, pool: p, dispatch: d, sink: p.Sink(ctx)}
		list := insts("a1 a2 a3 a4 b1 b2 b3 b4 c1 c2 c3 c4")
		for i := range list {
			list[i].Zone = list[i].ID[:1]
			list[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, list[i].ID[0], list[i].ID[1]})}
		}
		for _, policy := range []string{"weighted", "round-robin", "least-loaded"} {
			for down := range 5 {
				var words string
				for n := range down {
					words += " a" + string(rune('1'+n)) + "=down"
				}
				e.apply(registry.Batch{Reset: true, Instances: list, Services: []registry.Service{{Name: "web", ProxyPolicy: policy}}, Admin: admin(words)})
				b := e.web()
				const each = 4000
				counts, stay := map[string]int{}, 0
				for client := range uint8(3) {
					for range each {
						c, err := b.Choose(dispatch.Request{Client: netip.AddrFrom4([4]byte{192, 0, 2, client + 1})}, nil)
						if err != nil {
							t.Fatal(err)
						}
						counts[c.ID()]++
						if client == 0 && c.ID()[0] == 'a' {
							stay++
						}
						c.Done(dispatch.Outcome{})
					}
				}
				fair := 3.0 * each / float64(12-down)
				for id, n := range counts {
					if float64(n) > 1.3*fair {
						t.Errorf("%s, %d down: %s has %.2f of its fair share", policy, down, id, float64(n)/fair)
					}
				}
				if want := min(1, float64(4-down)/float64(12-down)*3); math.Abs(float64(stay)/each-want) > 0.04 {
					t.Errorf("%s, %d down: %.3f of a's clients stay there, want %.3f", policy, down, float64(stay)/each, want)
				}
				b.Release()
			}
		}
	})
}
