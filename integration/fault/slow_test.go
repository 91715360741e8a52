package fault_test

import (
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// TestSlowEtcd_HoldsUpNoAnswer: etcd's answers take half a second and arrive with 10 kB/s.
// No question waits for them, and changes arrive as soon as they can.
func TestSlowEtcd_HoldsUpNoAnswer(t *testing.T) {
	t.Parallel()
	const services, each, rate = 20, 2, 200
	l := newLab(t)
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(services, each)))
	p99 := func(s *fault.Server) time.Duration {
		t.Helper()
		stop := s.Load(t.Context(), services, each, rate)
		c := dial(t, s)
		for i := range 5 { // while changes arrive
			address := fault.Address(1000 + i)
			put(t, e, fault.Instance("late", "one"), address+":80")
			await(t, c, "late."+fault.Zone, dns.TypeA, fault.Has(address))
		}
		tally, err := stop()
		must(t, err)
		if err := tally.Bad(); err != nil {
			t.Error(err)
		}
		if tally.Stale > 0 {
			t.Errorf("%d of %d answers are stale", tally.Stale, tally.Answered)
		}
		slices.Sort(tally.Took)
		return tally.Took[len(tally.Took)*99/100]
	}
	s := run(t, l, fault.Settings{Etcd: e.URL})
	quick := p99(s)
	s.Stop()
	r, err := fault.NewRelay(t.Context(), e.Listen(), 500*time.Millisecond, 10<<10)
	must(t, err)
	t.Cleanup(r.Close)
	s = run(t, l, fault.Settings{Etcd: "http://" + r.Addr})
	woken := lateness(t)
	slow := p99(s)
	late := woken().Max()
	t.Logf("99 of 100 answers come within %s, with a slow etcd %s; woken late by %s", quick, slow, late)
	// Far below what one of etcd's answers takes, on a machine that is busy.
	if slow > 2*quick+250*time.Millisecond+late {
		t.Errorf("99 of 100 answers come within %s, without the delay %s", slow, quick)
	}
}
