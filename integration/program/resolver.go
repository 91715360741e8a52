package program

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Unbound is an unbound that asks one server for some zones, and nobody else.
type Unbound struct {
	Dir            string // for its configuration
	Listen, Server netip.AddrPort
	Zones          []string
	More           []string // lines of its clause "server"
}

// Command writes the configuration and returns the command that runs it.
func (u Unbound) Command() ([]string, error) {
	path, err := Find("unbound")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install unbound)", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n    interface: %s@%d\n    directory: %q\n", u.Listen.Addr(), u.Listen.Port(), u.Dir)
	b.WriteString(`    do-daemonize: no
    use-syslog: no
    chroot: ""
    username: ""
    pidfile: ""
    do-not-query-localhost: no
`)
	for _, line := range u.More {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	b.WriteString("remote-control:\n    control-enable: no\n")
	for _, zone := range u.Zones {
		fmt.Fprintf(&b, "stub-zone:\n    name: %q\n    stub-addr: %s@%d\n", zone, u.Server.Addr(), u.Server.Port())
	}
	conf := filepath.Join(u.Dir, "unbound.conf")
	return []string{path, "-d", "-c", conf}, os.WriteFile(conf, []byte(b.String()), 0o600)
}

// Dnsmasq is the command that runs dnsmasq as a cache before the server of a zone.
func Dnsmasq(listen, server netip.AddrPort, zone string) ([]string, error) {
	path, err := Find("dnsmasq")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install dnsmasq-base)", err)
	}
	return []string{
		path, "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=", "--pid-file=",
		"--listen-address=" + listen.Addr().String(), "--bind-interfaces", fmt.Sprintf("--port=%d", listen.Port()),
		fmt.Sprintf("--server=/%s/%s#%d", zone, server.Addr(), server.Port()),
	}, nil
}

// CoreDNS writes a Corefile into dir and returns the command that runs CoreDNS on it:
// the binary that COREDNS_BIN names, as `make test` and `make bench` set it, or else one
// that is built into dir from integration/coredns, which takes a minute the first time.
func CoreDNS(ctx context.Context, dir, corefile string) ([]string, error) {
	path, err := coreDNS(ctx, dir)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "Corefile")
	return []string{path, "-conf", conf}, os.WriteFile(conf, []byte(corefile), 0o600)
}

func coreDNS(ctx context.Context, dir string) (string, error) {
	if path := os.Getenv("COREDNS_BIN"); path != "" {
		return exec.LookPath(path)
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/musterdns/muster").Output()
	if err != nil {
		return "", fmt.Errorf("finding integration/coredns: %w", err)
	}
	path := filepath.Join(dir, "coredns")
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(strings.TrimSpace(string(module)), "integration", "coredns"), "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building integration/coredns: %w\n%s", err, out)
	}
	return path, nil
}
