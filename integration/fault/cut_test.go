package fault_test

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
)

// alone runs a test in a network namespace of its own, where nft may drop what it
// likes, and reports whether that is where it runs.
func alone(t *testing.T, limit time.Duration) bool {
	t.Helper()
	if netlab.Inside() {
		command(t, "ip link set lo up")
		command(t, "nft add table inet cut")
		for _, hook := range []string{"input", "output"} {
			command(t, "nft add chain inet cut %s { type filter hook %s priority 0 ; }", hook, hook)
		}
		return true
	}
	t.Parallel()
	out, err := netlab.Again(t.Context(), t.Name(), limit)
	t.Logf("in the namespace:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// command runs a program, of words between spaces, that must succeed.
func command(t *testing.T, format string, args ...any) {
	t.Helper()
	argv := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// drop loses every packet to and from a TCP port: connections there stay half open.
func drop(t *testing.T, port string) {
	t.Helper()
	for _, hook := range []string{"input", "output"} {
		command(t, "nft add rule inet cut %s tcp dport %s drop", hook, port)
		command(t, "nft add rule inet cut %s tcp sport %s drop", hook, port)
	}
}

// Row 14 of the faults: nft drops whatever the checker sends out, to instances and to
// etcd. It freezes what it serves and says so, instead of evicting; when the network is back
// all pass again.
func TestChecker_CutOffFromAllKeepsWhatItServes(t *testing.T) {
	if !alone(t, 3*time.Minute) {
		return
	}
	const instances = 20
	p := startPeers(t, 1, instances)
	load := fault.Load{
		Addr: p.Servers[0].DNS, Rate: 200, Names: []string{fault.FleetService + "." + fault.Zone}, Window: 20 * time.Second,
		Judge: func(m *dns.Msg) error {
			if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 8 { // max_answers: auto
				return fmt.Errorf("%s with %d addresses", dns.RcodeToString[m.Rcode], len(m.Answer))
			}
			return nil
		},
	}
	drop(t, "8080") // where instances are
	drop(t, "2379") // etcd
	tally, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut off for %s: %d questions, %d answers stale", load.Window, tally.Sent, tally.Stale)
	if err := tally.Bad(); err != nil {
		t.Error(err)
	}
	if n, err := p.Serving(t.Context(), 0); err != nil || n != instances {
		t.Errorf("cut off for %s, %d instances are answered, %v; want all %d", load.Window, n, err, instances)
	}
	if v, err := p.Servers[0].Metric(t.Context(), `muster_health_targets{state="failing"}`); err != nil || v != instances {
		t.Errorf("cut off for %s, the checks of %v instances fail, %v; want all", load.Window, v, err)
	}
	if v, err := p.Servers[0].Metric(t.Context(), "muster_health_suspect"); err != nil || v != 1 {
		t.Errorf("muster_health_suspect is %v, %v; want 1", v, err)
	}
	if tally.Stale == 0 {
		t.Error("no answer says that etcd is away")
	}
	command(t, "nft flush table inet cut")
	if err := p.AwaitMetric(t.Context(), 0, "muster_health_suspect", 0); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitPassing(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// Row 32 of the faults: nft cuts one of two servers off from etcd without closing a
// connection. It says how old its state is and of which revision; after the heal both
// answer the same within five seconds.
func TestReplicas_OneCutOffIsEqualSoonAfter(t *testing.T) {
	if !alone(t, 3*time.Minute) {
		return
	}
	p, err := newLab(t).StartReplicas(t.Context(), 2, 10, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	clients := make([]*fault.Client, 2)
	for i, s := range p.Servers {
		if clients[i], err = fault.Dial(t.Context(), s.DNS); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(clients[i].Close)
	}
	metric := func(i int, name string) float64 {
		t.Helper()
		v, err := p.Servers[i].Metric(t.Context(), name+`{zone="`+fault.Zone+`"}`)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	put := func(n int) string {
		t.Helper()
		addr := fmt.Sprintf("10.0.%d.%d", n/256, n%256)
		if _, err := p.Etcd.Put(t.Context(), fault.Instance("moves", "it"), addr+":80"); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	first := put(1)
	for _, c := range clients {
		if _, err := c.Await(t.Context(), "moves."+fault.Zone, dns.TypeA, fault.Has(first)); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(p.Relays[1].Addr)
	if err != nil {
		t.Fatal(err)
	}
	drop(t, port)
	last := ""
	for n := range 500 {
		last = put(2 + n)
	}
	if _, err := clients[0].Await(t.Context(), "moves."+fault.Zone, dns.TypeA, fault.Has(last)); err != nil {
		t.Fatal(err)
	}
	const alarm = 10 // stale_after, seconds
	err = fault.Until(t.Context(), 100*time.Millisecond, func() error {
		m, err := clients[1].Ask("moves."+fault.Zone, dns.TypeA)
		if err != nil {
			return err
		}
		if _, stale := fault.Stale(m); !stale {
			return errors.New("its answers do not say that they are stale")
		}
		return fault.Has(first)(m)
	})
	if err != nil {
		t.Fatal(err)
	}
	if age, rev := metric(1, "muster_registry_age_seconds"), metric(1, "muster_registry_revision"); age < alarm || rev >= metric(0, "muster_registry_revision") {
		t.Errorf("the server that is cut off is %v s old, at revision %v; the other one is at %v", age, rev, metric(0, "muster_registry_revision"))
	}
	command(t, "nft flush table inet cut")
	healed := time.Now()
	if _, err := clients[1].Await(t.Context(), "moves."+fault.Zone, dns.TypeA, fault.Has(last)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(healed)
	t.Logf("500 changes later both answer the same %s after the heal", took)
	if took > busy*5*time.Second {
		t.Errorf("both answer the same %s after the heal, want at most 5 s on a machine that is idle", took)
	}
	err = fault.Until(t.Context(), 50*time.Millisecond, func() error {
		if a, b, age := metric(0, "muster_registry_revision"), metric(1, "muster_registry_revision"), metric(1, "muster_registry_age_seconds"); a != b || age > alarm {
			return fmt.Errorf("revisions %v and %v, %v s old", a, b, age)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
