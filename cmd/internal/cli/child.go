package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// child is a started command.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // of Wait; valid once ended
}

// The codes of shells for commands that cannot be run (POSIX, 2.8.2).
const (
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignal    = 128 // plus the signal's number
)

// start starts the command with this process's streams, and calls end when it
// has ended.
func (s *session) start(command []string, end context.CancelFunc) (*child, error) {
	c := &child{cmd: exec.Command(command[0], command[1:]...), ended: make(chan struct{})} //nolint:noctx // it is stopped in order, not killed
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = s.stdin, s.stdout, s.stderr
	if err := c.cmd.Start(); err != nil {
		code := exitCannotRun
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = exitNotFound
		}
		return nil, &codeError{code: code, err: fmt.Errorf("starting the command: %w", err)}
	}
	go c.wait(end)
	return c, nil
}

// wait waits for the command's end; stop waits for it in turn.
func (c *child) wait(end context.CancelFunc) {
	defer end()
	defer close(c.ended)
	c.err = c.cmd.Wait()
}

// hasEnded reports whether the command has ended, and status how; "exit status
// 3", "signal: killed".
func (c *child) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *child) status() string {
	if c.err != nil {
		return c.err.Error()
	}
	return c.cmd.ProcessState.String()
}

// stop ends the command, if it has not ended, and returns its exit code as a
// codeError. A signal while it drains makes an end of that.
func (c *child) stop(drain, kill time.Duration) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case <-c.ended:
	case <-again:
	case <-time.After(drain):
	}
	// A process that has ended already cannot be signalled: nothing is lost.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(kill):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	if c.err == nil {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](c.err)
	if !ok {
		return fmt.Errorf("waiting for the command: %w", c.err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &codeError{code: exitSignal + int(status.Signal())}
	}
	return &codeError{code: exit.ExitCode()}
}
