package kernel_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
	"github.com/musterdns/muster/integration/program"
)

// built is the muster that is tested. Set before any test runs.
var built string

func TestMain(m *testing.M) {
	if len(os.Args) >= 3 {
		if other, err := other(os.Args[1], os.Args[2:]); other {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
	var remove func()
	var err error
	if built, remove, err = program.Built(); err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		remove()
		os.Exit(code)
	}))
}

// other makes this program another than the test, if it was started as that, and
// returns when it has failed.
func other(verb string, args []string) (other bool, err error) {
	switch verb {
	case instanceVerb:
		return true, serveInstance(args[0], args[1])
	case probeVerb:
		return true, runProbe(args[0], args[1:])
	case probeARPVerb:
		return true, runARPProbe(args[0])
	}
	return false, nil
}

// instanceVerb is the first argument that makes this program an instance.
const instanceVerb = "serve-as-an-instance"

// viaPath is what an instance answers with the machine that it is asked from: a
// client, or one that forwards and hides the client.
const viaPath = "/via"

// serveInstance answers requests to any address of its machine with its own.
func serveInstance(addr, port string) error {
	s := http.Server{Addr: ":" + port, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != viaPath {
			fmt.Fprint(w, addr)
			return
		}
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, from.Addr().Unmap())
	})}
	return s.ListenAndServe()
}

// outside runs the test again in a network and a mount namespace of its own, where
// it is the client, and returns true when that has ended; false: this is there. It
// needs root, without which the test is skipped, but fails in CI.
func outside(t *testing.T) bool {
	t.Helper()
	if netlab.Inside() {
		return false
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("not root: modes nat and dsr must run in CI")
		}
		t.Skip("not run: not root: CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_ADMIN are missing")
	}
	out, err := netlab.Again(t.Context(), t.Name(), 2*time.Minute)
	if err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	t.Logf("in the namespace:\n%s", out)
	return true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The machines' addresses on the link, and the address that clients know.
const (
	network = netlab.Network
	client  = network + "2"
	vip     = network + "100"
)

// newLab is a lab whose link has the client, which is this process.
func newLab(t *testing.T) *fault.Lab {
	t.Helper()
	must(t, netlab.New(t.Context(), 2))
	l, err := fault.NewLab(built)
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// machine adds a machine to the link.
func machine(t *testing.T, name string, host int) {
	t.Helper()
	must(t, netlab.Add(t.Context(), name, host))
}

// in runs a command that must succeed on a machine, and returns what it prints.
func in(t *testing.T, machine, line string) string {
	t.Helper()
	out, err := netlab.In(t.Context(), machine, line)
	must(t, err)
	return out
}

// instance starts a machine with an instance of service web.
func instance(t *testing.T, l *fault.Lab, host, port int) {
	t.Helper()
	name := fmt.Sprintf("web-%d", host)
	machine(t, name, host)
	self, err := os.Executable()
	must(t, err)
	addr := fmt.Sprint(network, host)
	_, err = l.Start(name, netlab.On(name, self, instanceVerb, addr, fmt.Sprint(port))...)
	must(t, err)
	answers(t, fmt.Sprint(addr, ":", port), addr)
}

// serve starts muster on a machine, with the configuration, and waits until it is
// ready.
func serve(t *testing.T, l *fault.Lab, machine, config string) *program.Process {
	t.Helper()
	file := l.Path(machine + ".yaml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	// The log is a file's, as a process that takes over writes to it too.
	shell := []string{"sh", "-c", `exec "$@" 2>>"$0"`, l.Path(machine + ".log")}
	p, err := l.Start("muster on "+machine, append(shell, netlab.On(machine, l.Binary, "serve", "--config", file)...)...)
	must(t, err)
	t.Cleanup(func() {
		if log, err := os.ReadFile(l.Path(machine + ".log")); t.Failed() && err == nil {
			t.Logf("the log of %s:\n%s", machine, log[max(0, len(log)-logMax):])
		}
	})
	must(t, p.Poll(t.Context(), func() error {
		_, err := muster(t, l, machine, "healthcheck")
		return err
	}))
	return p
}

// logMax is how much of a log is shown when a test fails.
const logMax = 8 << 10

// muster runs a verb on a machine.
func muster(t *testing.T, l *fault.Lab, machine string, args ...string) (string, error) {
	t.Helper()
	argv := append(netlab.On(machine, l.Binary), args...)
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("muster %q: %w\n%s", args, err, out)
	}
	return string(out), err
}

// shows waits until a verb's output has all the words in one line.
func shows(t *testing.T, l *fault.Lab, machine string, args []string, words ...string) string {
	t.Helper()
	var found string
	eventually(t, func() error {
		out, err := muster(t, l, machine, args...)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			fields := " " + strings.Join(strings.Fields(line), " ") + " "
			has := true
			for _, w := range words {
				has = has && strings.Contains(fields, w)
			}
			if has {
				found = line
				return nil
			}
		}
		return fmt.Errorf("muster %q has no line with %q:\n%s", args, words, out)
	})
	return found
}

// patience bounds what must happen, on a busy machine.
const patience = 30 * time.Second

func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := fault.Until(ctx, 20*time.Millisecond, f); err != nil {
		t.Fatal(err)
	}
}

// answers waits until a new connection to addr is answered by from.
func answers(t *testing.T, addr, from string) {
	t.Helper()
	eventually(t, func() error {
		got, err := ask(addr)
		if err == nil && got != from {
			err = fmt.Errorf("%s is answered by %q, want %s", addr, got, from)
		}
		return err
	})
}

// metrics are those of the server on a machine.
func metrics(t *testing.T, machine string) string {
	t.Helper()
	return in(t, machine, "curl -sSf http://127.0.0.1:8653/metrics")
}
