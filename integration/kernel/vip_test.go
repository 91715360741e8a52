package kernel_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
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
	url := "http://" + network + "5:2379"
	p, err := l.Start("etcd", append(on("registry"), path, "--log-level", "error", "--data-dir", l.Path("etcd"),
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

func TestVIP_StaysWithAServerThatIsUpgraded(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	registryMachine(t, l)
	instance(t, l, 11, 8080)
	machine(t, "lb-a", 21)
	s := serve(t, l, "lb-a", pair(l, "lb-a"))
	register(t, l, "lb-a", 11, 8080)
	answers(t, vip+":80", network+"11")
	c, err := dial(vip + ":80")
	must(t, err)
	defer c.Close()
	same(t, c, network+"11")

	// The old process and the new have the planes, one after the other.
	must(t, s.Signal(syscall.SIGUSR2))
	<-s.Done()
	if s.ExitCode() != 0 {
		t.Fatalf("the old process ends with %d, want 0", s.ExitCode())
	}
	shows(t, l, "lb-a", []string{"proxy", "status"}, " "+vip+"/24 eth0 yes 1 ")
	c.patience = patience // a packet that was lost meanwhile is sent again
	same(t, c, network+"11")
	answers(t, vip+":80", network+"11")
}
