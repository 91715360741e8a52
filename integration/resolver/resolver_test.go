package resolver_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// patience is how long a client may take to see what is answered: the TTL of 5 s
// and time for a busy machine. It shows that a change arrives, not how soon.
const patience = 15 * time.Second

// lab runs a server with one instance of web.
func lab(t *testing.T) (*fault.Lab, *fault.Server) {
	t.Helper()
	bin, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := fault.NewLab(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	register(t, l, "one", "10.9.0.1")
	return l, s
}

func register(t *testing.T, l *fault.Lab, id, address string) {
	t.Helper()
	out, err := l.CLI(t.Context(), "register", "web", "--id", id, "--address", address, "--port", "8080", "--check", "none", "--forever")
	if err != nil {
		t.Fatalf("muster register: %v\n%s", err, out)
	}
}

// find finds a program, or fails with what to install.
func find(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := program.Find(name)
	if err != nil {
		t.Fatalf("%s is needed: apt-get install %s: %v", name, debian, err)
	}
	return path
}

// prints runs a command until its lines, sorted, are as wanted.
func prints(t *testing.T, want []string, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := fault.Until(ctx, 100*time.Millisecond, func() error {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil {
			return fmt.Errorf("%v prints %q: %w", argv, got, err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%v prints %q, want %q", argv, got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// split is the host and the port of an address.
func split(t *testing.T, addr string) (host, port string) {
	t.Helper()
	i := strings.LastIndexByte(addr, ':')
	return addr[:i], addr[i+1:]
}

// free is a free port of 127.0.0.1.
func free(t *testing.T) string {
	t.Helper()
	p, err := program.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(p)
}

func TestClients_SeeTheAnswerAndItsChange(t *testing.T) {
	l, s := lab(t)
	host, port := split(t, s.DNS)
	dig, kdig := find(t, "dig", "bind9-dnsutils"), find(t, "kdig", "knot-dnsutils")
	name := "web." + strings.TrimSuffix(fault.Zone, ".")

	unboundPort, dnsmasqPort := free(t), free(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	text := fmt.Sprintf(`server:
  interface: 127.0.0.1@%s
  do-daemonize: no
  use-syslog: no
  chroot: ""
  username: ""
  directory: %q
  pidfile: ""
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: %q nodefault
remote-control:
  control-enable: no
stub-zone:
  name: %q
  stub-addr: %s@%s
`, unboundPort, dir, fault.Zone, fault.Zone, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{find(t, "unbound", "unbound"), "-d", "-c", conf},
		{
			find(t, "dnsmasq", "dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=",
			"--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces", "--port=" + dnsmasqPort,
			fmt.Sprintf("--server=/%s/%s#%s", strings.TrimSuffix(fault.Zone, "."), host, port),
		},
	} {
		p, err := program.Start(filepath.Base(argv[0]), argv...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
	}
	clients := map[string][]string{
		"dig":             {dig, "@" + host, "-p", port, "+short", name},
		"dig over TCP":    {dig, "@" + host, "-p", port, "+short", "+tcp", name},
		"dig without OPT": {dig, "@" + host, "-p", port, "+short", "+noedns", name},
		"kdig":            {kdig, "@" + host, "-p", port, "+short", name},
		"kdig over TCP":   {kdig, "@" + host, "-p", port, "+short", "+tcp", name},
		"unbound":         {dig, "@127.0.0.1", "-p", unboundPort, "+short", name},
		"dnsmasq":         {dig, "@127.0.0.1", "-p", dnsmasqPort, "+short", name},
	}
	for client, argv := range clients {
		t.Run(client+" sees the answer", func(t *testing.T) { prints(t, []string{"10.9.0.1"}, argv...) })
	}
	prints(t, []string{"0", "1", "8080", "one." + name + "."}, kdig, "@"+host, "-p", port, "+short", name, "SRV")
	register(t, l, "two", "10.9.0.2")
	for client, argv := range clients {
		t.Run(client+" sees the change", func(t *testing.T) { prints(t, []string{"10.9.0.1", "10.9.0.2"}, argv...) })
	}
}
