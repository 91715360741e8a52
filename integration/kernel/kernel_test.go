package kernel_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// configuration is that of a server whose etcd is embedded, with a proxy.
func configuration(l *fault.Lab, proxy string) string {
	return fmt.Sprintf(`node: lb
dns: {listen: ["127.0.0.1:5300"]}
registry: {snapshot: %q, embedded: {dir: %q}}
zones: [{name: svc.internal., source: muster}]
services:
  - {zone: svc.internal., name: web, checks: [{type: tcp, interval: 300ms, timeout: 300ms, fall: 2, rise: 1}]}
proxy: %s
`, l.Path("snapshot"), l.Path("embedded"), proxy)
}

// register registers the instance of a host.
func register(t *testing.T, l *fault.Lab, machine string, host, port int) {
	t.Helper()
	_, err := muster(t, l, machine, "register", "web", "--id", fmt.Sprintf("web-%d", host),
		"--address", fmt.Sprintf("%s%d", network, host), "--port", fmt.Sprint(port), "--forever")
	must(t, err)
}

func TestNAT_KeepsConnectionsOverARestartAndResetsThoseOfADeadInstance(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	machine(t, "lb", 10)
	in(t, "lb", "ip address add "+vip+"/24 dev eth0")
	instance(t, l, 11, 8080)
	instance(t, l, 12, 8080)
	config := configuration(l, `{listeners: [{name: front, mode: nat, listen: "`+vip+`:80", service: web, masquerade: true}]}`)
	s := serve(t, l, "lb", config)
	for _, host := range []int{11, 12} {
		register(t, l, "lb", host, 8080)
		answers(t, vip+":80", fmt.Sprint(network, host))
	}
	first, err := dial(vip + ":80")
	must(t, err)
	defer first.Close()
	from, err := first.ask()
	must(t, err)

	// A crash and a start later, the connection is where it was. So it is between.
	must(t, fault.Kill(s))
	same(t, first, from)
	s = serve(t, l, "lb", config)
	same(t, first, from)
	id := "web-" + strings.TrimPrefix(from, network)
	shows(t, l, "lb", []string{"proxy", "status"}, " front nat "+vip+":80 web ")
	shows(t, l, "lb", []string{"proxy", "status"}, " "+id+" yes ")
	for _, target := range []string{vip + ":80", "http://" + vip + "/", "front"} {
		shows(t, l, "lb", []string{"explain", "--proxy", target, "--client", client}, "one of the instances below")
	}
	if text := metrics(t, "lb"); !strings.Contains(text, `muster_proxy_kernel_connections_total{listener="front"} `) {
		t.Error("there is no metric of the listener's connections")
	}
	// Each instance is shown by itself, as those of the other modes are. All but
	// the first connection have been closed.
	shows(t, l, "lb", []string{"proxy", "status"}, " front nat "+vip+":80 web 1 ")
	shows(t, l, "lb", []string{"proxy", "status"}, " "+id+" yes 50.0% 1 ", " 0 passing ")
	// Counting began anew if the instance was not served for a moment at the start.
	answers(t, vip+":80", from)
	for metric, least := range map[string]float64{"in_flight": 1, "requests_total": 1, "received_bytes_total": 200, "sent_bytes_total": 200} {
		eventually(t, func() error { return atLeast(metrics(t, "lb"), metric, id, least) })
	}

	// The instance's machine goes silent: its checks fail, and who waits for its
	// answer is told.
	in(t, id, "ip link set eth0 down")
	began := time.Now()
	first.SetDeadline(time.Now().Add(patience))
	_, err = first.r.ReadByte()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to a dead instance ends with %v, want a reset", err)
	}
	t.Logf("reset after %v", time.Since(began).Round(time.Millisecond))
	for range 20 {
		got, err := ask(vip + ":80")
		if err != nil || got == from {
			t.Errorf("after the reset %q answers, %v; want the other instance", got, err)
		}
	}
	shows(t, l, "lb", []string{"proxy", "status"}, " "+id+" no ", "down: what it had was reset")

	if out, err := muster(t, l, "lb", "doctor"); err != nil || strings.Contains(out, "forward") {
		t.Errorf("muster doctor wants what no listener needs: %v\n%s", err, out)
	}
	in(t, "lb", "sysctl -qw net.ipv4.ip_forward=0")
	eventually(t, func() error {
		if out, _ := muster(t, l, "lb", "doctor"); !strings.Contains(out, "does not forward IPv4") {
			return fmt.Errorf("muster doctor does not say that the machine does not forward:\n%s", out)
		}
		return nil
	})

	// What is not configured any more is taken away at the next start.
	s.Stop()
	if text := in(t, "lb", "nft list tables"); !strings.Contains(text, "muster") {
		t.Errorf("stopping took the tables away, which cuts connections; there are %q", text)
	}
	serve(t, l, "lb", configuration(l, "{}"))
	if text := in(t, "lb", "nft list tables"); strings.Contains(text, "muster") {
		t.Errorf("without a listener there still are the tables %q", text)
	}
}

// atLeast is an error unless an instance's metric is that much.
func atLeast(text, metric, id string, least float64) error {
	name := fmt.Sprintf(`muster_proxy_instance_%s{instance_id=%q,part="",service="web",zone="svc.internal."} `, metric, id)
	_, rest, found := strings.Cut(text, name)
	var n float64
	if _, err := fmt.Sscan(rest, &n); !found || err != nil {
		return fmt.Errorf("there is no %s: %w", name, err)
	}
	if n < least {
		return fmt.Errorf("%s is %v, want %v at least", name, n, least)
	}
	return nil
}

// same has a connection's next request answered by the same instance.
func same(t *testing.T, c *conn, from string) {
	t.Helper()
	got, err := c.ask()
	if err != nil || got != from {
		t.Fatalf("the open connection is answered by %q, %v; want %s", got, err, from)
	}
}

func TestDSR_Auto(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	machine(t, "lb", 10)
	in(t, "lb", "ip address add "+vip+"/24 dev eth0")
	config := configuration(l, `{listeners: [{name: front, mode: dsr, listen: "`+vip+`:80", service: web, interface: eth0}]}`)
	s := serve(t, l, "lb", config)
	for _, host := range []int{11, 12} {
		instance(t, l, host, 80)
		name := fmt.Sprintf("web-%d", host)
		in(t, name, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
		in(t, name, "ip address add "+vip+"/32 dev lo")
		register(t, l, "lb", host, 80)
	}
	line := shows(t, l, "lb", []string{"proxy", "status"}, "listener front, attached to eth0 as ")
	t.Log(strings.TrimSpace(line))
	if !strings.HasSuffix(strings.TrimSpace(line), " as tcx") { // on one end of a veth pair
		t.Error("auto took another mode, want tcx")
	}
	for _, host := range []int{11, 12} {
		answers(t, vip+":80", fmt.Sprint(network, host))
	}
	first, err := dial(vip + ":80")
	must(t, err)
	defer first.Close()
	from, err := first.ask()
	must(t, err)
	// A crash and a start later, the connection is where it was, whatever mode the
	// program was in and is in. So it is between.
	for attach, mode := range map[string]string{"generic": "xdp-generic", "tcx": "tcx", "auto": "tcx"} {
		must(t, fault.Kill(s))
		same(t, first, from)
		s = serve(t, l, "lb", strings.Replace(config, "mode: dsr", "mode: dsr, attach: "+attach, 1))
		shows(t, l, "lb", []string{"proxy", "status"}, " attached to eth0 as "+mode+" ")
		same(t, first, from)
	}
	id := "web-" + strings.TrimPrefix(from, network)
	shows(t, l, "lb", []string{"proxy", "status"}, " "+id+" yes ")
	answers(t, vip+":80", from) // counting may have begun anew, as with nat
	for metric, least := range map[string]float64{"requests_total": 1, "received_bytes_total": 200} {
		eventually(t, func() error { return atLeast(metrics(t, "lb"), metric, id, least) })
	}
	s.Stop()
	serve(t, l, "lb", configuration(l, "{}"))
	if got, err := ask(vip + ":80"); err == nil {
		t.Errorf("without a listener, the program still sends to %s", got)
	}
}
