package config_test

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/registry"
)

// quiet makes a test independent of the machine: no file is found, and state
// has a place.
func quiet(t *testing.T) {
	t.Helper()
	t.Setenv("STATE_DIRECTORY", "/var/lib/muster")
	t.Chdir(t.TempDir())
}

func TestLoad_defaults(t *testing.T) {
	quiet(t)
	c := load(t, config.Options{})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ToLower(host); c.Node != want {
		t.Errorf("node: %q, want the host's name %q", c.Node, want)
	}
	wantZones := []config.Zone{{Name: "svc.internal.", Source: config.SourceMuster, Prefix: "/muster/v1", TTL: 5 * time.Second, NegativeTTL: 2 * time.Second}}
	if diff := cmp.Diff(wantZones, c.Zones); diff != "" {
		t.Errorf("zones (-want +got):\n%s", diff)
	}
	if want := netip.MustParseAddrPort("127.0.0.1:5300"); len(c.DNS.Listen) != 1 || c.DNS.Listen[0] != want {
		t.Errorf("dns.listen: %v, want %v", c.DNS.Listen, want)
	}
	if c.Registry.Snapshot != "/var/lib/muster/snapshot" || c.Registry.Embedded.Dir != "/var/lib/muster/etcd" {
		t.Errorf("state: %q and %q, want it in STATE_DIRECTORY", c.Registry.Snapshot, c.Registry.Embedded.Dir)
	}
	wantHealth := config.CheckDefaults{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3, FastInterval: 500 * time.Millisecond}
	if diff := cmp.Diff(wantHealth, c.Health.Defaults); diff != "" {
		t.Errorf("health.defaults (-want +got):\n%s", diff)
	}
}

func TestLoad_everything(t *testing.T) {
	quiet(t)
	t.Setenv("STATE_DIRECTORY", "/unused")
	c := load(t, config.Options{Data: []byte(`
node: NS-1
log: {level: debug, format: json}
dns: {listen: ["127.0.0.1:53", "[::1]:53"], tls: [127.0.0.1], https: [127.0.0.2], quic: ["[::1]:8853"], proxy_protocol_from: [10.0.0.9], certificates: [{cert: d.pem, key: d.key}], workers: 3, tcp: {max_connections: 7, max_per_client: 2, idle_timeout: 1m}, why_allow: [10.0.0.1], rate_limit: {per_second: 50, slip: 0, exempt: []}, hide_version: true}
zones:
  - name: Svc.Example
    source: muster
    prefix: /a/b/
    ttl: 7s
    negative_ttl: 3s
    name_servers: [{name: NS1.svc.example, addresses: [192.0.2.1, "2001:db8::1"]}, {name: ns.example.net}]
    soa: {mailbox: Dns.Admin@example.com, refresh: 2h, retry: 30m, expire: 96h}
  - {name: example.com., file: zones/example.com.zone, notify: [10.0.0.2], notify_tsig: key1}
  - {name: 10.in-addr.arpa, source: reverse}
registry:
  mode: etcd
  etcd: {endpoints: ["https://etcd-1:2379"], username: u, password_file: pw, ca: /ca, cert: c, key: k}
  snapshot: off
  stale_after: 20s
  max_stale: 1h
health: {defaults: {interval: 5s, timeout: 5s, rise: 1, fall: 1, fast_interval: 1s}, allow_targets: [127.0.0.0/8], exec: configured, share: false, churn_hold: 0s}
services:
  - {name: "*", policy: hash, hash_on: subnet, max_answers: auto, slow_start: 0s, panic_threshold: 0.5}
  - name: Web
    ttl: 9s
    fail: closed
    spill: proportional
    checks:
      - {type: http, path: /healthz, interval: 1s, fall: 2, keep: true}
      - {type: exec, command: [/bin/check, "--level=a b"]}
  - {name: api, checks: []}
admin: {listen: "127.0.0.1:1", token_file: /t, pprof: true}
forward: {upstreams: [9.9.9.9, "[2620:fe::fe]:5353"], timeout: 1s}
ecs: {accept_from: [10.9.0.0/16]}
access: [{zone: "*", allow: []}, {zone: Svc.example, allow: [10.0.0.0/8]}, {transfer: Example.com, tsig: Key1}]
localities: [{cidr: 10.1.0.0/16, region: EU, zone: eu-1a}]
keys: [{name: key1, algorithm: hmac-sha512, secret_file: k}]
proxy:
  secret_file: s
  listeners:
    - {name: Front, listen: "127.0.0.1:443", mode: http, service: Web, certificates: [{cert: c.pem, key: k.pem}], trusted: [10.0.0.0/8], access_log: true, stop_timeout: 5s}
    - {name: db, listen: "127.0.0.1:5432", mode: tcp, on_down: drain, names: [{names: ["*.DB.example"], service: db}], proxy_protocol_to: true, max_per_client: 9}
    - {name: nat, listen: "10.0.0.100:53", mode: nat, service: ns, protocol: udp, affinity: client, masquerade: true}
    - {name: dsr, listen: "10.0.0.100:80", mode: dsr, service: web, interface: eth0, attach: tcx}
  vips: [{address: 10.0.0.100/24, interface: eth0, lease: 6s, priority: 20}]
  routes:
    - {name: users, hosts: ["*.Example.com"], path: /api/users, headers: [{name: X-V, value: "2"}], service: users, set_request: {X-From: muster}, retries: 0, limit: {rate: 0.5, by: route}, tls: Mesh, protocol: h2}
  instance_tls: [{name: mesh, server_name: users.example, ca: ca.pem, cert: i.pem, key: i.key}, {name: any, insecure: true}]
`)})
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	half, none := 0.5, time.Duration(0)
	want := &config.Config{
		Node: "ns-1",
		Log:  config.Log{Level: slog.LevelDebug, Format: config.LogJSON},
		DNS: config.DNS{
			Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")},
			TLS:    []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:853")}, HTTPS: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:443")},
			QUIC: []netip.AddrPort{netip.MustParseAddrPort("[::1]:8853")}, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32")}, Certificates: []config.Certificate{{Cert: filepath.Join(cwd, "d.pem"), Key: filepath.Join(cwd, "d.key")}},
			Workers: 3, TCP: config.TCP{MaxConnections: 7, MaxPerClient: 2, IdleTimeout: time.Minute},
			WhyAllow:  []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")},
			RateLimit: config.RateLimit{PerSecond: 50, Slip: 0, Exempt: []netip.Prefix{}},
			NSID:      "ns-1", HideVersion: true,
		},
		Zones: []config.Zone{
			{
				Name: "svc.example.", Source: config.SourceMuster, Prefix: "/a/b", TTL: 7 * time.Second, NegativeTTL: 3 * time.Second,
				NameServers: []config.NameServer{
					{Name: "ns1.svc.example.", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
					{Name: "ns.example.net."},
				},
				SOA: config.SOA{Mailbox: `dns\.admin.example.com.`, Refresh: 2 * time.Hour, Retry: 30 * time.Minute, Expire: 96 * time.Hour},
			},
			{Name: "example.com.", Source: config.SourceFile, File: filepath.Join(cwd, "zones/example.com.zone"), TTL: 5 * time.Second, NegativeTTL: 2 * time.Second, Notify: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53")}, NotifyTSIG: "key1."},
			{Name: "10.in-addr.arpa.", Source: config.SourceReverse, TTL: 5 * time.Second, NegativeTTL: 2 * time.Second},
		},
		Registry: config.Registry{
			Mode: config.RegistryEtcd, ClusterPrefix: "/muster/v1",
			Embedded: config.Embedded{Listen: netip.MustParseAddrPort("127.0.0.1:2379")},
			Etcd: config.Etcd{
				Endpoints: []string{"https://etcd-1:2379"}, Username: "u", PasswordFile: filepath.Join(cwd, "pw"),
				CA: "/ca", Cert: filepath.Join(cwd, "c"), Key: filepath.Join(cwd, "k"),
			},
			StaleAfter: 20 * time.Second, MaxStale: time.Hour,
		},
		Health: config.Health{
			Defaults:     config.CheckDefaults{Interval: 5 * time.Second, Timeout: 5 * time.Second, Rise: 1, Fall: 1, FastInterval: time.Second},
			AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // share is false, and churn_hold 0s
			Exec:         config.ExecConfigured,
		},
		Services: []config.Service{
			{Zone: "svc.example.", Service: registry.Service{Name: "*", Policy: "hash", HashOn: "subnet", MaxAnswers: registry.MaxAnswersAuto, SlowStart: &none, PanicThreshold: &half}},
			{Zone: "svc.example.", Service: registry.Service{
				Name: "web", TTL: 9 * time.Second, Fail: "closed", Spill: "proportional",
				Checks: []registry.Check{
					{Type: "http", Path: "/healthz", Interval: time.Second, Fall: 2, Keep: true},
					{Type: "exec", Command: []string{"/bin/check", "--level=a b"}},
				},
			}},
			{Zone: "svc.example.", Service: registry.Service{Name: "api", Checks: []registry.Check{}}},
		},
		Admin:   config.Admin{Listen: netip.MustParseAddrPort("127.0.0.1:1"), TokenFile: "/t", Pprof: true},
		Forward: config.Forward{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53"), netip.MustParseAddrPort("[2620:fe::fe]:5353")}, Timeout: time.Second},
		ECS:     config.ECS{AcceptFrom: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}},
		Access: []config.Access{
			{Zone: "*", Allow: []netip.Prefix{}},
			{Zone: "svc.example.", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			{Transfer: "example.com.", TSIG: "key1."},
		},
		Localities: []config.Locality{{CIDR: netip.MustParsePrefix("10.1.0.0/16"), Region: "eu", Zone: "eu-1a"}},
		Keys:       []config.TSIGKey{{Name: "key1.", Algorithm: "hmac-sha512", SecretFile: filepath.Join(cwd, "k")}},
		Proxy: config.Proxy{
			SecretFile: filepath.Join(cwd, "s"),
			Listeners: []config.Listener{
				{
					Name: "front", Listen: netip.MustParseAddrPort("127.0.0.1:443"), Mode: config.ModeHTTP, Service: "web", Zone: "svc.example.",
					Certificates: []config.Certificate{{Cert: filepath.Join(cwd, "c.pem"), Key: filepath.Join(cwd, "k.pem")}},
					Trusted:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, AccessLog: true, StopTimeout: 5 * time.Second,
				},
				{
					Name: "db", Listen: netip.MustParseAddrPort("127.0.0.1:5432"), Mode: config.ModeTCP, OnDown: config.DownDrain, Zone: "svc.example.",
					Names: []config.ListenerName{{Names: []string{"*.db.example"}, Service: "db"}}, ProxyTo: true, MaxPerClient: 9,
				},
				{
					Name: "nat", Listen: netip.MustParseAddrPort("10.0.0.100:53"), Mode: config.ModeNAT, Service: "ns", Zone: "svc.example.",
					Protocol: config.ProtocolUDP, Affinity: config.AffinityClient, Masquerade: true,
				},
				{
					Name: "dsr", Listen: netip.MustParseAddrPort("10.0.0.100:80"), Mode: config.ModeDSR, Service: "web", Zone: "svc.example.",
					Interface: "eth0", Attach: config.AttachTCX,
				},
			},
			VIPs: []config.VIP{{Address: netip.MustParsePrefix("10.0.0.100/24"), Interface: "eth0", Lease: 6 * time.Second, Priority: 20}},
			Routes: []registry.Route{{
				Name: "users", Hosts: []string{"*.example.com"}, Path: "/api/users", Headers: []registry.RouteMatch{{Name: "X-V", Value: "2"}},
				Service: "users", SetRequest: map[string]string{"X-From": "muster"}, Retries: new(int), Limit: &registry.RouteLimit{Rate: 0.5, By: "route"},
				TLS: "mesh", Protocol: "h2",
			}},
			InstanceTLS: []config.InstanceTLS{
				{Name: "mesh", ServerName: "users.example", CA: filepath.Join(cwd, "ca.pem"), Cert: filepath.Join(cwd, "i.pem"), Key: filepath.Join(cwd, "i.key")},
				{Name: "any", Insecure: true},
			},
		},
	}
	sameConfig(t, want, c)
	t.Run("the view read back is the same", func(t *testing.T) {
		sameConfig(t, want, load(t, config.Options{Data: []byte(c.View())}))
	})
}

func TestLoad_precedence(t *testing.T) {
	file := []byte("admin: {listen: '127.0.0.1:1'}\ndns: {listen: ['127.0.0.1:1001']}\n")
	for _, tc := range []struct {
		name   string
		env    string
		args   []string
		want   string
		origin string
	}{
		{"the file wins over the default", "", nil, "127.0.0.1:1", "stdin:1:17"},
		{"the environment wins over the file", "127.0.0.1:2", nil, "127.0.0.1:2", "MUSTER_ADMIN_LISTEN"},
		{"a flag wins over the environment", "127.0.0.1:2", []string{"--admin-listen=127.0.0.1:3"}, "127.0.0.1:3", "--admin-listen"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			quiet(t)
			t.Setenv("MUSTER_ADMIN_LISTEN", tc.env)
			flags := pflag.NewFlagSet("t", pflag.ContinueOnError)
			config.AddFlags(flags)
			if err := flags.Parse(tc.args); err != nil {
				t.Fatal(err)
			}
			c := load(t, config.Options{Data: file, Flags: flags})
			if got := c.Admin.Listen.String(); got != tc.want {
				t.Errorf("admin.listen is %s, want %s", got, tc.want)
			}
			if got := c.Where("admin.listen").String(); got != tc.origin {
				t.Errorf("it comes from %s, want %s", got, tc.origin)
			}
			if got := c.Where("log.level").String(); got != "default" {
				t.Errorf("log.level comes from %s, want default", got)
			}
		})
	}
}

func TestLoad_environment(t *testing.T) {
	quiet(t)
	t.Setenv("MUSTER_DNS_LISTEN", "127.0.0.1:53, [::1]:53")
	t.Setenv("MUSTER_ADMIN_PPROF", "true")
	t.Setenv("MUSTER_ZONES", "[{name: a.example, source: muster, ttl: 1m}]")
	t.Setenv("MUSTER_ADMIN_TOKEN_FILE", "secret/token")
	t.Setenv("MUSTER_PORT", "tcp://10.0.0.1:53") // as Kubernetes sets it
	c := load(t, config.Options{})
	if len(c.DNS.Listen) != 2 || c.DNS.Listen[1].String() != "[::1]:53" {
		t.Errorf("dns.listen: %v", c.DNS.Listen)
	}
	if !c.Admin.Pprof {
		t.Error("admin.pprof is not set")
	}
	if len(c.Zones) != 1 || c.Zones[0].Name != "a.example." || c.Zones[0].TTL != time.Minute {
		t.Errorf("zones: %+v", c.Zones)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(cwd, "secret/token"); c.Admin.TokenFile != want {
		t.Errorf("admin.token_file: %q, want %q: it begins at the working directory", c.Admin.TokenFile, want)
	}
}

func TestLoad_finds_the_file(t *testing.T) {
	quiet(t)
	if err := os.WriteFile("muster.yaml", []byte("node: here\nadmin: {token_file: t}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c := load(t, config.Options{})
	if c.Node != "here" || c.File != filepath.Join(cwd, "muster.yaml") || c.Admin.TokenFile != filepath.Join(cwd, "t") {
		t.Errorf("node %q, file %q, token file %q", c.Node, c.File, c.Admin.TokenFile)
	}
	t.Chdir(t.TempDir())
	c = load(t, config.Options{File: filepath.Join(cwd, "muster.yaml")})
	if c.Admin.TokenFile != filepath.Join(cwd, "t") {
		t.Errorf("token file %q: it begins at the file's directory", c.Admin.TokenFile)
	}
}

func TestConfig_View(t *testing.T) {
	path, err := filepath.Abs("testdata/view.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	quiet(t)
	t.Setenv("MUSTER_NODE", "ns1")
	golden(t, path, load(t, config.Options{Data: []byte("zones:\n  - name: a.example\n    source: muster\nlog:\n  level: warn\n")}).View())
}

func TestLoad_keeps_nothing_for_a_throwaway_server_unless_told_where(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", dir)
	cfg, problems := config.Load(config.Options{Data: []byte("{}"), Throwaway: true})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if cfg.Registry.Snapshot != "" || cfg.Registry.Embedded.Dir != "" {
		t.Errorf("snapshot %q and etcd in %q, want none of both", cfg.Registry.Snapshot, cfg.Registry.Embedded.Dir)
	}
	cfg, problems = config.Load(config.Options{
		Data: []byte("registry: {snapshot: /x/snapshot, embedded: {dir: /x/etcd}}"), Throwaway: true,
	})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if cfg.Registry.Snapshot != "/x/snapshot" || cfg.Registry.Embedded.Dir != "/x/etcd" {
		t.Errorf("snapshot %q and etcd in %q, want what the file says", cfg.Registry.Snapshot, cfg.Registry.Embedded.Dir)
	}
}
