package probe_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/registry/registrytest"
)

// sh is a target whose check is a shell's script.
func sh(t *testing.T, script string) health.Target {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return health.Target{Type: health.TypeExec, Addr: registrytest.Nobody(t), Command: health.Command([]string{shell, "-c", script}), Timeout: patience}
}

func TestSet_Exec(t *testing.T) {
	s := newSet(t, probe.Config{Exec: probe.ExecAny})
	t.Setenv("SECRET", "of the server")
	for _, c := range []struct {
		name, script string
		ok           bool
		output       string
	}{
		{"0 passes", "exit 0", true, "exit status 0"},
		{"another code fails", "echo too full; echo more; exit 3", false, "exit status 3: too full"},
		{"a signal fails", "kill -9 $$", false, "signal: killed"},
		{"output is one line and printable", `printf '\033[2J\377 forged\nline'; exit 1`, false, `exit status 1: \x1b[2J\xff forged`},
		{"output is bounded", "head -c 10000000 /dev/zero | tr '\\0' x", true, "exit status 0: xxx"},
		{"the environment is the instance's address and no more", `echo "$MUSTER_ADDRESS ${MUSTER_PORT:+port} ${SECRET:-none} $PWD"`, true, "127.0.0.1 port none /"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.Probe(t.Context(), sh(t, c.script))
			wantResult(t, r, c.ok, false, c.output)
			wantLine(t, r.Output)
		})
	}
	t.Run("no shell reads it", func(t *testing.T) {
		echo, err := exec.LookPath("echo")
		if err != nil {
			t.Fatal(err)
		}
		x := sh(t, "")
		x.Command = health.Command([]string{echo, "$HOME;", "a b", ""})
		wantResult(t, s.Probe(t.Context(), x), true, false, "exit status 0: $HOME; a b")
	})
	t.Run("a program that is not there", func(t *testing.T) {
		x := sh(t, "")
		x.Command = health.Command([]string{"/nowhere/check"})
		wantResult(t, s.Probe(t.Context(), x), false, false, "no such file")
	})
	t.Run("a relative path is none", func(t *testing.T) {
		x := sh(t, "")
		x.Command = health.Command([]string{"sh"})
		wantResult(t, s.Probe(t.Context(), x), false, false, "absolute path")
	})
}

func TestSet_Exec_is_the_operators(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	x := sh(t, "touch "+ran)
	other := sh(t, "touch "+ran+" ")
	for _, c := range []struct {
		name string
		cfg  probe.Config
		ok   bool
	}{
		{"off by default", probe.Config{}, false},
		{"configured, and another one", probe.Config{Exec: probe.ExecConfigured, Commands: []string{other.Command}}, false},
		{"off, though configured", probe.Config{Commands: []string{x.Command}}, false},
		{"configured", probe.Config{Exec: probe.ExecConfigured, Commands: []string{other.Command, x.Command}}, true},
	} {
		r := newSet(t, c.cfg).Probe(t.Context(), x)
		_, err := os.Stat(ran)
		if r.OK != c.ok || (err == nil) != c.ok {
			t.Errorf("%s: OK %v (%s), ran: %v", c.name, r.OK, r.Output, err == nil)
		}
	}
}

func TestSet_Exec_timeout_kills_the_group(t *testing.T) {
	s := newSet(t, probe.Config{Exec: probe.ExecAny})
	for _, c := range []struct {
		name, script string
		timeout      time.Duration // in which a busy machine can start a shell
		ok           bool
	}{
		{"at the timeout", "sleep 1000 & echo $! >FILE; wait", 3 * time.Second, false},
		{"when the command has ended before what it started", "sleep 1000 & echo $! >FILE", patience, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			x := sh(t, strings.ReplaceAll(c.script, "FILE", file))
			x.Timeout = c.timeout
			start := time.Now()
			r := s.Probe(t.Context(), x)
			if took := time.Since(start); r.OK != c.ok || took > 3*patience {
				t.Errorf("OK %v after %v: %s", r.OK, took, r.Output)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(patience); alive(pid); {
				if time.Now().After(end) {
					t.Fatal("what the command started still runs")
				}
			}
		})
	}
}

// alive reports whether a process runs; one that is dead and not waited for
// does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestSet_Exec_concurrency_is_bounded(t *testing.T) {
	s := newSet(t, probe.Config{Exec: probe.ExecAny})
	dir := t.TempDir()
	x := sh(t, `mkdir `+dir+`/$$; ls `+dir+` | wc -l; sleep 0.1; rmdir `+dir+`/$$`)
	var all sync.WaitGroup
	outputs := make([]string, 40)
	for i := range outputs {
		all.Go(func() { outputs[i] = s.Probe(t.Context(), x).Output })
	}
	all.Wait()
	for _, o := range outputs {
		n, err := strconv.Atoi(strings.TrimSpace(o[strings.LastIndex(o, ":")+1:]))
		if err != nil || n > 16 {
			t.Errorf("%q: more at a time than 16", o)
		}
	}
}
