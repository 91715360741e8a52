package fault_test

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// TestMemory_StaysNearItsLimit: with GOMEMLIMIT at 1.2 times what the server had without
// it, every record written anew twice takes it to 1.5 times at most, and loses no answer.
func TestMemory_StaysNearItsLimit(t *testing.T) {
	t.Parallel()
	const services, each = 2000, 10
	l := newLab(t)
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(services, each)))
	settled := func(s *fault.Server, mark string) int64 {
		t.Helper()
		put(t, e, fault.Instance("mark", "one"), mark+":80") // the last of what there is
		await(t, dial(t, s), "mark."+fault.Zone, dns.TypeA, fault.Has(mark))
		rss, err := s.RSS()
		must(t, err)
		return rss
	}
	s := run(t, l, fault.Settings{Etcd: e.URL})
	steady := settled(s, "10.250.0.1")
	s.Stop()
	s, err := l.Serve("env", fmt.Sprintf("GOMEMLIMIT=%d", steady*12/10))
	must(t, err)
	must(t, s.Ready(t.Context()))
	stop := s.Load(t.Context(), services, each, 200)
	most := settled(s, "10.250.0.2")
	for i := range 2 {
		must(t, e.Load(t.Context(), fault.Instances(services, each)))
		most = max(most, settled(s, fmt.Sprintf("10.250.1.%d", i)))
	}
	tally, err := stop()
	// The load judges answers by all addresses; these have 8 of 10.
	if err != nil || tally.Lost > 0 || tally.Answered == 0 {
		t.Errorf("%d of %d queries were lost, %v", tally.Lost, tally.Sent, err)
	}
	t.Logf("%d MiB without a limit, at most %d MiB with it", steady>>20, most>>20)
	if most > steady*15/10 {
		t.Errorf("%d MiB, want at most 1.5 times the %d MiB without a limit", most>>20, steady>>20)
	}
}
