package etcdcluster_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/netlab"
)

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
	command(t, "mkdir -p /run/netns")
	command(t, "mount -t tmpfs none /run/netns")
	command(t, "ip link set lo up")
	command(t, "sysctl -qw net.ipv4.ip_forward=1")
	for i := range at {
		name, net := fmt.Sprintf("m%d", i), fmt.Sprintf("10.9.%d.", i)
		at[i] = place{netip.MustParseAddr(net + "2"), netlab.On(name)}
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
	if !netlab.Inside() {
		t.Parallel()
		out, err := netlab.Again(t.Context(), t.Name(), 3*time.Minute)
		t.Logf("in the namespace:\n%s", out)
		must(t, err)
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
