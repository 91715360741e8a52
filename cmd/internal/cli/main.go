package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

// App is what the command line starts: it is handed to Main, so that this
// package depends on no server.
type App struct {
	// Version is what `muster version` prints.
	Version string
	// Serve runs a server until ctx ends, then stops it in order. It returns an
	// error when the server cannot start or go on.
	Serve func(ctx context.Context, o ServeOptions) error
}

// ServeOptions says how a server runs.
type ServeOptions struct {
	Config *config.Config
	// Reload reads the configuration anew, with the same file, environment and
	// flags; the Config is nil when it cannot be used.
	Reload func() (*config.Config, config.Problems)
	// Dev is set for `muster dev`: sample instances, loopback targets allowed.
	Dev bool
	// Proxy is set for `muster proxy`: no DNS.
	Proxy   bool
	Version string
	// Stdout is for what a person at the terminal is told once; logs go to
	// Stderr.
	Stdout, Stderr io.Writer
}

// The exit codes.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3
)

// Main runs the command line of this process and returns its exit code.
// SIGINT and SIGTERM end the context that the verbs work under.
func Main(app App) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, app, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, app App, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &session{app: app, stdin: stdin, stdout: stdout, stderr: stderr}
	root := s.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if s.client != nil {
		s.client.CloseIdle()
	}
	return s.exit(cmd, err)
}

// session is one invocation: its streams and the flags that many verbs share.
type session struct {
	app            App
	stdin          io.Reader
	stdout, stderr io.Writer

	addr      string
	tokenFile string
	output    format
	started   bool // a verb has begun: what fails now is no wrong usage
	client    *api.Client
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes a usageError.
func usagef(text string, args ...any) error { return &usageError{fmt.Errorf(text, args...)} }

// codeError ends the process with a code of its own. Without an error nothing
// is printed.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// exit prints an error with what can be done about it, and returns the code.
func (s *session) exit(cmd *cobra.Command, err error) int {
	var (
		usage *usageError
		code  *codeError
		apiE  *api.Error
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code) && code.err == nil:
		return code.code
	}
	fmt.Fprintf(s.stderr, "muster: %s\n", explainError(err))
	switch {
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage) || !s.started:
		fmt.Fprintf(s.stderr, "See `%s --help`.\n", cmd.CommandPath())
		return exitUsage
	case errors.As(err, &apiE) && apiE.Status == http.StatusServiceUnavailable:
		return exitNotReady
	}
	return exitFailed
}

// explainError is an error's text with the mend for what is not a server's own
// answer.
func explainError(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	text := strings.TrimRight(err.Error(), "\n")
	if errors.Is(err, api.ErrUnreachable) {
		text += "\nStart a server with `muster dev` or `muster serve`, or say where it is with --addr or MUSTER_ADDR."
	}
	return text
}
