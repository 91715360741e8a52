package program_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell starts a shell script.
func shell(t *testing.T, script string) *program.Process {
	t.Helper()
	p, err := program.Start("script", "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// says is ready once the program has written want.
func says(p *program.Process, want string) func() error {
	return func() error {
		if !strings.Contains(p.Output(), want) {
			return errors.New("it has not said " + want)
		}
		return nil
	}
}

func TestProcess_Stop_LetsTheProgramCleanUpAndKillsItsChildren(t *testing.T) {
	// The child alone holds the pipe open for writing.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := shell(t, `trap 'echo cleaned; exit 3' TERM; sleep 1000 >`+pipe+` & echo ready; wait`)
	child, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	if err := p.Poll(t.Context(), says(p, "ready")); err != nil {
		t.Fatal(err)
	}
	if p.Ended() != nil || p.ExitCode() != -1 {
		t.Errorf("it runs, but Ended is %v and the exit code %d", p.Ended(), p.ExitCode())
	}
	p.Stop()
	if p.ExitCode() != 3 || !strings.Contains(p.Output(), "cleaned") {
		t.Errorf("exit code %d, output %q; want 3 and that it cleaned", p.ExitCode(), p.Output())
	}
	// Ends when the child does; it would sleep for longer than the test may.
	if n, err := io.Copy(io.Discard, child); n != 0 || err != nil {
		t.Errorf("the child wrote %d octets: %v", n, err)
	}
}

func TestProcess_Poll_TellsHowTheProgramEnded(t *testing.T) {
	p := shell(t, `echo no such zone >&2; exit 2`)
	err := p.Poll(t.Context(), func() error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "no such zone") || !strings.Contains(err.Error(), "exit status 2") {
		t.Errorf("error %v, want one with the exit status and the output", err)
	}
}

func TestProcess_Poll_EndsWithTheContext(t *testing.T) {
	p := shell(t, `sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	reason := errors.New("not yet")
	err := p.Poll(ctx, func() error {
		cancel()
		return reason
	})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, reason) {
		t.Errorf("error %v, want one with the context's end and the last reason", err)
	}
}

func TestStart_NamesAProgramThatDoesNotExist(t *testing.T) {
	_, err := program.Start("the thing", "./no-such-program")
	if err == nil || !strings.Contains(err.Error(), "starting the thing") {
		t.Errorf("error %v, want one that names it", err)
	}
}
