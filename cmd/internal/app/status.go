package app

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
)

// waiting says what readiness waits for; none: ready.
func (s *server) waiting() []string {
	switch {
	case s.leaving.Load():
		return []string{"its end: it is stopping"}
	case s.ready.Load():
		return nil
	}
	return []string{*s.reason.Load()}
}

// status is the server as a whole.
func (s *server) status(ctx context.Context) (api.Status, error) {
	cfg := s.cfg.Load()
	out := api.Status{
		Node: cfg.Node, Version: s.opt.Version, Started: s.started, Dev: s.opt.Dev,
		Proxy: len(s.listeners(cfg))+len(cfg.Proxy.VIPs) > 0, Waiting: s.waiting(), Admin: s.admin.Addr().String(), Members: []api.Member{},
		Config: api.ConfigStatus{File: cfg.File, Loaded: time.Unix(0, s.loaded.Load())},
	}
	out.Ready = len(out.Waiting) == 0
	for _, a := range s.dns.Addrs() {
		out.DNS = append(out.DNS, a.String())
	}
	out.DNS = append(out.DNS, s.urls()...)
	if lines := s.refused.Load(); lines != nil {
		out.Config.Problems = *lines
	}
	st := s.dns.Stats()
	for _, t := range []*dnsserver.TransportStats{&st.UDP, &st.TCP, &st.TLS, &st.HTTPS, &st.QUIC} {
		out.Queries += t.Received - t.Ignored - t.Dropped
	}
	sources, err := s.pool.Status(ctx)
	if err != nil {
		return out, err
	}
	out.Registry = s.registryStatus(cfg, sources)
	out.Zones = s.zoneStatus(cfg, sources)
	out.Members = s.members(sources)
	problems, omitted, err := s.pool.Problems(ctx)
	if err != nil {
		return out, err
	}
	out.Problems = omitted
	for _, p := range problems {
		if !p.Used {
			out.Problems++
		}
	}
	infos, err := s.pool.Services(ctx)
	for i := range infos {
		c := infos[i].Counts
		out.Services++
		out.Instances.Total += c.Total
		out.Instances.Serving += c.In
		out.Instances.Passing += c.Passing
		out.Instances.Failing += c.Failing
		out.Instances.Unknown += c.Unknown
		out.Instances.Drain += c.Drain
		out.Instances.Maintenance += c.Maintenance
	}
	return out, err
}

// registryStatus is the state of the connection: that of the source which is
// farthest behind.
func (s *server) registryStatus(cfg *config.Config, sources []pool.SourceStatus) api.RegistryStatus {
	if s.client == nil {
		return api.RegistryStatus{Mode: "none", Endpoints: []string{}}
	}
	out := api.RegistryStatus{Mode: string(cfg.Registry.Mode), Endpoints: s.endpoints, Connected: true}
	for i := range sources {
		st := &sources[i]
		out.Revision = max(out.Revision, st.Revision)
		out.Age = max(out.Age, api.Duration(st.Age.Round(time.Millisecond)))
		out.Stale = out.Stale || st.Stale
		out.Snapshot = out.Snapshot || st.Snapshot
		out.Connected = out.Connected && st.Ready && !st.Snapshot
	}
	if err := s.client.Err(); err != nil {
		out.Connected, out.Error = false, err.Error()
	}
	return out
}

// zoneStatus is a line for each zone in force.
func (s *server) zoneStatus(cfg *config.Config, sources []pool.SourceStatus) []api.ZoneStatus {
	tree := s.authority.Tree()
	out := make([]api.ZoneStatus, 0, len(cfg.Zones))
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		st := api.ZoneStatus{Name: z.Name, Source: string(z.Source), File: z.File}
		if z.Source.Services() {
			st.Prefix = cfg.Native(z)
		}
		for j := range sources {
			if sources[j].Zone == z.Name {
				st.Services = sources[j].Services
			}
		}
		if apex, err := wire.ParseName(z.Name); err == nil {
			if zone := tree.Zone(&apex); zone != nil {
				st.Serial, st.Records = zone.Serial(), zone.Len()
			}
		}
		out = append(out, st)
	}
	return out
}

// zoneNames are the names of the zones in force.
func (s *server) zoneNames() []string {
	zs := s.cfg.Load().Zones
	out := make([]string, len(zs))
	for i := range zs {
		out[i] = zs[i].Name
	}
	return out
}

// members are the servers of this registry, as far as a service zone shares
// the prefix where they are listed.
func (s *server) members(sources []pool.SourceStatus) []api.Member {
	out := []api.Member{}
	for i := range sources {
		if sources[i].ID != s.cluster.ID() {
			continue
		}
		for _, m := range sources[i].Members {
			out = append(out, api.Member{Name: m.Name, Address: m.Address, Version: m.Version, Since: m.Since, Self: m.Name == s.peers.self})
		}
	}
	return out
}

// findings is what only the server as a whole can find wrong.
func (s *server) findings(ctx context.Context) []api.Finding {
	var out []api.Finding
	add := func(sev api.Severity, subject, problem, mend string) {
		out = append(out, api.Finding{Severity: sev, Subject: subject, Problem: problem, Mend: mend})
	}
	st, err := s.status(ctx)
	if err != nil {
		add(api.SeverityError, "server", err.Error(), "")
		return out
	}
	for _, line := range st.Config.Problems {
		add(api.SeverityError, "configuration", line, "mend it and send SIGHUP; until then the old one is in force")
	}
	for _, key := range needRestart(s.opt.Config, s.cfg.Load()) {
		add(api.SeverityWarning, "configuration", key+" has changed, and is read at the start alone", "restart the server, or change it back")
	}
	out = append(out, s.registryFindings(&st.Registry)...)
	for i := range s.sources {
		if s.pool.View().Source(s.sources[i].etcd.ID()).Held(time.Now().UnixNano()) {
			add(api.SeverityError, "zone "+s.sources[i].zone, "half of its instances fell at once; removals are held for a while",
				"see whether they are gone, or the network or a check is broken: `muster events`")
		}
	}
	if s.pool.Suspect() {
		add(api.SeverityError, "health checks", "most of what this server checks failed at once; it doubts its own network, and its failures have no say beside other servers'",
			"see whether this machine reaches the instances")
	}
	if n := s.snapshots.failed.Load(); n > 0 {
		add(api.SeverityWarning, "snapshot", fmt.Sprintf("%d writes of %s have failed", n, s.snapshots.path), "make room, or set registry.snapshot elsewhere")
	}
	out = slices.Concat(out, s.signatureFindings(), s.kernelFindings(), s.routeFindings(), s.dispatchFindings())
	if lost := s.dns.Stats().UDPOverflow; lost > 0 {
		add(api.SeverityWarning, "udp socket buffer", fmt.Sprintf("the kernel dropped %d queries as a receive buffer was full", lost),
			"raise net.core.rmem_max to 4194304 or more, or give the server another core")
	}
	if limit := rmemMax(); limit > 0 && limit < 4<<20 && os.Geteuid() != 0 {
		add(api.SeverityInfo, "udp socket buffer", fmt.Sprintf("net.core.rmem_max is %d: bursts of more than some hundred queries may be lost", limit),
			"sysctl -w net.core.rmem_max=4194304")
	}
	return out
}

// rmemMax is the kernel's limit for receive buffers; 0: not known.
func rmemMax() int {
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// ask answers a question by the code that answers DNS.
func (s *server) ask(name, typ string, client netip.Addr) (admin.Reply, error) {
	r, err := s.authority.Ask(name, typ, client)
	if err != nil {
		return admin.Reply{}, err
	}
	return admin.Reply{RCode: r.RCode, Answers: r.Answers, Extra: r.Extra}, nil
}
