package fault

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// The hosts of those that are asked beside Muster.
const (
	hostGdnsd   = 3
	hostCoreDNS = 4
	hostUnbound = 5
	hostDnsmasq = 6
	hostCache   = 7
)

// Witness is who else is asked for a service while an instance of it dies: another
// server that finds the death out itself, or a cache before Muster.
type Witness struct {
	Name    string
	Cache   bool
	Floor   time.Duration // the least for which a cache keeps an answer
	Round   time.Duration // what it may keep an answer longer for, counting whole seconds
	program string        // "": CoreDNS, which is no package
	debian  string        // what has the program
	host    byte
	argv    func(ctx context.Context, s *scene) ([]string, error)
}

// Installed is an error, with what to do, if the witness cannot be started.
func (w *Witness) Installed() error {
	if w.program == "" {
		if path := os.Getenv("COREDNS_BIN"); path != "" {
			_, err := exec.LookPath(path)
			return err
		}
		return nil // it is built
	}
	if _, err := program.Find(w.program); err != nil {
		return fmt.Errorf("%w (apt-get install %s)", err, w.debian)
	}
	return nil
}

// Caches are caches before Muster, configured as the README says but for CoreDNS's,
// which the README advises against: it is as CoreDNS has it by default.
func Caches() []Witness {
	return []Witness{
		{
			Name: "behind unbound", Cache: true, Round: time.Second, program: "unbound", debian: "unbound", host: hostUnbound,
			argv: func(_ context.Context, s *scene) ([]string, error) {
				zone := strings.TrimSuffix(Zone, ".")
				dir, err := s.dir("unbound")
				if err != nil {
					return nil, err
				}
				return program.Unbound{
					Dir: dir, Listen: s.lab.dnsAddr(hostUnbound), Server: s.lab.dnsAddr(hostMuster), Zones: []string{zone},
					More: []string{fmt.Sprintf("domain-insecure: %q", zone), fmt.Sprintf("local-zone: %q nodefault", zone), "access-control: 127.0.0.0/8 allow"},
				}.Command()
			},
		},
		{
			Name: "behind dnsmasq", Cache: true, program: "dnsmasq", debian: "dnsmasq-base", host: hostDnsmasq,
			argv: func(_ context.Context, s *scene) ([]string, error) {
				return program.Dnsmasq(s.lab.dnsAddr(hostDnsmasq), s.lab.dnsAddr(hostMuster), strings.TrimSuffix(Zone, "."))
			},
		},
		{
			Name: "behind CoreDNS cache", Cache: true, Floor: 5 * time.Second, host: hostCache,
			argv: func(ctx context.Context, s *scene) ([]string, error) {
				return s.coreDNS(ctx, "cache", hostCache, "cache\n    forward . "+s.lab.dnsAddr(hostMuster).String())
			},
		},
	}
}

// Peers are other servers that find out the same death at the same intervals, or as
// near to them as they can.
func (d *Death) Peers() []Witness {
	switch {
	case d.gdnsd != nil:
		return []Witness{{
			Name: fmt.Sprintf("gdnsd, each %d s, fall %d", d.gdnsd.Interval, d.gdnsd.Fall), program: "gdnsd", debian: "gdnsd", host: hostGdnsd,
			argv: func(_ context.Context, s *scene) ([]string, error) {
				g := *d.gdnsd
				g.Listen, g.Port, g.TTL = s.lab.dnsAddr(hostGdnsd), portBackend, 5
				for i := range s.lanes {
					stays, goes := laneHosts(i)
					g.Resources = append(g.Resources, []netip.Addr{s.lab.Addr(stays), s.lab.Addr(goes)})
				}
				dir, err := s.dir("gdnsd")
				if err != nil {
					return nil, err
				}
				return g.Command(dir)
			},
		}}
	case d.orphan:
		return []Witness{{
			Name: "CoreDNS, the same lease", host: hostCoreDNS,
			argv: func(ctx context.Context, s *scene) ([]string, error) {
				return s.coreDNS(ctx, "coredns", hostCoreDNS, fmt.Sprintf("etcd {\n        path %s\n        endpoint %s\n    }", skyPath, s.etcd.URL))
			},
		}}
	}
	return nil
}

// skyPath is below which CoreDNS finds its records, and skyZone those of Zone, whose
// labels the rest is.
const (
	skyPath = "/skydns"
	skyZone = skyPath + "/internal/svc/"
)

// skyKey is the key that has an instance in CoreDNS's answers for a service.
func skyKey(service, id string) string { return skyZone + service + "/" + id }

// dnsAddr is where DNS is served at a host of the lab.
func (l *Lab) dnsAddr(host byte) netip.AddrPort { return netip.AddrPortFrom(l.Addr(host), portDNS) }

// scene is what the programs of a Crash are started in.
type scene struct {
	lab   *Lab
	etcd  *Etcd
	lanes int
}

// dir makes a directory in the lab.
func (s *scene) dir(name string) (string, error) {
	path := s.lab.Path(name)
	return path, os.MkdirAll(path, 0o750)
}

// coreDNS is the command of a CoreDNS that serves the lab's zone by plugins.
func (s *scene) coreDNS(ctx context.Context, name string, host byte, plugins string) ([]string, error) {
	dir, err := s.dir(name)
	if err != nil {
		return nil, err
	}
	return program.CoreDNS(ctx, dir, fmt.Sprintf("%s:%d {\n    bind %s\n    errors\n    %s\n}\n", Zone, portDNS, s.lab.Addr(host), plugins))
}

// start starts the witnesses and says where they answer.
func (s *scene) start(ctx context.Context, witnesses []Witness) ([]string, error) {
	var addrs []string
	for i := range witnesses {
		w := &witnesses[i]
		argv, err := w.argv(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Name, err)
		}
		if _, err := s.lab.Start(w.Name, argv...); err != nil {
			return nil, err
		}
		addrs = append(addrs, s.lab.dnsAddr(w.host).String())
	}
	return addrs, nil
}
