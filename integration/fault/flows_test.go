package fault_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// cli runs a muster command that must succeed.
func cli(t *testing.T, l *fault.Lab, args ...string) string {
	t.Helper()
	out, err := l.CLI(t.Context(), args...)
	must(t, err)
	return out
}

// shares asks many times and counts the addresses of the answers.
func shares(t *testing.T, c *fault.Client, name string, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		m, err := c.Ask(name, dns.TypeA)
		must(t, err)
		for _, a := range fault.Addresses(m) {
			count[a]++
		}
	}
	return count
}

func TestCommands_ChangeTheAnswers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := run(t, l, fault.Settings{}) // with the embedded etcd
	c := dial(t, s)
	const web = "web." + fault.Zone
	for i := range 3 {
		cli(t, l, "register", "web", "--id", fmt.Sprintf("web-%d", i+1), "--address", fmt.Sprintf("10.0.0.%d", i+1), "--port", "80", "--forever")
	}
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.1", "10.0.0.2", "10.0.0.3"))

	if out := cli(t, l, "drain", "web/web-1", "--reason", "kernel update"); !strings.Contains(out, "2 instances served") {
		t.Errorf("muster drain says %q, want how many are left", out)
	}
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.2", "10.0.0.3"))
	await(t, c, "web-1."+web, dns.TypeA, fault.Has("10.0.0.1")) // by its own name it can still be found
	cli(t, l, "maintenance", "web-2."+web)
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.3"))
	if out := cli(t, l, "explain", "web"); !strings.Contains(out, "kernel update") || !strings.Contains(out, "maintenance") {
		t.Errorf("muster explain says nothing of the reasons:\n%s", out)
	}
	cli(t, l, "drain", "web/web-1", "--undo")
	cli(t, l, "maintenance", "web/web-2", "--undo")
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.1", "10.0.0.2", "10.0.0.3"))
	cli(t, l, "drain", "web", "--all", "--for", "1s")
	await(t, c, web, dns.TypeA, func(m *dns.Msg) error {
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 { // the name exists: NODATA
			return fmt.Errorf("%s with %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
		}
		return nil
	})
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.1", "10.0.0.2", "10.0.0.3")) // withdrawn by itself

	cli(t, l, "weight", "web/web-1", "8")
	await(t, c, web, dns.TypeA, func(m *dns.Msg) error { // unequal weights: one of them
		if len(m.Answer) != 1 {
			return fmt.Errorf("%d records", len(m.Answer))
		}
		return nil
	})
	// 8 in 10: more than nine standard deviations from these limits.
	if got := shares(t, c, web, 2000)["10.0.0.1"]; got < 1400 || got > 1800 {
		t.Errorf("an instance with 8 of 10 of the weight is in %d of 2000 answers, want about 1600", got)
	}
	cli(t, l, "service", "set", "web", "--policy", "all", "--ttl", "7s")
	m := await(t, c, web, dns.TypeA, fault.Has("10.0.0.1", "10.0.0.2", "10.0.0.3"))
	if ttl := m.Answer[0].Header().Ttl; ttl != 7 {
		t.Errorf("the TTL is %d, want the 7 that was set", ttl)
	}
	cli(t, l, "deregister", "web/web-3")
	await(t, c, "web-3."+web, dns.TypeA, fault.RCode(dns.RcodeNameError))
	await(t, c, web, dns.TypeA, fault.Has("10.0.0.1", "10.0.0.2"))
	if _, err := l.CLI(t.Context(), "drain", "web/web-9"); err == nil || !strings.Contains(err.Error(), "web-9") {
		t.Errorf("draining what is not there: %v, want an error that names it", err)
	}
}

// Whoever runs its server under muster register has it in the answers from its
// first good check to the beginning of its end, and its exit code passed on.
func TestRegister_HoldsACommandForItsWholeLife(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := run(t, l, fault.Settings{})
	c := dial(t, s)
	const name = "one.held." + fault.Zone
	self, err := os.Executable()
	must(t, err)
	addr := l.Addr(100).String()
	// The server comes up only when it is let: after the file is there.
	gate, ended := l.Path("gate"), l.Path("ended")
	script := `trap 'kill $pid; : >"$3"; exit 7' TERM
		while ! [ -e "$1" ]; do sleep 0.02; done
		"$0" ` + strings.Join(fault.BackendArgs(addr+":8080"), " ") + ` & pid=$!; echo $pid >"$2"; wait $pid; wait $pid`
	p, err := l.Start("register", "env", "MUSTER_ADDR="+s.Admin, binary, "register", "held", "--id", "one", "--address", addr, "--port", "8080",
		"--check", "http:/", "--lease", "5s", "--drain", "5s", "--", "bash", "-c", script, self, gate, l.Path("pid"), ended)
	must(t, err)
	waitOutput(t, p, "waiting for the http check")
	await(t, c, name, dns.TypeA, fault.RCode(dns.RcodeNameError))
	must(t, os.WriteFile(gate, nil, 0o600))
	await(t, c, name, dns.TypeA, fault.Has(addr))
	await(t, c, "held."+fault.Zone, dns.TypeA, fault.Has(addr))

	must(t, p.Signal(syscall.SIGTERM))
	await(t, c, "held."+fault.Zone, dns.TypeA, fault.Has())
	// Its own name is where clients with an older SRV record go on to.
	await(t, c, name, dns.TypeA, fault.Has(addr))
	if _, err := os.Stat(ended); err == nil {
		t.Error("the command was told to end before it was out of the answers")
	}
	<-p.Done()
	if _, err := os.Stat(ended); err != nil || p.ExitCode() != 7 {
		t.Errorf("exit code %d, want the command's 7 after its clean-up: %v\n%s", p.ExitCode(), err, p.Output())
	}
	await(t, c, name, dns.TypeA, fault.RCode(dns.RcodeNameError))
}

// waitOutput waits until a program has written something.
func waitOutput(t *testing.T, p *program.Process, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, p.Poll(ctx, func() error {
		if !strings.Contains(p.Output(), want) {
			return fmt.Errorf("it has not said %q", want)
		}
		return nil
	}))
}

// A machine that dies takes its registration with it once the lease is over,
// and a command that ends by itself at once.
func TestRegister_GivesUpWhatNobodyHolds(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := run(t, l, fault.Settings{})
	c := dial(t, s)
	const name = "held." + fault.Zone
	p, err := l.Start("register", "env", "MUSTER_ADDR="+s.Admin, binary, "register", "held", "--id", "one", "--address", "10.0.0.1", "--port", "80", "--lease", "2s")
	must(t, err)
	await(t, c, name, dns.TypeA, fault.Has("10.0.0.1"))
	must(t, fault.Kill(p))
	await(t, c, name, dns.TypeA, fault.RCode(dns.RcodeNameError))

	cmd := exec.CommandContext(t.Context(), binary, "register", "held", "--id", "two", "--address", "10.0.0.2", "--port", "80", "--", "sh", "-c", "exit 3")
	cmd.Env = append(slices.Clone(os.Environ()), "MUSTER_ADDR="+s.Admin)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exit code %d (%v), want the command's 3\n%s", cmd.ProcessState.ExitCode(), err, out)
	}
	await(t, c, name, dns.TypeA, fault.RCode(dns.RcodeNameError))
}
