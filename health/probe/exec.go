package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/musterdns/muster/health"
)

// Exec says whether exec checks are run. Registrants write checks: what they
// may make this machine run is the operator's to say.
type Exec uint8

// The settings.
const (
	ExecOff        Exec = iota // none
	ExecConfigured             // the commands that Config.Commands lists, to the letter
	ExecAny                    // whatever a check names
)

const (
	// execMax is how many commands run at a time: each is a process, and checks
	// over the network are not to wait for them.
	execMax = 16
	// execOutputMax is how much of what a command prints is read, in octets.
	execOutputMax = 4 << 10
	// execGrace is how long a command that was killed, or has ended and left
	// its output open to others, is waited for.
	execGrace = 100 * time.Millisecond
)

// command returns the arguments of an exec check.
func command(t *health.Target) []string {
	return strings.Split(strings.TrimSuffix(t.Command, "\x00"), "\x00")
}

// exec runs the command and passes when it exits with 0. No shell reads it; its
// environment is PATH and the instance's MUSTER_ADDRESS and MUSTER_PORT. It has
// a process group of its own, which is killed at the timeout and when the
// command has ended.
func (s *Set) exec(ctx context.Context, t *health.Target) health.Result {
	argv := command(t)
	what := "exec " + argv[0]
	switch {
	case s.cfg.Exec == ExecOff:
		return failed(what, "exec checks are off (health.exec)")
	case s.cfg.Exec == ExecConfigured && !slices.Contains(s.cfg.Commands, t.Command):
		return failed(what, "not a command of the configuration file, as health.exec: configured demands")
	}
	select {
	case s.running <- struct{}{}:
		defer func() { <-s.running }()
	case <-ctx.Done():
		return broken(ctx, t, what, fmt.Sprintf("start beside %d other commands", execMax), ctx.Err())
	}
	out := &excerpt{}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // what the operator allows
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"MUSTER_ADDRESS=" + t.Addr.Addr().String(), fmt.Sprintf("MUSTER_PORT=%d", t.Addr.Port()),
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = execGrace
	if err := cmd.Start(); err != nil {
		return failed(what, "it cannot be started: "+err.Error())
	}
	err := cmd.Wait()
	_ = killGroup(cmd) // what it left behind; there is nothing, usually
	switch {
	case ctx.Err() != nil:
		return broken(ctx, t, what, "end", ctx.Err())
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it has exited with 0
		return passed(what, cmd.ProcessState.String()+out.tail())
	default:
		return failed(what, err.Error()+out.tail())
	}
}

// killGroup kills the command and all that it has started.
func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// excerpt is a writer that keeps the first execOutputMax octets.
type excerpt struct{ buf bytes.Buffer }

func (e *excerpt) Write(p []byte) (int, error) {
	e.buf.Write(p[:min(len(p), execOutputMax-e.buf.Len())])
	return len(p), nil
}

// tail is the first line that was printed, to stand behind something.
func (e *excerpt) tail() string {
	first, _, _ := strings.Cut(strings.TrimSpace(e.buf.String()), "\n")
	if first == "" {
		return ""
	}
	return ": " + first
}

func validateExec(t *health.Target) error {
	if argv := command(t); !strings.HasPrefix(argv[0], "/") {
		return fmt.Errorf("exec check: command %q: must begin with the absolute path of a program", argv[0])
	}
	return nil
}
