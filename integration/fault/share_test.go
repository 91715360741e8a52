package fault_test

import (
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/integration/fault"
)

// TestPeers_ShareTheChecking goes with four servers, of which each checks three
// quarters of the instances, through the loss of one's network, of an instance
// and of a server.
func TestPeers_ShareTheChecking(t *testing.T) {
	t.Parallel()
	const servers, instances, share = 4, 200, 150
	p := startPeers(t, servers, instances)
	for i := range servers {
		// Members' names are drawn, and so is by that who checks what: these limits
		// are six standard deviations off.
		if err := p.AwaitTargets(t.Context(), i, share*0.75, share*1.25); err != nil {
			t.Fatal(err)
		}
	}
	rates, err := p.Rates(t.Context(), 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("checks a second: %.0f", rates)
	mean := 0.0
	for _, r := range rates {
		mean += r / servers
	}
	for i, r := range rates {
		if r < 0.75*mean || r > 1.25*mean {
			t.Errorf("server %d sends %.0f checks a second, want %.0f within 25 %%", i, r, mean)
		}
	}

	flips := countFlips(t, p)
	p.Fleet.Cut(p.Host(2))
	if err := p.AwaitMetric(t.Context(), 2, "muster_health_suspect", 1); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	p.Fleet.Kill(7)
	told := 0
	for i := range servers {
		if err := p.AwaitServing(t.Context(), i, instances-1); err != nil {
			t.Errorf("one server is cut off from the instances, and one instance is killed: %v", err)
		}
		flips("one instance failed", i, 1)
		told += tellsOf(t, p, i, killed)
	}
	if told == 0 {
		t.Error("three of four servers check it, and none knows of its failure from the others")
	}
	p.Fleet.Cut("")
	if err := p.AwaitMetric(t.Context(), 2, "muster_health_suspect", 0); err != nil {
		t.Fatal(err)
	}

	if err := fault.Kill(p.Servers[3].Process); err != nil {
		t.Fatal(err)
	}
	killed = time.Now()
	for i := range servers - 1 {
		if err := p.AwaitTargets(t.Context(), i, instances, instances); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the share of the server that died is taken over after %s", time.Since(killed))
	p.Fleet.Kill(8)
	for i := range servers - 1 {
		if err := p.AwaitServing(t.Context(), i, instances-2); err != nil {
			t.Errorf("one server is dead, and another instance is killed: %v", err)
		}
		flips("two instances failed", i, 2)
	}
}

// TestPeers_GoOnWhileOneHangs stops one of three servers, which check every
// instance, for longer than its lease, and lets it go on.
func TestPeers_GoOnWhileOneHangs(t *testing.T) {
	t.Parallel()
	const servers, instances = 3, 60
	p := startPeers(t, servers, instances)
	flips := countFlips(t, p)
	if err := p.Servers[2].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Fleet.Kill(7)
	for i := range servers - 1 {
		if err := p.AwaitServing(t.Context(), i, instances-1); err != nil {
			t.Errorf("one server hangs, and an instance is killed: %v", err)
		}
	}
	if err := p.AwaitMembers(t.Context(), 0, servers-1); err != nil {
		t.Fatal(err)
	}
	if err := p.Servers[2].Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitServing(t.Context(), 2, instances-1); err != nil {
		t.Errorf("the server goes on: %v", err)
	}
	if err := p.AwaitMembers(t.Context(), 0, servers); err != nil {
		t.Fatal(err)
	}
	p.Fleet.Kill(8)
	for i := range servers {
		if err := p.AwaitServing(t.Context(), i, instances-2); err != nil {
			t.Errorf("all are back, and another instance is killed: %v", err)
		}
		flips("two instances failed", i, 2)
	}
}

// TestPeers_GoOnWithoutEtcd kills etcd for longer than it takes the servers to
// go on alone, and starts it again.
func TestPeers_GoOnWithoutEtcd(t *testing.T) {
	t.Parallel()
	const servers, instances = 4, 80
	p := startPeers(t, servers, instances)
	const low, high = instances * 0.75 * 0.6, instances - 1 // nearly everything that chance can make of it
	for i := range servers {
		if err := p.AwaitTargets(t.Context(), i, low, high); err != nil {
			t.Fatal(err)
		}
	}
	flips := countFlips(t, p)
	if err := p.Etcd.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for i := range servers {
		if err := p.AwaitTargets(t.Context(), i, instances, instances); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("each server checks everything %s after etcd's end", time.Since(killed).Round(time.Millisecond))
	p.Fleet.Kill(7)
	for i := range servers {
		if err := p.AwaitServing(t.Context(), i, instances-1); err != nil {
			t.Errorf("etcd is away, and an instance is killed: %v", err)
		}
		flips("etcd is away, one instance failed", i, 1)
	}
	if err := p.Etcd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range servers {
		if err := p.AwaitTargets(t.Context(), i, low, high); err != nil {
			t.Fatal(err)
		}
	}
	p.Fleet.Kill(8)
	for i := range servers {
		if err := p.AwaitServing(t.Context(), i, instances-2); err != nil {
			t.Errorf("etcd is back, and another instance is killed: %v", err)
		}
		flips("etcd is back, two instances failed", i, 2)
	}
}

// TestPeers_HoldWhatIsLostAtOnce takes most instances away, by deleting them
// and by ending their leases.
func TestPeers_HoldWhatIsLostAtOnce(t *testing.T) {
	t.Parallel()
	const instances, most = 100, 60
	p := startPeers(t, 1, instances)
	revoke, err := p.Lease(t.Context(), 0, most)
	if err != nil {
		t.Fatal(err)
	}
	held := `muster_pool_removals_held{zone="` + fault.Zone + `"}`
	dir := fault.Instance(fault.FleetService, "")
	if _, err := p.Etcd.Delete(t.Context(), dir+p.Fleet.ID(0), clientv3.WithRange(dir+p.Fleet.ID(most))); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitServing(t.Context(), 0, instances-most); err != nil {
		t.Fatal(err)
	}
	if v, err := p.Servers[0].Metric(t.Context(), held); err != nil || v != 0 {
		t.Errorf("60 of 100 are deleted: removals held is %v, %v; want 0", v, err)
	}
	if err := revoke(); err != nil { // nothing is under them any more
		t.Fatal(err)
	}
	if revoke, err = p.Lease(t.Context(), 0, most); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitServing(t.Context(), 0, instances); err != nil {
		t.Fatal(err)
	}
	if err := revoke(); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitMetric(t.Context(), 0, held, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Serving(t.Context(), 0); err != nil || n != instances {
		t.Errorf("60 of 100 are lost: %d are answered, %v; want all", n, err)
	}
}

func startPeers(t *testing.T, servers, instances int) *fault.Peers {
	t.Helper()
	p, err := newLab(t).StartPeers(t.Context(), servers, instances, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// tellsOf holds what a server tells of the failure of an instance killed at a
// time to that: no server's own trouble before is a sign of it. It returns 1 if
// the server knows of it from others.
func tellsOf(t *testing.T, p *fault.Peers, server int, killed time.Time) int {
	t.Helper()
	f, err := p.Servers[server].LastFailure(t.Context(), fault.FleetService)
	if err != nil || f == nil {
		t.Errorf("server %d tells of no failure: %v", server, err)
		return 0
	}
	first, good := f.At.Add(-f.Wrong).Sub(killed), f.At.Add(-f.Bound).Sub(killed)
	t.Logf("server %d: %s, first sign %v after the kill, last good check %v, last wrong answer %v", server, f.Cause, first, good, f.At.Sub(killed))
	if first < -time.Second || f.Bound == 0 || good > time.Second { // a check's timeout
		t.Error("they do not fit the kill")
	}
	if f.Cause == "report" {
		return 1
	}
	return 0
}

// countFlips returns a function that holds a server to so many changes of an
// instance's health since then. (First verdicts differ: a server that starts
// beside others takes theirs.)
func countFlips(t *testing.T, p *fault.Peers) func(what string, server int, want float64) {
	t.Helper()
	before := make([]float64, len(p.Servers))
	for i := range before {
		var err error
		if before[i], err = p.Changes(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	return func(what string, i int, want float64) {
		t.Helper()
		if n, err := p.Changes(t.Context(), i); err != nil || n-before[i] != want {
			t.Errorf("%s: server %d found %v changes of health, %v; want %v", what, i, n-before[i], err, want)
		}
	}
}
