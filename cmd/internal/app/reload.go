package app

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// settle is how long file changes must have ended before they are read: an
// editor writes a file in several steps, and a deployment several files.
const settle = 200 * time.Millisecond

// reloads reads the configuration again when told to and when a file of it
// changes, until ctx ends. Requests that come while one is carried out are one.
func (s *server) reloads(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		// Without file notification a signal still works.
		s.log.Warn("file changes are not noticed; send SIGHUP after a change", "error", err)
		watcher = &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
	} else {
		defer watcher.Close()
	}
	watched := s.watchFiles(watcher, map[string]bool{})
	signing := newSigningClock(s.cfg.Load())
	resign := time.NewTimer(signing.wait())
	defer resign.Stop()
	again := func() {
		s.reload(ctx)
		watched = s.watchFiles(watcher, watched)
		signing = newSigningClock(s.cfg.Load())
		resign.Reset(signing.wait())
	}
	var timer <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-resign.C:
			if signing.due(time.Now()) {
				again()
			} else {
				resign.Reset(signing.wait())
			}
		case <-s.opt.Reload:
			again()
		case e := <-watcher.Events:
			if watched[e.Name] || watched[filepath.Dir(e.Name)+"/"] {
				timer = time.After(settle)
			}
		case err := <-watcher.Errors:
			s.log.Warn("watching files", "error", err)
		case <-timer:
			timer = nil
			again()
		}
	}
}

// watchFiles watches the directories of the configuration's files, since a file
// that is replaced is another file, and returns the files; a directory of which every
// file counts ends in a slash.
func (s *server) watchFiles(w *fsnotify.Watcher, before map[string]bool) map[string]bool {
	cfg := s.cfg.Load()
	files := map[string]bool{}
	if cfg.File != "" {
		files[cfg.File] = true
	}
	for i := range cfg.Zones {
		if cfg.Zones[i].Source == config.SourceFile {
			files[cfg.Zones[i].File] = true
		}
		if dir := cfg.Zones[i].DNSSEC; dir != "" {
			files[filepath.Clean(dir)+"/"] = true // all files in it
		}
	}
	dirs := map[string]bool{}
	for f := range before {
		dirs[filepath.Dir(f)] = true
	}
	for f := range files {
		dir := filepath.Dir(f)
		if dirs[dir] || w.Add(dir) == nil {
			dirs[dir] = true
			continue
		}
		s.log.Warn("changes of a file will not be noticed; send SIGHUP after a change", "file", f)
	}
	return files
}

// reload puts a newer configuration in force. One that is bad is refused whole
// and the old stays; of the zone files, those that are good are taken.
func (s *server) reload(ctx context.Context) {
	if s.opt.Load == nil {
		return
	}
	cfg, problems := s.opt.Load()
	if cfg == nil {
		s.refuse(problems.Err(), problemLines(problems))
		return
	}
	if err := s.applyConfig(ctx, cfg); err != nil {
		s.refuse(err, []string{err.Error()})
		return
	}
	for _, key := range needRestart(s.cfg.Load(), cfg) {
		s.log.Warn("a change needs a restart to take effect", "key", key)
	}
	s.cfg.Store(cfg)
	select {
	case s.proxies.reloaded <- struct{}{}:
	default:
	}
	s.loaded.Store(time.Now().UnixNano())
	s.reloadsDone.Add(1)
	s.log.Info("the configuration was read again", "file", cfg.File)
}

// refuse notes why a newer configuration was not taken.
func (s *server) refuse(err error, lines []string) {
	s.refused.Store(&lines)
	s.reloadsFailed.Add(1)
	s.log.Error("the new configuration is refused, the old one stays", "error", err)
}

// prepared is a configuration of which everything has been read and checked.
type prepared struct {
	cfg      *config.Config
	settings pool.Settings
	tree     *zones.Tree
	files    error // zone files that are bad: their old zones are in the tree
	renewal  *renewal
	answer   func() // has the authority go by it
	keys     func() // puts its TSIG keys and secondaries in force
	secrets  []cookie.Secret
}

// applyConfig applies what can change while the server runs: all of it, or nothing.
func (s *server) applyConfig(ctx context.Context, cfg *config.Config) error {
	p, err := s.prepare(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.renewal.discard()
	return s.put(ctx, p)
}

// prepare reads and checks everything of a configuration, and binds its addresses.
// Nothing is changed by it, and on an error nothing is kept.
func (s *server) prepare(ctx context.Context, cfg *config.Config) (*prepared, error) {
	p := &prepared{cfg: cfg}
	known, err := s.keepSources(cfg)
	if err != nil {
		return nil, err
	}
	p.settings = s.settings(known)
	if err := p.settings.Validate(); err != nil {
		return nil, err
	}
	if p.answer, err = s.authority.Prepare(authorityConfig(cfg, s.opt.Version)); err != nil {
		return nil, err
	}
	if err := dnsserver.CheckNSID(cfg.DNS.NSID); err != nil {
		return nil, err
	}
	if cfg.DNS.CookieSecretFile != "" || s.cfg.Load().DNS.CookieSecretFile != "" {
		if p.secrets, err = s.cookieSecrets(cfg); err != nil {
			return nil, err
		}
	}
	if p.keys, err = s.prepareKeys(cfg); err != nil {
		return nil, err
	}
	var warnings []string
	p.tree, warnings, p.files = s.loadTree(known, s.authority.Tree())
	for _, w := range warnings {
		s.log.Warn("zone file", "warning", w)
	}
	if p.tree == nil {
		return nil, p.files
	}
	if p.renewal, err = s.renewProxies(ctx, cfg); err != nil {
		return nil, notListening("proxy.listeners", err)
	}
	return p, nil
}

// put puts what was prepared in force. It fails only where nothing has been changed yet,
// when the server ends.
func (s *server) put(ctx context.Context, p *prepared) error {
	if err := s.pool.Reload(ctx, p.settings); err != nil {
		return err
	}
	var refused []string
	if p.files != nil {
		refused = append(refused, p.files.Error())
		s.reloadsFailed.Add(1)
		s.log.Error("a zone file is refused, the old zone stays", "error", p.files)
	}
	p.answer()
	_, networks, _ := localities(p.cfg) // the configuration was validated
	s.networks.Store(networks)
	_ = s.dns.SetNSID(p.cfg.DNS.NSID) // it was checked
	if len(p.secrets) > 0 {
		_ = s.dns.SetCookieSecrets(p.secrets) // they were counted
	}
	p.keys()
	s.commit(ctx, p.renewal, p.cfg)
	s.authority.SetTree(p.tree)
	s.push.Wake()
	s.level.Set(p.cfg.Log.Level)
	s.refused.Store(&refused)
	return nil
}

// keepSources is the configuration without service zones that were not there
// at the start: their keys are not watched.
func (s *server) keepSources(cfg *config.Config) (*config.Config, error) {
	known := *cfg
	known.Zones = nil
	services := 0
	for _, z := range cfg.Zones {
		if z.Source.Services() {
			if s.sourceID(z.Name) == 0 {
				continue // needRestart tells
			}
			services++
		}
		known.Zones = append(known.Zones, z)
	}
	if services == 0 && len(s.sources) > 0 {
		return nil, errors.New("zones: none of the service zones that the server was started with is left: restart it instead")
	}
	return &known, nil
}

// needRestart names the keys that differ and are read at the start only.
func needRestart(old, now *config.Config) []string {
	var keys []string
	for _, f := range []struct {
		key  string
		a, b any
	}{
		{"node", old.Node, now.Node},
		{"dns.listen", old.DNS.Listen, now.DNS.Listen},
		{"dns.tls", old.DNS.TLS, now.DNS.TLS},
		{"dns.https", old.DNS.HTTPS, now.DNS.HTTPS},
		{"dns.quic", old.DNS.QUIC, now.DNS.QUIC},
		{"dns.proxy_protocol_from", old.DNS.ProxyFrom, now.DNS.ProxyFrom},
		{"dns.certificates", old.DNS.Certificates, now.DNS.Certificates},
		{"dns.workers", old.DNS.Workers, now.DNS.Workers},
		{"dns.tcp", old.DNS.TCP, now.DNS.TCP},
		{"registry.mode", old.Registry.Mode, now.Registry.Mode},
		{"registry.cluster_prefix", old.Registry.ClusterPrefix, now.Registry.ClusterPrefix},
		{"registry.embedded", old.Registry.Embedded, now.Registry.Embedded},
		{"registry.etcd", old.Registry.Etcd, now.Registry.Etcd},
		{"registry.snapshot", old.Registry.Snapshot, now.Registry.Snapshot},
		{"health.allow_targets", old.Health.AllowTargets, now.Health.AllowTargets},
		{"health.exec", old.Health.Exec, now.Health.Exec},
		{"health.share", old.Health.Share, now.Health.Share},
		{"admin", adminAtStart(old), adminAtStart(now)},
		{"proxy.listeners (of modes nat and dsr)", kernelListeners(old), kernelListeners(now)},
		{"proxy.vips", old.Proxy.VIPs, now.Proxy.VIPs},
		{"proxy.secret_file", old.Proxy.SecretFile, now.Proxy.SecretFile},
		{"log.format", old.Log.Format, now.Log.Format},
		{"zones (with services)", serviceZones(old), serviceZones(now)},
	} {
		if !reflect.DeepEqual(f.a, f.b) {
			keys = append(keys, f.key)
		}
	}
	return keys
}

// adminAtStart is the admin API's configuration without what is read later.
func adminAtStart(cfg *config.Config) config.Admin {
	a := cfg.Admin
	a.LameDuck = 0
	return a
}

// serviceZones are the names, sources and prefixes of the service zones.
func serviceZones(cfg *config.Config) [][2]string {
	var out [][2]string
	for _, z := range cfg.Zones {
		if z.Source.Services() {
			out = append(out, [2]string{z.Name, string(z.Source) + z.Prefix})
		}
	}
	return out
}

// problemLines are problems a line each.
func problemLines(ps config.Problems) []string {
	lines := make([]string, 0, len(ps))
	for _, p := range ps {
		lines = append(lines, p.String())
	}
	return lines
}
