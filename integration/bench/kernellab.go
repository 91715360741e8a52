package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/netlab"
	"github.com/musterdns/muster/integration/program"
)

// kernelWay is one way for a client to an instance. Each balancer is on a machine
// of its own, as rules of nftables would cost the others something.
type kernelWay struct {
	name    string
	machine string // the balancer's; "" for none
	host    int
	addr    string // where clients connect to
	limited bool   // it is one that must cost little
	counts  bool   // the balancer counts replies
	proc    *program.Process
	note    string // what is to be said of it
}

// The hosts of the lab's link, beside the balancers'.
const (
	hostClient  = 2
	hostNear    = 11 // an instance that answers clients directly
	hostBehind  = 12 // one whose way to clients is the transparent proxy
	hostRouted  = 13 // one whose way to clients and back is the router
	hostNatted  = 14 // one whose way to clients is mode nat
	hostByHand  = 15 // one whose way to clients is nftables without Muster
	hostTproxy  = 23
	hostNAT     = 21
	hostRouter  = 26
	hostNFT     = 27
	kernelPort  = 80
	machineNear = "web"
	// nftByHand is the least that nftables can do for what mode nat does: one rule
	// that translates, and one that masquerades where nat is to. It is the floor under
	// nat.
	nftByHand = "nft by hand"
	// masquerading follows the name of a way that hides the client's address.
	masquerading = ", masquerading"
)

// instanceMachines are those with an instance, as hosts from hostNear on.
var instanceMachines = [...]string{machineNear, "web-behind", "web-routed", "web-natted", "web-by-hand"}

// kernelLab is the link and what is on it. This process is the client.
type kernelLab struct {
	o         kernelOptions
	dir       string
	ways      []*kernelWay
	instances []*program.Process
	started   []*program.Process
}

func address(host int) string { return fmt.Sprint(netlab.Network, host) }

func newKernelLab(ctx context.Context, o kernelOptions) (l *kernelLab, err error) {
	l = &kernelLab{o: o}
	if l.dir, err = os.MkdirTemp("", "muster-bench-"); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// close ends what was started.
func (l *kernelLab) close() {
	for _, p := range slices.Backward(l.started) {
		p.Stop()
	}
	os.RemoveAll(l.dir)
}

func (l *kernelLab) index(name string) int {
	return slices.IndexFunc(l.ways, func(w *kernelWay) bool { return w.name == name })
}

// start starts a program on a machine and a core.
func (l *kernelLab) start(core int, machine string, argv ...string) (*program.Process, error) {
	p, err := start(core, argv[0]+" on "+machine, netlab.On(machine, argv...)...)
	if err == nil {
		l.started = append(l.started, p)
	}
	return p, err
}

// build makes the machines and starts all programs.
func (l *kernelLab) build(ctx context.Context) error {
	if err := netlab.New(ctx, hostClient); err != nil {
		return err
	}
	// Bridged packets are not to be filtered, as by a real switch.
	if _, err := netlab.In(ctx, "switch", "sysctl -qew net.bridge.bridge-nf-call-iptables=0"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i, machine := range instanceMachines {
		if err := netlab.Add(ctx, machine, hostNear+i); err != nil {
			return err
		}
		p, err := l.start(loadCore, machine, self, kernelInstanceVerb, fmt.Sprintf(":%d", kernelPort))
		if err != nil {
			return err
		}
		l.instances = append(l.instances, p)
	}
	l.ways = []*kernelWay{
		{name: "direct", addr: address(hostNear)},
		{name: "router", machine: "router", host: hostRouter, addr: address(hostRouted)},
		{name: "nat", machine: "nat", host: hostNAT, addr: address(101), limited: true, counts: true},
		{name: nftByHand, machine: "nft", host: hostNFT, addr: address(103)},
		{name: "nat" + masquerading, machine: "nat-masq", host: 28, addr: address(104), counts: true},
		{name: nftByHand + masquerading, machine: "nft-masq", host: 29, addr: address(105)},
		{name: "dsr", machine: "dsr", host: 22, addr: address(102), limited: true, counts: true},
		{name: "tproxy", machine: "tproxy", host: hostTproxy, addr: address(hostTproxy)},
		{name: "proxy", machine: "proxy", host: 24, addr: address(24)},
		{name: "haproxy", machine: "haproxy", host: 25, addr: address(25)},
	}
	for _, w := range l.ways {
		w.addr = net.JoinHostPort(w.addr, fmt.Sprint(kernelPort))
		if w.machine != "" {
			if err := l.balancer(ctx, w); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		again, cancel := context.WithTimeout(ctx, startTimeout)
		err := until(again, func() error { return connectOnce(again, w.addr, make([]byte, l4Small)) })
		cancel()
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", w.name, err)
		}
	}
	return nil
}

// until calls f until it succeeds, or with ctx.
func until(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// balancer makes a way's machine and starts what balances there.
func (l *kernelLab) balancer(ctx context.Context, w *kernelWay) error {
	if err := netlab.Add(ctx, w.machine, w.host); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(w.addr)
	if err != nil {
		return err
	}
	lines := []string{w.machine + " sysctl -qw net.ipv4.conf.all.send_redirects=0", w.machine + " sysctl -qw net.ipv4.conf.eth0.send_redirects=0"}
	listener := fmt.Sprintf("name: web, service: web, listen: %q, ", w.addr)
	instance := address(hostNear)
	own := fmt.Sprintf("%s ip address add %s/32 dev eth0", w.machine, host) // for modes without a socket
	switch w.name {
	case "router":
		lines = append(lines, routeBack("web-routed", hostRouter))
		if err := route(ctx, hostRouted, hostRouter); err != nil {
			return err
		}
	case "nat":
		listener += "mode: nat"
		instance = address(hostNatted)
		lines = append(lines, own, routeBack("web-natted", hostNAT))
	case "nat" + masquerading:
		listener += "mode: nat, masquerade: true"
		lines = append(lines, own)
	case nftByHand:
		instance = address(hostByHand)
		lines = append(lines, own, routeBack("web-by-hand", hostNFT))
		lines = append(lines, byHand(w.machine, host, instance, false)...)
	case nftByHand + masquerading:
		lines = append(lines, own)
		lines = append(lines, byHand(w.machine, host, instance, true)...)
	case "dsr":
		listener += "mode: dsr, interface: eth0"
		for _, setting := range []string{"arp_ignore=1", "arp_announce=2"} {
			lines = append(lines, machineNear+" sysctl -qw net.ipv4.conf.all."+setting)
		}
		lines = append(lines, own, machineNear+" ip address add "+host+"/32 dev lo")
	case "tproxy":
		listener = `name: web, service: web, listen: "0.0.0.0:9000", mode: tcp, transparent: true`
		instance = address(hostBehind)
		lines = append(
			lines, routeBack("web-behind", hostTproxy), "tproxy ip rule add fwmark 1 lookup 100", "tproxy ip route add local 0.0.0.0/0 dev lo table 100",
			"tproxy nft add table ip bench", "tproxy nft add chain ip bench divert { type filter hook prerouting priority mangle ; }",
			"tproxy nft add rule ip bench divert meta l4proto tcp socket transparent 1 meta mark set 1 accept",
			fmt.Sprintf("tproxy nft add rule ip bench divert ip daddr %s tcp dport %d tproxy to :9000 meta mark set 1 accept", host, kernelPort),
		)
	case "proxy":
		listener += "mode: tcp"
	}
	for _, line := range lines {
		machine, line, _ := strings.Cut(line, " ")
		if _, err := netlab.In(ctx, machine, line); err != nil {
			return err
		}
	}
	switch w.name {
	case "router", nftByHand, nftByHand + masquerading:
		return nil
	case "haproxy":
		return l.haproxy(w)
	default:
		return l.balance(ctx, w, listener, instance)
	}
}

// byHand are the commands for nftables to translate what comes for a VIP.
func byHand(machine, vip, instance string, masquerade bool) []string {
	lines := []string{
		machine + " nft add table ip bench",
		machine + " nft add chain ip bench to { type nat hook prerouting priority dstnat ; }",
		fmt.Sprintf("%s nft add rule ip bench to ip daddr %s tcp dport %d dnat to %s:%d", machine, vip, kernelPort, instance, kernelPort),
	}
	if masquerade {
		lines = append(
			lines, machine+" nft add chain ip bench from { type nat hook postrouting priority srcnat ; }",
			fmt.Sprintf("%s nft add rule ip bench from ip daddr %s tcp dport %d masquerade", machine, instance, kernelPort),
		)
	}
	return lines
}

// routeBack is the command that has an instance's way to the client lead through a
// balancer.
func routeBack(machine string, by int) string {
	return fmt.Sprintf("%s ip route add %s via %s", machine, address(hostClient), address(by))
}

// route has this machine's way to an instance lead through a balancer.
func route(ctx context.Context, to, by int) error {
	out, err := exec.CommandContext(ctx, "ip", "route", "add", address(to), "via", address(by)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("routing %s: %w\n%s", address(to), err, out)
	}
	return nil
}

// haproxy starts HAProxy, as `l4` does.
func (l *kernelLab) haproxy(w *kernelWay) error {
	path, err := program.Find("haproxy")
	if err != nil {
		return fmt.Errorf("%w (apt-get install haproxy)", err)
	}
	file := filepath.Join(l.dir, "haproxy.cfg")
	text := fmt.Sprintf(haproxyTCPText, l.dir, w.addr, fmt.Sprintf("%s:%d", address(hostNear), kernelPort), fmt.Sprint(kernelPort))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	w.proc, err = l.start(serverCore, w.machine, path, "-db", "-f", file)
	return err
}

// balance starts Muster with a listener, and registers the instance.
func (l *kernelLab) balance(ctx context.Context, w *kernelWay, listener, instance string) (err error) {
	file := filepath.Join(l.dir, w.name+".yaml")
	text := fmt.Sprintf(`log: {level: warn}
dns: {listen: ["127.0.0.1:5300"], workers: 1}
zones: [{name: svc.internal., source: muster}]
registry: {mode: embedded, embedded: {dir: %q}, snapshot: "off"}
proxy: {listeners: [{%s}]}
`, filepath.Join(l.dir, "etcd-"+w.name), listener)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if w.proc, err = l.start(serverCore, w.machine, l.o.muster, "serve", "--config", file); err != nil {
		return err
	}
	if err := ready(ctx, w.proc, func() error {
		_, err := netlab.In(ctx, w.machine, l.o.muster+" healthcheck")
		return err
	}); err != nil {
		return err
	}
	if _, err := netlab.In(ctx, w.machine, fmt.Sprintf("%s register web --id a --address %s --port %d --forever", l.o.muster, instance, kernelPort)); err != nil {
		return err
	}
	if w.name != "dsr" {
		return nil
	}
	status, err := netlab.In(ctx, w.machine, l.o.muster+" proxy status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(status) {
		if _, mode, ok := strings.Cut(line, "attached to "); ok {
			w.note = "attached to " + strings.TrimSpace(mode)
		}
	}
	if w.note == "" {
		return fmt.Errorf("muster proxy status does not say how the program is attached:\n%s", status)
	}
	return nil
}
