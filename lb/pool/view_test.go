package pool_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// TestView_Find/stable names are found, and what they lead to is read ahead, while others
// come and go, and the tables are rebuilt under the readers.
func TestView_Find_concurrent(t *testing.T) {
	e, stop := start(t, pool.Config{Settings: oneSource})
	defer stop()
	e.apply(registry.Batch{Reset: true, Instances: insts("stable/a 10.0.0.1")})
	var ended atomic.Bool
	done := make(chan int, 2)
	for range 2 {
		go func() {
			missed := 0
			view := e.pool.View()
			stable, nosuch := view.Hash(1, wireName("stable")), view.Hash(1, wireName("nosuch"))
			for !ended.Load() {
				for step := range 4 {
					if warm := view.Warm(step, stable) > 0; warm != (step == 1 || step == 2) || view.Warm(step, nosuch) > 0 {
						missed++
					}
				}
				if s := e.find("stable"); s == nil || s.Name() != "stable" {
					missed++
				}
				if s := e.find("nosuch"); s != nil {
					missed++
				}
			}
			done <- missed
		}()
	}
	for round := range 40 {
		b := registry.Batch{}
		for i := range 100 {
			name := fmt.Sprintf("s%d-%d", round, i)
			b.Instances = append(b.Instances, inst(name+"/a 10.0.0.1"))
			if round > 0 {
				b.Deleted = append(b.Deleted, registry.Key{
					Source: 1, Kind: registry.KindInstance, Service: fmt.Sprintf("s%d-%d", round-1, i), Name: "a",
				})
			}
		}
		e.apply(b)
	}
	ended.Store(true)
	for range 2 {
		if missed := <-done; missed > 0 {
			t.Errorf("%d wrong answers", missed)
		}
	}
	if e.find("s39-7") == nil || e.find("s38-7") != nil {
		t.Error("the last state is not what was applied")
	}
}

func TestView_Find_allocates(t *testing.T) {
	e, stop := start(t, pool.Config{Settings: oneSource})
	defer stop()
	e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
	name := wireName("web")
	picks := make([]uint32, 0, 8)
	if n := testing.AllocsPerRun(1000, func() {
		s := e.pool.View().Find(1, name)
		tier, q := s.Set().Group(pool.FamilyA).Draw(anyRequest, false)
		picks = tier.Pick(picks[:0], 8, q)
		if len(picks) != 2 || s.Instance([]byte("b")) != 1 {
			t.Error("wrong answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
