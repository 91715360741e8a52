package script_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/musterdns/muster/integration/program"
)

// patience is how long a script's `until` waits, and again how often it looks.
const (
	patience = 15 * time.Second
	again    = 50 * time.Millisecond
)

// TestMuster_Scripts runs the scripts of testdata/script: the built binary, as
// server and as command, as a user has them. The environment puts the server at
// the usual ports of the address $HOST: a script just runs `muster serve` or
// `muster dev`, and etcdctl finds its etcd at $ETCD.
func TestMuster_Scripts(t *testing.T) {
	binary, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "muster")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"until": until},
		Setup: func(env *testscript.Env) error {
			// An address of its own: scripts run at the same time, and with other tests.
			network, err := program.ClaimNetwork()
			if err != nil {
				return err
			}
			env.Defer(network.Release)
			host := network.Addr(1).String()
			env.Vars = append(env.Vars,
				"PATH="+bin+":"+os.Getenv("PATH"), "HOME="+env.WorkDir, "XDG_CACHE_HOME="+filepath.Join(env.WorkDir, "cache"),
				"HOST="+host, "MUSTER_DNS_LISTEN="+host+":5300", "MUSTER_NODE=ns9",
				"MUSTER_ADDR=http://"+host+":8653", "MUSTER_ADMIN_LISTEN="+host+":8653",
				"ETCD=http://"+host+":2379", "MUSTER_REGISTRY_EMBEDDED_LISTEN="+host+":2379",
			)
			return nil
		},
	})
}

// until runs a command until it succeeds and its standard output matches: until
// PATTERN COMMAND ARG... . The lines of the pattern begin and end with ^ and $.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND ARG...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		cmd := exec.CommandContext(ctx, "env", args[1:]...)
		cmd.Dir = ts.Getenv("WORK")
		for _, v := range []string{"PATH", "HOME", "MUSTER_ADDR", "HOST", "ETCD"} {
			cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
		}
		out, err := cmd.CombinedOutput()
		if err == nil && pattern.Match(out) {
			ts.Logf("%s", out)
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%v never prints %q, but at last (%v):\n%s", args[1:], args[0], err, out)
		case <-tick.C:
		}
	}
}
