package kernel_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
	"github.com/musterdns/muster/integration/program"
)

// lease is how long a dead holder keeps the address from others.
const lease = 5 * time.Second

// pair is the configuration of one of two servers that share a registry and hold
// the virtual address in turn.
func pair(l *fault.Lab, name string) string {
	return fmt.Sprintf(`node: %s
dns: {listen: ["127.0.0.1:5300"]}
registry: {snapshot: %q, mode: etcd, etcd: {endpoints: ["http://%s:2379"], insecure: true}}
zones: [{name: svc.internal., source: muster}]
proxy:
  listeners:
    - {name: front, mode: nat, listen: "%s:80", service: web, masquerade: true, affinity: client}
    - {name: page, mode: http, listen: "0.0.0.0:81", service: web}
  vips: [{address: %s/24, interface: eth0, lease: %s}]
`, name, l.Path(name+".snapshot"), network+"5", vip, vip, lease)
}

// registryMachine is a machine with an etcd.
func registryMachine(t *testing.T, l *fault.Lab) {
	t.Helper()
	machine(t, "registry", 5)
	path, err := program.Find("etcd")
	must(t, err)
	// How long the address is away is not to have the disk's part in it.
	url := "http://" + network + "5:2379"
	p, err := l.Start("etcd", netlab.On("registry", path, "--log-level", "error", "--data-dir", l.Path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", url, "--advertise-client-urls", url)...)
	must(t, err)
	must(t, p.Poll(t.Context(), func() error {
		c, err := dial(network + "5:2379")
		if err == nil {
			c.Close()
		}
		return err
	}))
}

// The process that follows goes on with the lease of the one before: the address
// is never away, and another server that waits for it gets no chance.
func TestVIP_IsNotGivenUpByAnUpgrade(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	registryMachine(t, l)
	instance(t, l, 11, 8080)
	machine(t, "lb-a", 21)
	machine(t, "lb-b", 22)
	// Long enough for a machine that is busy with other tests too to start a process.
	longer := func(name string) string {
		return strings.Replace(pair(l, name), fmt.Sprintf("lease: %s", lease), "lease: 12s", 1)
	}
	s := serve(t, l, "lb-a", longer("lb-a"))
	register(t, l, "lb-a", 11, 8080)
	answers(t, vip+":80", network+"11")
	serve(t, l, "lb-b", longer("lb-b"))
	status := []string{"proxy", "status"}
	shows(t, l, "lb-b", status, " "+vip+"/24 eth0 no 0 ")
	c, err := dial(vip + ":80")
	must(t, err)
	defer c.Close()
	same(t, c, network+"11")
	monitor, err := l.Start("ip monitor", netlab.On("lb-a", "ip", "monitor", "address")...)
	must(t, err)
	// It runs once it tells of a renewal.
	renewed := func(n int) {
		t.Helper()
		eventually(t, func() error {
			if got := strings.Count(monitor.Output(), vip); got < n {
				return fmt.Errorf("the address was set %d times, want %d", got, n)
			}
			return monitor.Ended()
		})
	}
	renewed(1)
	w := newWitnesses(t, l)
	w.see(t, "before the upgrade", network+"21")

	must(t, s.Signal(syscall.SIGUSR2))
	<-s.Done()
	if s.ExitCode() != 0 {
		t.Fatalf("the old process ends with %d, want 0", s.ExitCode())
	}
	shows(t, l, "lb-a", status, " "+vip+"/24 eth0 yes 1 ")
	same(t, c, network+"11")
	renewed(strings.Count(monitor.Output(), vip) + 6) // for longer than a lease
	w.see(t, "after the upgrade", network+"21")
	if text := monitor.Output(); strings.Contains(text, "Deleted") {
		t.Errorf("the address was taken away:\n%s", text)
	}
	shows(t, l, "lb-b", status, " "+vip+"/24 eth0 no 0 ")
	for _, p := range []*probe{w.ordinary, w.toA, w.toB, w.link} {
		for _, a := range p.answers(t) {
			if a.who != network+"21" && a.who != w.macA {
				t.Fatalf("%s: answered by %s", a.what, a.who)
			}
		}
	}
	most := 3*time.Second + w.stalled(t) // bench/README.md has the time of a machine that is not busy
	for _, way := range []string{byKernel, byProcess} {
		// A probe that finds nobody waits for as long as its patience.
		away := longest(w.ordinary.answers(t), way)
		t.Logf("%s: away for %v", way, away.Round(time.Millisecond))
		if away > most {
			t.Errorf("%s: nobody answered for %v, want at most %v", way, away, most)
		}
	}
}

// A preferred server takes the address over from another once it has been there
// for a while, not each time that it has started.
func TestVIP_GoesToThePreferredServerAndDoesNotFlap(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	registryMachine(t, l)
	instance(t, l, 11, 8080)
	machine(t, "lb-a", 21)
	machine(t, "lb-b", 22)
	preferred := strings.Replace(pair(l, "lb-a"), "lease:", "priority: 10, lease:", 1)
	serve(t, l, "lb-b", pair(l, "lb-b"))
	register(t, l, "lb-b", 11, 8080)
	answers(t, vip+":80", network+"11")
	status := []string{"proxy", "status"}
	for range 3 { // it fails, and comes back
		a := serve(t, l, "lb-a", preferred)
		shows(t, l, "lb-a", status, " "+vip+"/24 eth0 no 0 ")
		must(t, fault.Kill(a))
	}
	w := newWitnesses(t, l)
	w.see(t, "from the other", network+"22")
	began := time.Now() // it may be there before serve returns
	serve(t, l, "lb-a", preferred)
	w.see(t, "from the preferred", network+"21")
	t.Logf("the preferred server has the address after %v", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took < 3*lease {
		t.Errorf("the preferred server takes the address after %v, want it to be there for %v before", took, 3*lease)
	}
	shows(t, l, "lb-b", status, " "+vip+"/24 eth0 no 1 ")
	w.judge(t, "lb-b", "lb-a")
}
