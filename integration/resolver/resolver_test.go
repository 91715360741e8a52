package resolver_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is the name that most tests ask for, as people type it.
const service = "web.svc.internal"

// ttl is that of the service.
const ttl = 2 * time.Second

// slack is what a change may take beyond the TTL: a second because resolvers
// count whole ones (unbound uses a record for all of the second in which it
// expires), and the time of a few processes on a busy machine.
const slack = 4 * time.Second

// newLab makes a lab for the binary that ends with the test.
func newLab(t *testing.T) *fault.Lab {
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
	return l
}

// run runs muster with the lab's server.
func run(t *testing.T, l *fault.Lab, args ...string) {
	t.Helper()
	if _, err := l.CLI(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// register registers an instance of web.
func register(t *testing.T, l *fault.Lab, id, address string) {
	t.Helper()
	run(t, l, "register", "web", "--id", id, "--address", address, "--port", "8080", "--check", "none", "--forever")
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

// client is a command that prints the addresses of the service.
type client struct {
	name   string
	cached bool // so that it may lag behind by the TTL
	argv   []string
}

// sees returns when the command prints what is wanted, in any order.
func (c *client) sees(ctx context.Context, want ...string) error {
	return fault.Until(ctx, 20*time.Millisecond, func() error {
		out, err := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...).CombinedOutput()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil {
			return fmt.Errorf("%v prints %q: %w", c.argv, got, err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%v prints %q, want %q", c.argv, got, want)
		}
		return nil
	})
}

func TestClients_SeeAChangeWithinTheTTL(t *testing.T) {
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, "service", "set", "web", "--ttl", ttl.String())
	register(t, l, "one", "10.9.0.1")
	clients := clients(t, s.DNS)
	var before []string
	for _, row := range []struct {
		name   string
		change []string
		want   []string
	}{
		{"at the start", nil, []string{"10.9.0.1"}},
		{"an instance comes", []string{"register", "web", "--id", "two", "--address", "10.9.0.2", "--port", "8080", "--check", "none", "--forever"}, []string{"10.9.0.1", "10.9.0.2"}},
		{"an instance is drained", []string{"drain", "web/one"}, []string{"10.9.0.2"}},
		{"the last one goes", []string{"deregister", "web/two"}, nil},
		{"the last one that is drained comes back", []string{"drain", "web/one", "--undo"}, []string{"10.9.0.1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.change == nil {
				// The resolvers are starting.
				all(t, clients, 10*time.Second, 10*time.Second, row.want)
				return
			}
			// So that what is cached has all of its time left.
			all(t, clients, slack, slack, before)
			run(t, l, row.change...)
			all(t, clients, slack, ttl+slack, row.want)
		})
		before = row.want
	}
}

// all fails the test unless every client sees what is wanted in time.
func all(t *testing.T, clients []client, limit, limitCached time.Duration, want []string) {
	t.Helper()
	began := time.Now()
	var seeing sync.WaitGroup
	for _, c := range clients {
		seeing.Go(func() {
			limit := limit
			if c.cached {
				limit = limitCached
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := c.sees(ctx, want...); err != nil {
				t.Errorf("%s after %s: %v", c.name, limit, err)
				return
			}
			t.Logf("%-13s sees %v after %s", c.name, want, time.Since(began).Round(time.Millisecond))
		})
	}
	seeing.Wait()
}

// clients are the ways to ask the server; those that need a resolver of their
// own have started it.
func clients(t *testing.T, addr string) []client {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	dig, kdig := find(t, "dig", "bind9-dnsutils"), find(t, "kdig", "knot-dnsutils")
	plain, caching := startCoreDNS(t, addr)
	return []client{
		{"dig", false, []string{dig, "@" + host, "-p", port, "+short", service}},
		{"dig +tcp", false, []string{dig, "@" + host, "-p", port, "+short", "+tcp", service}},
		{"dig +noedns", false, []string{dig, "@" + host, "-p", port, "+short", "+noedns", service}},
		{"kdig", false, []string{kdig, "@" + host, "-p", port, "+short", service}},
		{"kdig +tcp", false, []string{kdig, "@" + host, "-p", port, "+short", "+tcp", service}},
		{"coredns", false, []string{dig, "@127.0.0.1", "-p", plain, "+short", service}},
		{"coredns cache", true, []string{dig, "@127.0.0.1", "-p", caching, "+short", service}},
		{"unbound", true, []string{dig, "@127.0.0.1", "-p", startUnbound(t, addr), "+short", service}},
		{"dnsmasq", true, []string{dig, "@127.0.0.1", "-p", startDnsmasq(t, addr), "+short", service}},
	}
}

// startUnbound starts unbound as the README configures it, and returns its port.
func startUnbound(t *testing.T, server string) string {
	t.Helper()
	u := program.Unbound{
		Dir: t.TempDir(), Listen: freeAddr(t), Server: netip.MustParseAddrPort(server), Zones: []string{"svc.internal"},
		More: []string{`domain-insecure: "svc.internal"`, `local-zone: "svc.internal" nodefault`},
	}
	argv, err := u.Command()
	if err != nil {
		t.Fatal(err)
	}
	start(t, argv...)
	return fmt.Sprint(u.Listen.Port())
}

// startDnsmasq starts dnsmasq as the README configures it, and returns its port.
func startDnsmasq(t *testing.T, server string) string {
	t.Helper()
	listen := freeAddr(t)
	argv, err := program.Dnsmasq(listen, netip.MustParseAddrPort(server), "svc.internal")
	if err != nil {
		t.Fatal(err)
	}
	start(t, argv...)
	return fmt.Sprint(listen.Port())
}

// start starts a program that ends with the test.
func start(t *testing.T, argv ...string) {
	t.Helper()
	p, err := program.Start(filepath.Base(argv[0]), argv...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
}

// freePort is a free port of 127.0.0.1.
func freePort(t *testing.T) string {
	t.Helper()
	p, err := program.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(p)
}

// freeAddr is 127.0.0.1 with a free port.
func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort("127.0.0.1:" + freePort(t))
}

// write writes a file.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
