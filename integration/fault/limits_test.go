package fault_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/integration/fault"
)

// inMount makes a command that runs another in a mount namespace of its own,
// where a directory is a file system of so many octets with a file in it.
// Whoever is not root gets a user namespace too, as Debian allows it.
func inMount(dir, size, file string) []string {
	argv := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		argv = append(argv, "--user", "--map-root-user")
	}
	script := `mount -t tmpfs -o size=` + size + ` none "$0" && cp "$1" "$0/snapshot" && shift && exec "$@"`
	return append(argv, "sh", "-c", script, dir, file)
}

func TestSnapshot_OnAFullDiskStaysAsItWas(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, os.Mkdir(l.Path("state"), 0o700))
	e := etcd(t, l)
	put(t, e, fault.Instance("old", "one"), "10.1.1.1:80")
	run(t, l, fault.Settings{Etcd: e.URL, Snapshot: l.Path("state/snapshot")}).Stop()
	old, err := os.ReadFile(l.Path("state/snapshot"))
	must(t, err)
	write(t, l, "old", string(old))

	// Far more than fits.
	must(t, e.Load(t.Context(), fault.Instances(manyServices, each)))
	s, err := l.Serve(inMount(l.Path("state"), "64k", l.Path("old"))...)
	must(t, err)
	must(t, s.Ready(t.Context()))
	stop := s.Load(t.Context(), manyServices, 8, 200)
	logged(t, s, "ERROR", "writing the snapshot failed", "no space left")
	inside := fmt.Sprintf("/proc/%d/root%s", s.PID(), l.Path("state"))
	if now, err := os.ReadFile(filepath.Join(inside, "snapshot")); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the old snapshot has %d octets now (%v), want its %d as they were", len(now), err, len(old))
	}
	if left, err := filepath.Glob(inside + "/*"); err != nil || len(left) != 1 {
		t.Errorf("beside the snapshot the directory has %q, %v", left, err)
	}
	if n, err := s.Metric(t.Context(), "muster_snapshot_failures_total"); err != nil || n < 1 {
		t.Errorf("%v failures are counted, %v", n, err)
	}
	// The load judges answers by all addresses; these have 8 of 10.
	if tally, err := stop(); err != nil || tally.Lost > 0 || tally.Answered == 0 {
		t.Errorf("%d of %d queries were lost, %v", tally.Lost, tally.Sent, err)
	}
	// Room again: a smaller state fits.
	_, err = e.Client.Delete(t.Context(), fault.Keys, clientv3.WithPrefix())
	must(t, err)
	put(t, e, fault.Instance("small", "one"), "10.1.1.2:80")
	await(t, dial(t, s), "small."+fault.Zone, dns.TypeA, fault.Has("10.1.1.2"))
	logged(t, s, "the snapshot is written again")
}

// TestSnapshot_InADirectoryThatBecomesReadOnly: the server answers on, the file stays as it
// was, and is written again when it can be.
func TestSnapshot_InADirectoryThatBecomesReadOnly(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, os.Mkdir(l.Path("state"), 0o700))
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(5, 2)))
	run(t, l, fault.Settings{Etcd: e.URL, Snapshot: l.Path("state/snapshot")}).Stop()
	old, err := os.ReadFile(l.Path("state/snapshot"))
	must(t, err)
	write(t, l, "old", string(old))
	s, err := l.Serve(inMount(l.Path("state"), "8m", l.Path("old"))...)
	must(t, err)
	must(t, s.Ready(t.Context()))
	remount := func(how string) {
		t.Helper()
		argv := []string{"--target", fmt.Sprint(s.PID()), "--mount"}
		if os.Geteuid() != 0 {
			argv = append(argv, "--user", "--preserve-credentials")
		}
		argv = append(argv, "mount", "-o", "remount,"+how, l.Path("state"))
		if out, err := exec.CommandContext(t.Context(), "nsenter", argv...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	remount("ro")
	inside := fmt.Sprintf("/proc/%d/root%s", s.PID(), l.Path("state/snapshot"))
	before, err := os.ReadFile(inside)
	must(t, err)
	stop := s.Load(t.Context(), 5, 2, 200)
	put(t, e, fault.Instance("new", "one"), "10.1.1.2:80") // which is to be written
	logged(t, s, "ERROR", "writing the snapshot failed", "read-only")
	if now, err := os.ReadFile(inside); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the snapshot has %d octets now (%v), want its %d as they were", len(now), err, len(before))
	}
	tally, err := stop()
	if err = errors.Join(err, tally.Bad()); err != nil {
		t.Error(err)
	}
	remount("rw")
	put(t, e, fault.Instance("new", "two"), "10.1.1.3:80")
	logged(t, s, "the snapshot is written again")
}

func TestDescriptors_ThatRunOutLeaveUDPAndTheRegistryAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(10, 2)))
	const host = 100
	_, err := l.StartBackend(t.Context(), host)
	must(t, err)
	put(t, e, fault.Keys+"services/checked", `{"checks":[{"type":"http","interval":"500ms","timeout":"400ms"}]}`)
	put(t, e, fault.Instance("checked", "one"), l.Addr(host).String()+":8080")
	must(t, l.Configure(fault.Settings{Etcd: e.URL}))
	s, err := l.Serve("prlimit", "--nofile=64:64")
	must(t, err)
	must(t, s.Ready(t.Context()))
	c := dial(t, s)
	await(t, c, "checked."+fault.Zone, dns.TypeA, fault.Has(l.Addr(host).String()))
	stop := s.Load(t.Context(), 10, 2, 200)

	// More connections than there are descriptors; the kernel takes what the
	// server does not.
	for range 200 {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", s.DNS)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	const window = 3 * time.Second
	before, err := s.CPU()
	must(t, err)
	<-time.After(window)
	after, err := s.CPU()
	must(t, err)
	if share := float64(after-before) / float64(window); share > 0.2 {
		t.Errorf("the server uses %.0f %% of a core, want at most 20", 100*share)
	}
	put(t, e, fault.Instance("late", "one"), "10.7.7.7:80")
	await(t, c, "late."+fault.Zone, dns.TypeA, fault.Has("10.7.7.7"))
	tally, err := stop()
	if err = errors.Join(err, tally.Bad()); err != nil {
		t.Error(err)
	}
	out, err := l.CLI(t.Context(), "instances", "checked", "-o", "json")
	if err != nil || !bytes.Contains([]byte(out), []byte(`"passing"`)) {
		t.Errorf("the checked instance does not pass while descriptors are short: %v\n%s\n%s", err, out, s.LogTail())
	}
}
