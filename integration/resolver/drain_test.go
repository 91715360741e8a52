package resolver_test

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// TestDrain_NoCacheHoldsItWhenItIsSafe drains an instance that caches are full
// of, and asks them from the time on at which muster drain says that it is safe
// to stop it.
func TestDrain_NoCacheHoldsItWhenItIsSafe(t *testing.T) {
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, "service", "set", "web", "--ttl", ttl.String())
	register(t, l, "one", "10.9.0.1")
	register(t, l, "two", "10.9.0.2")
	dig := find(t, "dig", "bind9-dnsutils")
	_, coredns := startCoreDNS(t, s.DNS) // it keeps an answer 5 s, whatever its TTL
	caches := []client{
		{"unbound", true, []string{dig, "@127.0.0.1", "-p", startUnbound(t, s.DNS), "+short", service}},
		{"dnsmasq", true, []string{dig, "@127.0.0.1", "-p", startDnsmasq(t, s.DNS), "+short", service}},
		{"CoreDNS", true, []string{dig, "@127.0.0.1", "-p", coredns, "+short", service}},
	}
	all(t, caches, 10*time.Second, 10*time.Second, []string{"10.9.0.1", "10.9.0.2"})

	var safe atomic.Bool // muster drain --wait has returned
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	for _, c := range caches {
		asking.Go(func() {
			before, after := 0, 0 // answers with the instance, and answers since it is safe
			for ctx.Err() == nil {
				now := safe.Load()
				out, err := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...).Output()
				has := strings.Contains(string(out), "10.9.0.1")
				switch {
				case err != nil:
				case now && has:
					t.Errorf("%s answers the drained instance after the safe time", c.name)
				case now:
					after++
				case has:
					before++
				}
			}
			if before == 0 || after == 0 {
				t.Errorf("%s: %d answers with the instance before, %d answers after: the test has shown nothing", c.name, before, after)
			}
		})
	}
	began := time.Now()
	run(t, l, "drain", "web/one", "--wait")
	t.Logf("safe to stop after %s, with a TTL of %s", time.Since(began).Round(10*time.Millisecond), ttl)
	safe.Store(true)
	stop := time.NewTimer(5 * time.Second) // asked for as long as a cache could hold another one
	<-stop.C
	cancel()
	asking.Wait()
}
