package fault

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// The hosts of a lab's network.
const (
	hostMuster = 1
	hostEtcd   = 2
	// hostBackends is the first of the hosts that instances listen on.
	hostBackends = 10
)

// Lab is a directory, a /24 of loopback addresses, and the programs that run in
// them. Having addresses of its own, a lab uses fixed ports, which stay the same
// when a program is started again, beside any other lab on the machine.
type Lab struct {
	Binary  string // muster
	Dir     string
	network *program.Network

	mu      sync.Mutex // guards started
	started []*program.Process
}

// NewLab makes a lab for the binary. The caller must Close it.
func NewLab(binary string) (*Lab, error) {
	network, err := program.ClaimNetwork()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "muster-fault-")
	if err != nil {
		network.Release()
		return nil, err
	}
	return &Lab{Binary: binary, Dir: dir, network: network}, nil
}

// Close ends what was started, the newest first, removes the directory and gives
// the addresses up.
func (l *Lab) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range slices.Backward(l.started) {
		p.Stop()
	}
	// What the tests made unwritable is theirs to mend before.
	os.RemoveAll(l.Dir)
	l.network.Release()
}

// Addr is an address of the lab's network, which begins no other name than a
// host's.
func (l *Lab) Addr(host byte) netip.Addr { return l.network.Addr(host) }

// at is an address with a port, as programs are told it.
func (l *Lab) at(host byte, port uint16) string {
	return netip.AddrPortFrom(l.Addr(host), port).String()
}

// Path is a file in the lab's directory.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// Start starts a program that Close will end.
func (l *Lab) Start(name string, argv ...string) (*program.Process, error) {
	p, err := program.Start(name, argv...)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = append(l.started, p)
	return p, nil
}

// CLI runs muster with the lab's server as the one to talk to, and returns
// what it wrote to both its outputs. An exit code that is not 0 is an error.
func (l *Lab) CLI(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.Binary, args...)
	cmd.Env = append(os.Environ(), "MUSTER_ADDR=http://"+l.at(hostMuster, portAdmin))
	cmd.Dir = l.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("muster %q: %w\n%s", args, err, out)
	}
	return string(out), nil
}

// Kill ends a program as a crash does, and returns when it has ended.
func Kill(p *program.Process) error {
	if err := p.Signal(os.Kill); err != nil {
		return err
	}
	<-p.Done()
	return nil
}

// Until calls ready, again each time that the interval has passed, until it
// succeeds. It fails with the context's end, and the last reason.
func Until(ctx context.Context, interval time.Duration, ready func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", ctx.Err(), err)
		}
	}
}
