package dsr_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

// TestSweep: network namespaces that share a BPF file system, as containers do, do not
// touch each other's programs, though their interfaces have the same name.
func TestSweep(t *testing.T) {
	kerneltest.Require(t)
	pins := filepath.Join(bpffs(t), "muster")
	one, other := kerneltest.New(t, "one"), kerneltest.New(t, "other")
	link := kerneltest.NewSwitch(t, "link")
	for i, m := range []*kerneltest.Machine{one, other} {
		prefix := []string{"10.1.0.1/24", "10.1.0.2/24"}[i]
		link.Attach(m, "eth0.7", prefix)
		m.Must(func() error {
			p, err := dsr.New(dsr.Config{Interface: "eth0.7", PinDir: pins})
			if err != nil {
				return err
			}
			return p.Close()
		})
	}
	pinned := func() int {
		links, err := filepath.Glob(filepath.Join(pins, "*", "*", "link"))
		if err != nil {
			t.Fatal(err)
		}
		return len(links)
	}
	sweep := func(m *kerneltest.Machine, keep []string, want ...string) {
		t.Helper()
		m.Must(func() error {
			removed, err := dsr.Sweep(pins, keep)
			if !slices.Equal(removed, want) {
				t.Errorf("removed %q, want %q", removed, want)
			}
			return err
		})
	}
	if n := pinned(); n != 2 {
		t.Fatalf("%d programs are pinned, want each namespace's", n)
	}
	sweep(one, []string{"eth0.7"})
	sweep(one, nil, "eth0.7")
	if n := pinned(); n != 1 {
		t.Fatalf("%d programs are pinned, want the other namespace's", n)
	}
	other.Must(func() error { return netlink.LinkDel(other.Link("eth0.7")) })
	sweep(one, nil)
	if left, err := os.ReadDir(pins); err != nil || len(left) > 0 {
		t.Errorf("%v is left of an interface that is gone; %v", left, err)
	}
}
