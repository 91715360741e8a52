package pool_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// TestPool_Run_hastened is for a failure that one server has seen: the others
// look sooner, once for each report.
func TestPool_Run_hastened(t *testing.T) {
	pass := health.Status{State: health.Passing}
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		want := func(what string, want ...string) {
			t.Helper()
			e.checker.mu.Lock()
			defer e.checker.mu.Unlock()
			if !slices.Equal(e.checker.hastened, want) {
				t.Errorf("%s: checked sooner: %q, want %q", what, e.checker.hastened, want)
			}
			e.checker.hastened = nil
		}
		e.peers("abc")
		e.apply(registry.Batch{Reset: true, Instances: insts("web/x 10.0.0.1", "web/y 10.0.0.2")})
		e.verdict("10.0.0.1", pass)
		e.verdict("10.0.0.2", pass)
		e.reports("b x p", "c x p", "b y p", "c y p")
		want("all is well")
		e.reports("b x f")
		want("another server's failure", "10.0.0.1")
		e.reports("b x f")
		want("the same again")
		e.reports("a y f", "z y f")
		want("this server's own word, and a stranger's")
		e.peers("aBc")
		e.reports("b y f")
		want("one that doubts itself")
		e.verdict("10.0.0.2", health.Status{State: health.Failing})
		e.reports("c y f")
		want("what fails here already")
	})
}

// TestPool_ObservePassive_ofOthers is of an instance that a proxy of this server
// finds silent and others check.
func TestPool_ObservePassive_ofOthers(t *testing.T) {
	bubble(t, tcpChecked, func(t *testing.T, e *env) {
		e.fill(20)
		e.peers("abcde")
		e.notifyAll()
		e.pool.TakeSaid(1000)
		mine, others := "", ""
		here := e.has()
		for i := range 20 {
			if id := fmt.Sprintf("i%03d", i); here[addrOf(i)+":80"] {
				mine = id
			} else {
				others = id
			}
		}
		silent := func(id string) {
			e.pool.ObservePassive(pool.Passive{Source: 1, Service: "web", Instance: id, Silent: true})
			e.wait()
		}
		silent(mine)
		if said := e.pool.TakeSaid(10); len(said) != 0 {
			t.Errorf("told of what this server checks: %+v", said)
		}
		silent(others)
		silent(others)
		said := e.pool.TakeSaid(10)
		if len(said) != 1 || said[0].Withdrawn || said[0].Report.Passing || said[0].Report.Instance != others || said[0].Report.Reason != "a request through the proxy waits for its answer" {
			t.Fatalf("told of %s: %+v", others, said)
		}
		time.Sleep(6 * time.Second)
		e.wait()
		if said = e.pool.TakeSaid(10); len(said) != 1 || !said[0].Withdrawn || said[0].Report.Instance != others {
			t.Errorf("after a while: %+v, want that to be taken back", said)
		}
		silent(others)
		if said = e.pool.TakeSaid(10); len(said) != 1 || said[0].Withdrawn {
			t.Errorf("still silent: %+v", said)
		}
	})
}
