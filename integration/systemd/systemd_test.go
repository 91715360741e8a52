package systemd_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The unit as it is shipped, and what it says that differs on this machine.
const (
	unitFile   = "muster.service"
	unitBinary = "/usr/local/bin/muster"
	unitConfig = "/etc/muster/muster.yaml"
)

// exposureMax is the worst that systemd-analyze security may say, in tenths. What
// is left is what a server of the network needs: sockets, and a port below 1024.
const exposureMax = 20

// patience is how long the server may take to do what it is told.
const patience = 20 * time.Second

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// setting returns the value of a setting of the unit that stands once.
func setting(t *testing.T, name string) string {
	t.Helper()
	var values []string
	lines := bufio.NewScanner(strings.NewReader(read(t, unitFile)))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+"="); ok {
			values = append(values, value)
		}
	}
	if len(values) != 1 {
		t.Fatalf("%s= stands %d times in %s, want once", name, len(values), unitFile)
	}
	return values[0]
}

func muster(t *testing.T) string {
	t.Helper()
	binary, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func TestUnit_IsValidAndHardened(t *testing.T) {
	analyze, err := program.Find("systemd-analyze")
	if err != nil {
		t.Fatalf("systemd-analyze is needed: apt-get install systemd: %v", err)
	}
	// A unit that has a command that does not exist is not valid.
	unit := filepath.Join(t.TempDir(), unitFile)
	text := strings.ReplaceAll(read(t, unitFile), unitBinary, muster(t))
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%d", exposureMax), unit},
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		// It warns with exit code 0 of settings that it does not know.
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

func TestUnit_StartsReloadsAndStops(t *testing.T) {
	dir := t.TempDir()
	var ports [3]int
	for i := range ports {
		port, err := program.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = port
	}
	config := filepath.Join(dir, "muster.yaml")
	text := fmt.Sprintf("log: {format: json}\ndns: {listen: [\"127.0.0.1:%d\"]}\nadmin: {listen: \"127.0.0.1:%d\"}\nregistry: {embedded: {listen: \"127.0.0.1:%d\"}}\n",
		ports[0], ports[1], ports[2])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := strings.NewReplacer(unitBinary, muster(t), unitConfig, config).Replace(setting(t, "ExecStart"))
	state := filepath.Join(dir, setting(t, "StateDirectory"))
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if kind := setting(t, "Type"); kind != "notify" {
		t.Fatalf("Type is %s; the test knows notify", kind)
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { manager.Close() })
	// systemd gives no home; what is kept goes to the state directory.
	p, err := program.Start("muster", append([]string{
		"env", "-i", "STATE_DIRECTORY=" + state, "NOTIFY_SOCKET=" + manager.LocalAddr().String(),
	}, strings.Fields(command)...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	poll := func(ready func() error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := p.Poll(ctx, ready); err != nil {
			t.Fatal(err)
		}
	}
	message := make([]byte, 64)
	if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := manager.Read(message); err != nil || string(message[:n]) != "READY=1" {
		t.Fatalf("systemd is told %q, %v; want READY=1\n%s", message[:n], err, p.Output())
	}
	poll(func() error {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1]))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", resp.Status)
		}
		return nil
	})
	if want := "/bin/kill -HUP $MAINPID"; setting(t, "ExecReload") != want {
		t.Fatalf("ExecReload is %s; the test knows %s", setting(t, "ExecReload"), want)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	poll(func() error {
		if !strings.Contains(p.Output(), "the configuration was read again") {
			return fmt.Errorf("it has not reloaded: %s", p.Output())
		}
		return nil
	})
	p.Stop()
	if p.ExitCode() != 0 {
		t.Errorf("it ends with exit code %d, so that systemd would start it again:\n%s", p.ExitCode(), p.Output())
	}
	kept, err := os.ReadDir(state)
	if err != nil || len(kept) == 0 {
		t.Errorf("the state directory has %v, %v; want what is kept", kept, err)
	}
	t.Logf("kept: %v", kept)
}
