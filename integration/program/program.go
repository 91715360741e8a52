// Package program starts programs for black-box tests and benchmarks: the built
// muster binary, as a user would run it, and the servers and clients that it is
// tested with. Whatever is started is also ended.
package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a program gets to end by itself after SIGTERM.
const stopTimeout = 10 * time.Second

// pollInterval is how often Poll asks: often enough for starting within a
// second to be seen, seldom enough to leave the cores to the program.
const pollInterval = 20 * time.Millisecond

// outputMax is how much of a program's output is kept, octets: the beginning,
// where the reason for a failure to start stands.
const outputMax = 1 << 20

// Muster returns the path of the binary to test: what MUSTER_BIN names, as
// `make test` sets it, or else one that is built into dir.
func Muster(ctx context.Context, dir string) (string, error) {
	if path := os.Getenv("MUSTER_BIN"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "muster")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/musterdns/muster/cmd/muster")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building muster: %w\n%s", err, out)
	}
	return path, nil
}

// buildTimeout is how long building may take, with nothing in Go's cache.
const buildTimeout = 2 * time.Minute

// Built is Muster for all tests of a package, and for those processes that they start of
// the package's own program. remove removes what was built.
func Built() (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "muster-built-")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	if path, err = Muster(ctx, dir); err == nil {
		err = os.Setenv("MUSTER_BIN", path)
	}
	return path, func() { os.RemoveAll(dir) }, err
}

// Find finds an installed program in PATH or where Debian puts servers, which
// is not in every user's PATH.
func Find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

// Process is a started program. It is safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when the program has ended
}

// Start starts argv. Name is what errors call it. The caller must Stop it.
func Start(name string, argv ...string) (*Process, error) {
	p := &Process{name: name, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...) //nolint:noctx // Stop ends it, with a signal that lets it clean up
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// A child that holds the outputs open does not keep it from having ended.
	p.cmd.WaitDelay = pollInterval
	// Its own group, so that an interrupt of ours leaves it to Stop; and
	// nothing outlives a test that was killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	_ = p.cmd.Wait() // Ended tells how it ended
	close(p.done)
}

// Name is what Start was given.
func (p *Process) Name() string { return p.name }

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is what the program has written to both its outputs until now.
func (p *Process) Output() string { return p.out.String() }

// Ended returns nil while the program runs, and then an error with how it ended
// and what it wrote.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s\n%s", p.name, p.cmd.ProcessState, p.Output())
	default:
		return nil
	}
}

// ExitCode is the program's exit code; -1 while it runs or if a signal ended
// it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Signal sends a signal to the program, not to its children.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop ends the program with SIGTERM, or SIGKILL when it does not end in time,
// then whatever is left of its children, and waits for it.
func (p *Process) Stop() {
	if err := p.Signal(syscall.SIGTERM); err == nil {
		timer := time.NewTimer(stopTimeout)
		select {
		case <-p.done:
		case <-timer.C:
		}
		timer.Stop()
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // fails when nothing is left
	<-p.done
}

// Poll calls ready until it succeeds. It fails when the program ends before, or
// the context.
func (p *Process) Poll(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return p.Ended()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; %w\n%s", p.name, ctx.Err(), err, p.Output())
		}
	}
}

// output keeps the beginning of what a program writes.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write keeps what there is room for (io.Writer).
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b[:min(len(b), outputMax-o.text.Len())])
	return len(b), nil
}

// String is what was kept.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
