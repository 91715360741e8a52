package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/registry"
)

// registerFlags are the flags of register.
type registerFlags struct {
	zone, id, region, locality string
	addrs, ports, tags, meta   []string
	checks                     []string
	port, weight, priority     uint16
	answerTTL                  time.Duration
	forever                    bool
	hold                       holdOptions
	etcd                       etcdFlags
}

func (s *session) registerCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use: "register SERVICE --port N [-- COMMAND ...]", Short: "Register an instance, and hold it while a command runs",
		GroupID: groupRegister,
		Long: `Registers an instance of a service in etcd and holds it: the registration lives as
long as this command. When the machine dies it goes with the lease, within about half
a second of --lease: etcd looks that often, and grants 2 s at least by default.

With a COMMAND, that is started first, the instance is registered after its checks
have passed once, and on SIGTERM it is drained: taken out of the answers and given
--drain for the clients to leave. Only then it is sent SIGTERM itself, and deregistered
when it has ended. When it ends by itself it is deregistered at that moment. Its exit
code is passed on.

Without one the registration is held until SIGTERM. With --forever it is written and
stays until muster deregister.

etcd is what --etcd or MUSTER_ETCD names, or else what the server at --addr uses.

` + checkHelp,
		Example: `  muster register web --port 8080 --check http:/healthz -- ./web --listen :8080
  muster register db --address 10.0.0.7 --port 5432 --check tcp
  muster register printer --id lab --address 10.0.0.9 --port 631 --forever`,
		Args: func(cmd *cobra.Command, args []string) error {
			names := len(args)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				names = dash
			}
			if names != 1 {
				return usagef("name one service; a command stands behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return s.register(cmd.Context(), &f, args[0], args[1:]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.id, "id", "", "the instance's `name`; default: this host's, with the port")
	fs.StringArrayVar(&f.addrs, "address", nil, "its IP `address`; may be repeated; default: the one this host reaches others from")
	uint16Var(fs, &f.port, "port", 0, 1, "its port")
	fs.StringArrayVar(&f.ports, "named-port", nil, "a further port, `NAME=NUMBER[/udp]`; may be repeated")
	uint16Var(fs, &f.weight, "weight", 1, 0, "its weight, 0 to 65535; 0: only when nothing else is left")
	uint16Var(fs, &f.priority, "priority", 0, 0, "its tier; 0 is the first")
	fs.StringArrayVar(&f.tags, "tag", nil, "a `tag`; may be repeated")
	fs.StringArrayVar(&f.meta, "meta", nil, "a metadata entry, `KEY=VALUE`; may be repeated")
	fs.StringVar(&f.region, "region", "", "the region it is in")
	fs.StringVar(&f.locality, "locality", "", "the data centre or availability zone it is in")
	fs.DurationVar(&f.answerTTL, "ttl", 0, "the TTL of answers with it; default: the service's")
	fs.StringArrayVar(&f.checks, "check", nil, checkFlagHelp)
	fs.BoolVar(&f.forever, "forever", false, "write the registration and leave it there")
	f.hold.flags(fs)
	f.etcd.flags(fs)
	return s.online(zoned(cmd, &f.zone))
}

func (s *session) register(ctx context.Context, f *registerFlags, service string, command []string) error {
	if _, err := netip.ParseAddr(s.addr); err == nil {
		return usagef("--addr %s: is the admin API's URL: the instance's address is --address", s.addr)
	}
	in, err := f.instance(service)
	if err != nil {
		return err
	}
	value, err := registry.EncodeInstance(in)
	if err != nil {
		return &usageError{err}
	}
	if f.forever {
		if len(command) > 0 {
			return usagef("--forever: a command cannot hold what stays: leave one of them out")
		}
		return s.registerForever(ctx, f.zone, in, value)
	}
	if slices.ContainsFunc(in.Checks, func(c registry.Check) bool { return c.Type == "ttl" }) {
		return usagef("--check ttl: the lease that is held is the heartbeat already: leave it out, or use --forever")
	}
	return s.hold(ctx, f, in, value, command)
}

func (s *session) registerForever(ctx context.Context, zone string, in registry.Instance, value []byte) error {
	c, err := s.api()
	if err != nil {
		return err
	}
	done, err := c.Register(ctx, api.RegisterRequest{Zone: zone, Service: in.Service, ID: in.ID, Instance: value})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "%s is registered at %s, until deregistered\n", done.Domain, addresses(in.Addresses, in.Port))
	return err
}

// instance makes the record of the flags.
func (f *registerFlags) instance(service string) (registry.Instance, error) {
	in := registry.Instance{
		Port: f.port, Weight: f.weight, Priority: f.priority, Tags: f.tags, Region: f.region, Zone: f.locality, TTL: f.answerTTL,
	}
	var err error
	if in.Service, err = registry.FoldService(service); err != nil {
		return in, usagef("SERVICE: %w", err)
	}
	if f.port == 0 && len(f.ports) == 0 {
		return in, usagef("--port is missing: say where the instance listens")
	}
	id := f.id
	if id == "" {
		id = defaultID(f.port)
	}
	if in.ID, err = registry.FoldLabel(id); err != nil {
		return in, usagef("--id: %w", err)
	}
	for _, a := range f.addrs {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return in, usagef("--address %q: must be an IP address", a)
		}
		in.Addresses = append(in.Addresses, addr.Unmap())
	}
	if len(in.Addresses) == 0 {
		in.Addresses = []netip.Addr{ownAddress()}
	}
	for _, p := range f.ports {
		port, err := namedPort(p)
		if err != nil {
			return in, err
		}
		in.Ports = append(in.Ports, port)
	}
	for _, m := range f.meta {
		k, v, ok := strings.Cut(m, "=")
		if !ok {
			return in, usagef("--meta %q: write KEY=VALUE", m)
		}
		if in.Meta == nil {
			in.Meta = map[string]string{}
		}
		in.Meta[k] = v
	}
	in.Checks, err = parseChecks(f.checks)
	return in, err
}

func namedPort(text string) (registry.Port, error) {
	name, number, ok := strings.Cut(text, "=")
	number, proto, udp := strings.Cut(number, "/")
	if !udp {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil || n == 0 || proto != "tcp" && proto != "udp" {
		return registry.Port{}, usagef("--named-port %q: write NAME=NUMBER or NAME=NUMBER/udp", text)
	}
	return registry.Port{Name: name, Number: uint16(n), Proto: proto}, nil
}

// defaultID is the host's name without its domain, and the port: instances of
// one host differ by it.
func defaultID(port uint16) string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	host, _, _ = strings.Cut(strings.ReplaceAll(host, "_", "-"), ".")
	if port == 0 {
		return host
	}
	suffix := "-" + strconv.Itoa(int(port))
	return host[:min(len(host), 63-len(suffix))] + suffix
}

// ownAddress is the address that this host sends from to others, by its
// routes; nothing is sent. Without a route it is the loopback address.
func ownAddress() netip.Addr {
	// 192.0.2.0/24 and 2001:db8::/32 are for documentation (RFC 5737, RFC 3849).
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", far) //nolint:noctx // connecting a UDP socket does not wait
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		return local
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// checkPort is the number of a check's port, which may be given by name.
func checkPort(in registry.Instance, port string) (uint16, error) {
	for _, p := range in.Ports {
		if p.Name == strings.ToLower(port) {
			return p.Number, nil
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return 0, usagef("--check: %q is neither a port nor the name of a --named-port", port)
	}
	return uint16(n), nil
}
