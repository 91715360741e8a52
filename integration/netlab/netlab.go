// Package netlab makes machines for black-box tests and benchmarks: network
// namespaces, all on one link. It is used within namespaces of its own, which a
// program enters by starting itself anew (Enter): nothing that is made there is
// seen from outside or outlives it. It needs root, but for Again.
package netlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Network is what every address on the link begins with; a host's number follows.
const Network = "10.1.0."

// insideVar tells this program that it was started by Enter.
const insideVar = "MUSTER_TEST_INSIDE"

// Inside reports whether this program runs in namespaces of its own.
func Inside() bool { return os.Getenv(insideVar) != "" }

// Enter is the command that runs a program in a network and a mount namespace of its
// own; whoever is not root is, in a user namespace. It ends when this program does.
func Enter(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"--net", "--mount", "--propagation", "private"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user")
	}
	cmd := exec.CommandContext(ctx, "unshare", append(args, argv...)...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Again runs one test of this program, by its name, in namespaces, and returns what it
// prints.
func Again(ctx context.Context, test string, limit time.Duration) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	run := "-test.run=^" + strings.ReplaceAll(test, "/", "$/^") + "$"
	out, err := Enter(ctx, self, run, "-test.v", "-test.timeout="+limit.String()).CombinedOutput()
	if err != nil && os.Geteuid() != 0 {
		err = fmt.Errorf("%w (run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone)", err)
	}
	return string(out), err
}

// New makes the link in the namespaces that this program was started in, and
// attaches it as a host.
func New(ctx context.Context, host int) error {
	return run(
		ctx,
		"mkdir -p /run/netns",
		"mount -t tmpfs none /run/netns",
		"mount -t bpf none /sys/fs/bpf",
		"ip link set lo up",
		"ip netns add switch",
		in("switch", "ip link add name bridge0 type bridge"),
		in("switch", "ip link set bridge0 up"),
		"ip link add eth0 type veth peer name client netns switch",
		in("switch", "ip link set client master bridge0 up"),
		fmt.Sprintf("ip address add %s%d/24 dev eth0", Network, host),
		"ip link set eth0 up",
	)
}

// Add attaches one more machine, which forwards.
func Add(ctx context.Context, name string, host int) error {
	return run(
		ctx,
		"ip netns add "+name,
		"ip link add eth0 netns "+name+" type veth peer name "+name+" netns switch",
		in("switch", "ip link set "+name+" master bridge0 up"),
		in(name, "ip link set lo up"),
		in(name, fmt.Sprintf("ip address add %s%d/24 dev eth0", Network, host)),
		in(name, "ip link set eth0 up"),
		in(name, "sysctl -qw net.ipv4.ip_forward=1"),
	)
}

// On is what is put before a command to have it run on a machine. Mounts are those
// of this process, which `ip netns exec` would cover.
func On(machine string, argv ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + machine}, argv...)
}

func in(machine, line string) string { return strings.Join(On(machine), " ") + " " + line }

// In runs a command, of words between spaces, on a machine, and returns what it
// prints. It is an error if it does not succeed.
func In(ctx context.Context, machine, line string) (string, error) {
	return output(ctx, in(machine, line))
}

// run runs commands one after the other.
func run(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if _, err := output(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

func output(ctx context.Context, line string) (string, error) {
	args := strings.Fields(line)
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return string(out), nil
}
