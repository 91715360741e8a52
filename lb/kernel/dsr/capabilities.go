package dsr

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

// Capabilities tries out what the plane needs, without attaching anything, and
// returns what is lacking; nothing if all is there. pinDir is as in Config. That
// instances have the VIP, and do not answer ARP for it, cannot be seen from here:
// checks of the VIP on each instance show it.
func Capabilities(pinDir string) []kernel.Need {
	if pinDir == "" {
		pinDir = DefaultPinDir
	}
	var needs []kernel.Need
	if err := onBPF(pinDir); err != nil {
		needs = append(needs, kernel.Need{
			What: fmt.Sprintf("dsr: what is pinned survives a restart, but %s cannot be pinned in: %v", pinDir, err),
			Mend: "mount -t bpf bpf /sys/fs/bpf",
		})
	}
	if err := tryProgram(); err != nil {
		needs = append(needs, kernel.Need{
			What: fmt.Sprintf("dsr: the kernel does not take the program: %v", err),
			Mend: "run with CAP_BPF and CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW), on Linux 5.15 or newer with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT; mode tcx needs Linux 6.6",
		})
	}
	if err := kernel.TryWake(); err != nil {
		needs = append(needs, kernel.Need{
			What: fmt.Sprintf("dsr: silent clients of a dead instance cannot be reset: %v", err),
			Mend: "run with CAP_NET_RAW",
		})
	}
	return needs
}

// Needs returns what the plane lacks as it is attached.
func (p *Plane) Needs() []kernel.Need {
	if !p.veth || p.mode != XDPNative {
		return nil
	}
	return []kernel.Need{{
		What: fmt.Sprintf("dsr: %s is one end of a veth pair, where native XDP sends nothing unless the other end receives as XDP does: clients may wait in vain", p.config.Interface),
		Mend: "attach: auto",
	}}
}

// onBPF reports whether the directory, or the nearest that there is above it, is
// in a BPF file system.
func onBPF(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if os.IsNotExist(err) && dir != filepath.Dir(dir) {
			continue
		}
		if err != nil {
			return err
		}
		if s.Type != unix.BPF_FS_MAGIC {
			return fmt.Errorf("%s is in no BPF file system", dir)
		}
		return nil
	}
}

// tryProgram has the kernel check the programs, with small maps, and forgets them.
func tryProgram() error {
	spec, err := loadObject()
	if err != nil {
		return err
	}
	spec.Maps["flows"].MaxEntries = 1024
	var m objects
	if err := spec.LoadAndAssign(&m, &ebpf.CollectionOptions{}); err != nil {
		return explainError(err)
	}
	m.close()
	return nil
}
