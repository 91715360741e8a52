package fault_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

func TestServe_WithoutEtcdAndSnapshotIsNotReadyAndDeniesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	put(t, e, fault.Instance("web", "one"), "10.1.1.1:80")
	must(t, e.Kill())

	write(t, l, "one.zone", zoneText("10.1.0.1"))
	must(t, l.Configure(fault.Settings{Etcd: e.URL, Zones: []string{fmt.Sprintf("{name: one.test., file: %q}", l.Path("one.zone"))}}))
	s, err := l.Serve()
	must(t, err)
	c := dial(t, s)
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.1"))
	// That it waits for nothing: less than for etcd, which it would wait for for ever.
	if took := s.Age(); took > busy*3*time.Second {
		t.Errorf("the static zone was answered after %s, want 3s at most on a machine that is idle", took)
	}
	// Longer than readiness waits for anything else.
	unready, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	for unready.Err() == nil {
		m, err := c.Ask("web."+fault.Zone, dns.TypeA)
		if err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("a name that nothing is known about is answered %v, %v; want SERVFAIL", m, err)
		}
		if out, err := l.CLI(t.Context(), "healthcheck"); err == nil || !strings.Contains(out, "state from the registry") {
			t.Fatalf("muster healthcheck: %v, %q; want not ready, and why", err, out)
		}
	}
	must(t, e.Start())
	must(t, e.Ready(t.Context()))
	began := time.Now()
	await(t, c, "web."+fault.Zone, dns.TypeA, fault.Has("10.1.1.1"))
	if took := time.Since(began); took > busy*5*time.Second {
		t.Errorf("the registry was answered %s after etcd was there, want 5s at most on a machine that is idle", took)
	}
	must(t, s.Ready(t.Context()))
	if _, err := l.CLI(t.Context(), "healthcheck"); err != nil {
		t.Error(err)
	}
}

// The snapshot file has one default place. Who tries Muster out and then names
// another etcd must not answer with what was tried while that one is away.
func TestServe_WithTheSnapshotOfAnotherStoreDoesNotServeIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	put(t, e, fault.Instance("web", "one"), "10.1.1.1:80")
	settings := fault.Settings{Etcd: e.URL, Snapshot: l.Path("snapshot")}
	serve := func(right func(*dns.Msg) error) *fault.Server {
		must(t, l.Configure(settings))
		s, err := l.Serve()
		must(t, err)
		await(t, dial(t, s), "web."+fault.Zone, dns.TypeA, right)
		return s
	}
	serve(fault.Has("10.1.1.1")).Stop()
	must(t, e.Kill())
	serve(fault.Has("10.1.1.1")).Stop()
	settings.Etcd = "http://" + l.Addr(99).String() + ":2379"
	s := serve(fault.RCode(dns.RcodeServerFailure))
	must(t, s.Logged(t.Context(), "its records are of "+e.URL+", none of which is configured"))
}
