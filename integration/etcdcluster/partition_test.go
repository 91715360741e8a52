package etcdcluster_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// insideVar tells a test that it runs in namespaces of its own.
const insideVar = "MUSTER_TEST_INSIDE"

// outside runs the test again in a network and a mount namespace of its own and
// returns true when that has ended; false: this is there.
func outside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVar) != "" {
		return false
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("not root: partitions must be tested in CI")
		}
		t.Skip("not run: not root: CAP_NET_ADMIN and CAP_SYS_ADMIN are missing")
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("in the namespace:\n%s", out)
	must(t, err)
	return true
}

// command runs a program that must succeed.
func command(t *testing.T, format string, args ...any) {
	t.Helper()
	argv := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// machines are a network namespace for each member, all reached through this one,
// which forwards between them.
func machines(t *testing.T) (at [members]place) {
	t.Helper()
	// What is mounted here stays here.
	must(t, syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(t, os.MkdirAll("/run/netns", 0o755))
	must(t, syscall.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""))
	command(t, "ip link set lo up")
	command(t, "sysctl -qw net.ipv4.ip_forward=1")
	for i := range at {
		name, net := fmt.Sprintf("m%d", i), fmt.Sprintf("10.9.%d.", i)
		at[i] = place{netip.MustParseAddr(net + "2"), []string{"nsenter", "--net=/run/netns/" + name}}
		command(t, "ip netns add %s", name)
		command(t, "ip link add %s type veth peer name eth0 netns %s", name, name)
		command(t, "ip address add %s1/24 dev %s", net, name)
		command(t, "ip link set %s up", name)
		for _, line := range []string{"link set lo up", "address add " + net + "2/24 dev eth0", "link set eth0 up", "route add default via " + net + "1"} {
			command(t, "ip -n %s %s", name, line)
		}
	}
	command(t, "nft add table inet cut")
	for _, hook := range []string{"input", "output", "forward"} {
		command(t, "nft add chain inet cut %s { type filter hook %s priority 0 ; }", hook, hook)
	}
	return at
}

// drop loses every packet of a member, both ways, on the given hooks: forward is to
// and from the other members, input and output are to and from everything else.
func drop(t *testing.T, addr netip.Addr, hooks ...string) {
	t.Helper()
	for _, hook := range hooks {
		command(t, "nft add rule inet cut %s ip saddr %s drop", hook, addr)
		command(t, "nft add rule inet cut %s ip daddr %s drop", hook, addr)
	}
}

// Each member in turn, so that the one that is watched is among them, is lost without
// a connection's being closed: to everybody, and to the other members only, when it
// goes on to serve what it has.
func TestCluster_MemberPartitioned(t *testing.T) {
	if outside(t) {
		return
	}
	at := machines(t)
	b := newBench(t, newClusterAt(t, newLab(t), at), here)
	lists := b.server.count("lists")
	for _, p := range []struct {
		from  string
		hooks []string
	}{
		{"the other members", []string{"forward"}},
		{"everybody", []string{"forward", "input", "output"}},
	} {
		for i := range members {
			leader := b.leader()
			t.Logf("member %d is cut off from %s; %d leads", i, p.from, leader)
			drop(t, at[i].addr, p.hooks...)
			cut := time.Now()
			stop := b.ch.run(t.Context(), 20*time.Millisecond)
			pause(t.Context(), 2*time.Second)
			stop()
			b.right(cut)
			command(t, "nft flush table inet cut")
			b.right(time.Now())
		}
	}
	if now := b.server.count("lists"); now != lists {
		t.Errorf("the complete state was read %v times more: the watch did not go on where it was", now-lists)
	}
	b.check()
}
