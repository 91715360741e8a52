package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/demo"
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/notify"
	"github.com/musterdns/muster/dnsserver/push"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/etcd/embedded"
	"github.com/musterdns/muster/registry/naming"
	"github.com/musterdns/muster/registry/skydns"
	"github.com/musterdns/muster/zones/service"
)

// build makes every part, without starting any but the embedded etcd.
func (s *server) build(ctx context.Context) error {
	cfg := s.cfg.Load()
	var err error
	if s.snapshots, err = newSnapshots(cfg, s); err != nil {
		s.log.Warn("the snapshot cannot be used", "error", err, "mend", "set registry.snapshot to a file that this user may write, or to off")
	}
	if err := s.buildRegistry(ctx, cfg); err != nil {
		return err
	}
	if err := s.buildPool(cfg); err != nil {
		return err
	}
	if err := s.buildDNS(cfg); err != nil {
		return err
	}
	if s.opt.Dev {
		if s.samples, err = demo.Start(ctx, demo.Config{Logger: s.log}); err != nil {
			return err
		}
	}
	if err := s.buildProxies(cfg); err != nil {
		return err
	}
	return s.buildAdmin(cfg)
}

// buildRegistry starts the embedded etcd, if it is to be, and makes the client
// and a source for each service zone. Source ids count from 1 in the order of
// the configuration, and stay a zone's for as long as the server runs. Without
// a service zone there is nothing to register, and no etcd is used.
func (s *server) buildRegistry(ctx context.Context, cfg *config.Config) error {
	if len(serviceZones(cfg)) == 0 {
		return nil
	}
	reg := &cfg.Registry
	client := etcd.Config{
		Endpoints: reg.Etcd.Endpoints, Username: reg.Etcd.Username, PasswordFile: reg.Etcd.PasswordFile,
		CAFile: reg.Etcd.CA, CertFile: reg.Etcd.Cert, KeyFile: reg.Etcd.Key, Insecure: reg.Etcd.Insecure,
		Log:  s.log.With("part", "registry"),
		Mend: func(err error) string { return s.etcdMend(reg, err.Error()) },
	}
	if reg.Mode == config.RegistryEmbedded {
		e, err := embedded.Start(ctx, embedded.Config{
			Dir: reg.Embedded.Dir, Listen: reg.Embedded.Listen.String(), AnyPort: s.opt.Dev, Log: s.log.With("part", "etcd"),
		})
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			return fmt.Errorf("%w: let this user write there, or set registry.embedded.dir to another directory", err)
		}
		if err != nil {
			return notListening("registry.embedded.listen", err)
		}
		s.etcd = e
		client = etcd.Config{Endpoints: []string{e.URL()}, Insecure: true, Log: client.Log, Mend: client.Mend}
	}
	s.endpoints = client.Endpoints
	c, err := etcd.New(client)
	if err != nil {
		return err
	}
	s.client = c
	for i := range cfg.Zones {
		z := &cfg.Zones[i]
		if !z.Source.Services() {
			continue
		}
		src, err := s.makeSource(c, registry.SourceID(len(s.sources)+1), cfg, z)
		if err != nil {
			return fmt.Errorf("zone %s: %w", z.Name, err)
		}
		s.sources = append(s.sources, src)
		if cfg.Native(z) == reg.ClusterPrefix {
			s.cluster = src.etcd
		}
	}
	if s.cluster == nil {
		s.cluster, err = c.Source(registry.SourceID(len(s.sources)+1), reg.ClusterPrefix)
	}
	return err
}

// makeSource makes the source of a service zone.
func (s *server) makeSource(c *etcd.Client, id registry.SourceID, cfg *config.Config, z *config.Zone) (source, error) {
	own, err := c.Source(id, cfg.Native(z))
	if err != nil {
		return source{}, err
	}
	src := source{zone: z.Name, etcd: own, feed: own}
	switch z.Source {
	case config.SourceNaming:
		format, err := naming.New(z.Prefix)
		if err != nil {
			return source{}, err
		}
		src.foreign = c.Foreign(id, format)
		src.feed = registry.Join(own, src.foreign)
	case config.SourceSkyDNS:
		format, err := skydns.New(z.Prefix)
		if err != nil {
			return source{}, err
		}
		apex, err := wire.ParseName(z.Name)
		if err != nil {
			return source{}, err
		}
		src.foreign, src.sky = c.Notes(id, format), service.NewSkyTree(apex)
		src.feed = registry.Join(own, skydns.Watch(src.foreign, s.noted(src.sky)))
	case config.SourceMuster, config.SourceReverse, config.SourceFile:
	}
	return src, nil
}

// sourceID is the id of a service zone's source.
func (s *server) sourceID(zone string) registry.SourceID {
	for i := range s.sources {
		if s.sources[i].zone == zone {
			return s.sources[i].etcd.ID()
		}
	}
	return 0
}

// noted returns what takes the records of a zone of source skydns, and tells of them
// those who wait for changes: of one that is no instance the pool knows nothing.
func (s *server) noted(tree *service.SkyTree) func(registry.Batch) {
	listing := false // pages of a complete state come; the last may be empty
	return func(b registry.Batch) {
		tree.Apply(b)
		if listing = listing || b.Reset; listing || len(b.Notes)+len(b.Deleted) > 0 {
			s.push.Wake()
		}
		listing = listing && b.More
	}
}

// skyTree is the records of a zone of source skydns.
func (s *server) skyTree(zone string) *service.SkyTree {
	for i := range s.sources {
		if s.sources[i].zone == zone {
			return s.sources[i].sky
		}
	}
	return nil
}

// sourceZone is the zone of a source; empty: it is none of a service zone.
func (s *server) sourceZone(id registry.SourceID) string {
	for i := range s.sources {
		if s.sources[i].etcd.ID() == id {
			return s.sources[i].zone
		}
	}
	return ""
}

// buildPool makes the monitor and the pool that it feeds.
func (s *server) buildPool(cfg *config.Config) error {
	allow := slices.Clone(cfg.Health.AllowTargets)
	if s.opt.Dev { // the samples live there
		allow = append(allow, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	exec := map[config.ExecMode]probe.Exec{config.ExecConfigured: probe.ExecConfigured, config.ExecAny: probe.ExecAny}
	prober, err := probe.New(probe.Config{
		AllowTargets: allow, Lost: func(t health.Target) { s.monitor.Lost(t) },
		Exec: exec[cfg.Health.Exec], Commands: commands(cfg),
	})
	if err != nil {
		return err
	}
	s.prober = prober
	// The monitor tells the pool, and the pool uses the monitor: neither calls
	// the other before both are there.
	s.monitor, err = health.New(health.Config{
		Prober:  prober,
		Notify:  func(t health.Target) { s.pool.Notify(t) },
		Load:    func(t health.Target, load float64) { s.pool.ObserveLoad(t, load) },
		Logger:  s.log.With("part", "health"),
		Metrics: &s.checks,
	})
	if err != nil {
		return err
	}
	_, networks, err := localities(cfg)
	if err != nil {
		return err
	}
	s.networks.Store(networks)
	s.pool, err = pool.New(pool.Config{
		Settings: s.settings(cfg), Checker: s.monitor, Encode: service.Encode, Log: s.log.With("part", "pool"),
	})
	return err
}

// commands are those of the exec checks in the configuration file.
func commands(cfg *config.Config) []string {
	var out []string
	for i := range cfg.Services {
		for _, c := range cfg.Services[i].Checks {
			if c.Type == "exec" {
				out = append(out, health.Command(c.Command))
			}
		}
	}
	return out
}

// buildDNS makes the authority with its zones and the server before it.
func (s *server) buildDNS(cfg *config.Config) error {
	var err error
	if s.authority, err = authority.New(authorityConfig(cfg, s.opt.Version)); err != nil {
		return err
	}
	tree, warnings, err := s.loadTree(cfg, nil)
	for _, w := range warnings {
		s.log.Warn("zone file", "warning", w)
	}
	if err != nil {
		return err
	}
	s.authority.SetTree(tree)
	if err := s.loadCertificates(cfg); err != nil {
		return err
	}
	s.push = push.New(push.Config{Tree: s.authority.Tree, Changed: s.pool.Published, Allow: s.authority.Allows})
	s.dns, err = dnsserver.New(dnsserver.Config{
		Sessions: s.push,
		Listen:   cfg.DNS.Listen, TLS: cfg.DNS.TLS, ProxyFrom: cfg.DNS.ProxyFrom, Certificate: s.encrypted.certificate, Workers: cfg.DNS.Workers, Handler: s.authority, Slow: s.authority, Inherited: s.opt.Sockets.Take,
		MaxConns: cfg.DNS.TCP.MaxConnections, MaxConnsPerIP: cfg.DNS.TCP.MaxPerClient, IdleTimeout: cfg.DNS.TCP.IdleTimeout, NSID: cfg.DNS.NSID, Logger: s.log.With("part", "dns"),
	})
	if err != nil {
		return err
	}
	if err := s.buildEncrypted(cfg); err != nil {
		return err
	}
	_, _ = rand.Read(s.ownCookies[:]) // never fails
	secrets, err := s.cookieSecrets(cfg)
	if err != nil {
		return err
	}
	if err := s.dns.SetCookieSecrets(secrets); err != nil {
		return err
	}
	s.notifier = notify.New(s.authority.Tree, s.log.With("part", "notify"))
	commit, err := s.prepareKeys(cfg)
	if err != nil {
		return err
	}
	commit()
	return nil
}

// authorityConfig is what the authority takes of a configuration.
func authorityConfig(cfg *config.Config, version string) authority.Config {
	out := authority.Config{
		WhyAllow: cfg.DNS.WhyAllow, SubnetsFrom: cfg.ECS.AcceptFrom,
		Chaos:   authority.Chaos{ID: cfg.DNS.NSID},
		Forward: authority.Forward{Upstreams: cfg.Forward.Upstreams, Timeout: cfg.Forward.Timeout},
	}
	if !cfg.DNS.HideVersion {
		out.Chaos.Version = "muster " + version
	}
	if _, table, _ := localities(cfg); table != nil { // the configuration was validated
		out.Locality = table.Find
	}
	l := cfg.DNS.RateLimit
	out.RateLimit = authority.RateLimit{PerSecond: l.PerSecond, Slip: l.Slip, Exempt: l.Exempt}
	for _, a := range cfg.Access {
		if a.Transfer != "" {
			out.Transfer = append(out.Transfer, authority.Transfer{Zone: a.Transfer, Allow: a.Allow, Key: a.TSIG})
			continue
		}
		out.Access = append(out.Access, authority.Rule{Zone: a.Zone, Allow: a.Allow})
	}
	return out
}

// nameServers are the addresses that `ns1` of a service zone has: those that
// DNS listens on, loopback for the unspecified.
func nameServers(cfg *config.Config) []netip.Addr {
	var out []netip.Addr
	for _, l := range cfg.DNS.Listen {
		a := l.Addr()
		if a.IsUnspecified() {
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if l.Addr().Is6() {
				a = netip.IPv6Loopback()
			}
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// buildAdmin makes the admin server.
func (s *server) buildAdmin(cfg *config.Config) error {
	token, err := cfg.Admin.Token()
	if err != nil {
		return fmt.Errorf("admin.token_file: %w", err)
	}
	if s.metrics, err = s.newMetrics(); err != nil {
		return err
	}
	var zs []admin.Zone
	for i := range s.sources {
		src := s.sources[i].etcd
		zs = append(zs, admin.Zone{Name: s.sources[i].zone, Source: src.ID(), Prefix: src.Keyspace().Root(), Store: src})
	}
	out := admin.Config{
		Listen: cfg.Admin.Listen, Inherited: s.opt.Sockets.Take(admin.SocketName(cfg.Admin.Listen)), Token: token, Pprof: cfg.Admin.Pprof, Logger: s.log.With("part", "admin"),
		Metrics: s.metrics.Handler(), Pool: s.pool, Zones: zs, Demo: s.samples,
		Ready: s.waiting, Status: s.status, Findings: s.findings, ZoneNames: s.zoneNames, Ask: s.ask, Near: s.near,
	}
	if len(s.listeners(cfg))+len(cfg.Proxy.VIPs) > 0 {
		out.Proxy, out.ExplainProxy = s.proxyState, s.explainProxy
	}
	s.admin = admin.New(out)
	return nil
}
