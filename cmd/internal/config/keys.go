package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/tsig"
)

// EnvPrefix begins the name of every environment variable of Muster.
const EnvPrefix = "MUSTER"

// off is registry.snapshot and dns.nsid for none.
const off = "off"

// etcdDefault is where an etcd of the same host listens by default.
const etcdDefault = "http://127.0.0.1:2379"

// keys is the table of all keys.
func keys() []key {
	return []key{
		one("node", `""`, "This server's name, as other servers and `muster status` show it.", nodeName(),
			func(c *Config, v string) { c.Node = v }).from("the host's name"),
		under("log", "What is logged, to standard error.", func(c *Config) *Log { return &c.Log },
			one("level", "info", "The least level that is logged.", logLevel(),
				func(c *Log, v slog.Level) { c.Level = v }),
			one("format", "auto", "How lines are written; auto: text on a terminal, JSON otherwise.",
				oneOf(LogAuto, LogText, LogJSON), func(c *Log, v LogFormat) { c.Format = v }),
		),
		dnsKeys(),
		zoneKeys(),
		registryKeys(),
		healthKeys(),
		serviceKeys(),
		proxyKeys(),
		adminKeys(),
		under("forward", "Where questions outside the zones go, so that a machine can name Muster alone in its resolv.conf.",
			func(c *Config) *Forward { return &c.Forward },
			many("upstreams", "[]", "Resolvers to ask, in order; the port is 53 unless given. None: such questions are REFUSED.", address(53),
				func(c *Forward, v []netip.AddrPort) { c.Upstreams = v }),
			one("timeout", "2s", "How long one resolver may take.", duration(10*time.Millisecond, 30*time.Second, ""),
				func(c *Forward, v time.Duration) { c.Timeout = v }),
		),
		under("ecs", "Client subnets (RFC 7871): which network a resolver asks for, which hashing then goes by.",
			func(c *Config) *ECS { return &c.ECS },
			many("accept_from", "[]", "Resolvers whose word is taken for it; none: nobody's. It never decides who may ask.", network(),
				func(c *ECS, v []netip.Prefix) { c.AcceptFrom = v }),
		),
		each("localities", "[]", "Where clients are, by network: they are answered with instances of their zone, or else of their region, as far as that has its part of the capacity that is left. The longest network counts.",
			func(c *Config, v []Locality) { c.Localities = v },
			must(one("cidr", "", "The network; an address alone is one.", network(),
				func(l *Locality, v netip.Prefix) { l.CIDR = v })),
			one("region", "", "The region, as instances have it.", text(),
				func(l *Locality, v string) { l.Region = strings.ToLower(v) }),
			one("zone", "", "The zone, as instances have it.", text(),
				func(l *Locality, v string) { l.Zone = strings.ToLower(v) }),
		),
		each("access", `[{zone: "*", allow: ["0.0.0.0/0", "::/0"]}]`,
			"Who may ask what. Of the entries that fit a question the one with the longest zone counts; what none fits is REFUSED.",
			func(c *Config, v []Access) { c.Access = v },
			one("zone", "", "A zone or any other domain name, with all below it; *: every name.", domain("*"),
				func(a *Access, v string) { a.Zone = v }),
			one("transfer", "", "In place of zone: the entry says who may have the whole of this zone and those below it (AXFR, IXFR); *: of every zone. Of the entries that cover a zone those with the longest transfer count, any of them. Nobody may that none of these names.", domain("*"),
				func(a *Access, v string) { a.Transfer = v }),
			many("allow", "", "Networks that may; an address alone is one. An empty list: nobody. With transfer it may be left out beside tsig: any network.", network(),
				func(a *Access, v []netip.Prefix) { a.Allow = v }),
			one("tsig", "", "With transfer: the key that the request must be signed with.", domain(""),
				func(a *Access, v string) { a.TSIG = v }),
		),
		each("keys", "[]", "Secrets shared with other name servers, to sign with (TSIG, RFC 8945).",
			func(c *Config, v []TSIGKey) { c.Keys = v },
			must(one("name", "", "The key's name, which both ends must have.", domain(""),
				func(k *TSIGKey, v string) { k.Name = v })),
			one("algorithm", "hmac-sha256", "How signatures are made.", oneOf(tsig.Algorithms()...),
				func(k *TSIGKey, v string) { k.Algorithm = v }),
			must(one("secret_file", "", "A file with the secret in base64, alone or as tsig-keygen writes it.", file(""),
				func(k *TSIGKey, v string) { k.SecretFile = v })),
		),
	}
}

func adminKeys() key {
	return under("admin", "The admin API: health, metrics and what the command line talks to.",
		func(c *Config) *Admin { return &c.Admin },
		one("listen", "127.0.0.1:8653", "Where the admin API listens.", address(0),
			func(c *Admin, v netip.AddrPort) { c.Listen = v }),
		one("token_file", `""`, "A file with the token that writing needs. Empty: requests of this machine may write, and no others.", file(""),
			func(c *Admin, v string) { c.TokenFile = v }),
		one("pprof", "false", "Serve profiles of the process under /debug/pprof.", boolean(),
			func(c *Admin, v bool) { c.Pprof = v }),
		one("lame_duck", "0s", "How long the server goes on after SIGTERM with /readyz at 503, so that who asks for that sends clients elsewhere before they are refused.", duration(100*time.Millisecond, 10*time.Minute, "it stops at once"),
			func(c *Admin, v time.Duration) { c.LameDuck = v }),
	)
}

func dnsKeys() key {
	return under("dns", "The DNS server.", func(c *Config) *DNS { return &c.DNS },
		many("listen", "[127.0.0.1:5300]", "Addresses to answer at, over UDP and TCP alike.", address(0),
			func(c *DNS, v []netip.AddrPort) { c.Listen = v }),
		many("tls", "[]", "Addresses to answer at over TLS (DoT); the port is 853 unless given.", address(853),
			func(c *DNS, v []netip.AddrPort) { c.TLS = v }),
		many("https", "[]", "Addresses to answer at over HTTPS (DoH), at /dns-query; the port is 443 unless given.", address(443),
			func(c *DNS, v []netip.AddrPort) { c.HTTPS = v }),
		many("quic", "[]", "Addresses to answer at over QUIC (DoQ); the port is 853 unless given.", address(853),
			func(c *DNS, v []netip.AddrPort) { c.QUIC = v }),
		certificateKeys("[]", "What TLS, HTTPS and QUIC show their clients. The first is for those that name no server. The files are read again when they change.",
			func(c *DNS, v []Certificate) { c.Certificates = v }),
		many("proxy_protocol_from", "[]", "Proxies whose datagrams and connections, over every transport, begin with a PROXY header (version 1 or 2), before TLS; with QUIC each datagram does. Whoever is in these networks can claim to be anybody.", network(),
			func(c *DNS, v []netip.Prefix) { c.ProxyFrom = v }),
		one("workers", "0", "Sockets for UDP at each address, each with a thread of its own; 0: one a core.", integer(0, 1024),
			func(c *DNS, v int) { c.Workers = v }),
		under("tcp", "Limits of DNS over TCP.", func(c *DNS) *TCP { return &c.TCP },
			one("max_connections", "2048", "Connections at once, over all addresses; each takes about 10 KiB.", integer(1, 1_000_000),
				func(c *TCP, v int) { c.MaxConnections = v }),
			one("max_per_client", "256", "Connections at once of one client: an IPv4 address or an IPv6 /64.", integer(1, 1_000_000),
				func(c *TCP, v int) { c.MaxPerClient = v }),
			one("idle_timeout", "10s", "A connection without a question is closed after this.", duration(time.Second, time.Hour, ""),
				func(c *TCP, v time.Duration) { c.IdleTimeout = v }),
		),
		many("why_allow", `["127.0.0.0/8", "::1/128"]`, "Networks that may ask `_why` names, which tell about every instance.", network(),
			func(c *DNS, v []netip.Prefix) { c.WhyAllow = v }),
		under("rate_limit", "Limits of what one network (IPv4 /24, IPv6 /56) gets over UDP, since its address may be forged. Clients with a valid DNS cookie have none.",
			func(c *DNS) *RateLimit { return &c.RateLimit },
			one("per_second", "200", "Responses a second for one name, or of one kind where there is none; 0: no limit.", integer(0, authority.RateMax),
				func(c *RateLimit, v int) { c.PerSecond = v }),
			one("slip", "2", "One in so many responses over the limit says to come back over TCP, or with a cookie; the rest are not sent. 0: none says so.", integer(0, authority.RateMax),
				func(c *RateLimit, v int) { c.Slip = v }),
			many("exempt", `["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"]`, "Networks without a limit.", network(),
				func(c *RateLimit, v []netip.Prefix) { c.Exempt = v }),
		),
		one("cookie_secret_file", `""`, "A file with secrets of DNS cookies (RFC 9018), 32 hexadecimal digits each: the first makes cookies, all are accepted. Empty: the servers of the registry share one, and change it each day.", file(""),
			func(c *DNS, v string) { c.CookieSecretFile = v }),
		one("nsid", `""`, "What clients that ask which server answers are told: NSID (RFC 5001) and id.server CH TXT; off: nothing.", nsid(),
			func(c *DNS, v string) { c.NSID = v }).from("node"),
		one("hide_version", "false", "Do not tell the program's version to those who ask for version.bind or version.server CH TXT.", boolean(),
			func(c *DNS, v bool) { c.HideVersion = v }),
	)
}

func zoneKeys() key {
	return each("zones", "[{name: svc.internal., source: muster}]",
		"What Muster is authoritative for. A list in the file replaces the default one.",
		func(c *Config, v []Zone) { c.Zones = v },
		must(one("name", "", "The zone's name, taken as absolute.", domain(""),
			func(z *Zone, v string) { z.Name = v })),
		one("source", "", "Where its records come from: the registry (muster), what gRPC clients of etcd find each other by (naming), what CoreDNS's etcd plugin answers from (skydns), the instances of the service zones (reverse: PTR), or a master file (file). May be left out beside `file`.",
			oneOf(SourceMuster, SourceNaming, SourceSkyDNS, SourceReverse, SourceFile), func(z *Zone, v ZoneSource) { z.Source = v }),
		one("prefix", "", "Sources muster, naming and skydns: what the keys in etcd begin with; each zone has its own. Source muster: default /muster/v1; skydns: /skydns, and below it the zone's labels from the top (/skydns/local/skydns). Of sources naming and skydns, services, administrators' words and loads are under registry.cluster_prefix, in zones/ and the zone's name without the last dot.", prefix(),
			func(z *Zone, v string) { z.Prefix = v }),
		one("file", "", "Source file: the master file (RFC 1035 section 5).", file(""),
			func(z *Zone, v string) { z.File = v }),
		one("ttl", "5s", "The TTL of answers where neither the instance nor the service has one. Not for source file.", duration(time.Second, time.Hour, ""),
			func(z *Zone, v time.Duration) { z.TTL = v }),
		one("negative_ttl", "2s", "How long the absence of a name or type may be cached. Not for source file.", duration(time.Second, time.Hour, ""),
			func(z *Zone, v time.Duration) { z.NegativeTTL = v }),
		many("notify", "", "Secondaries that are told when the zone has changed (NOTIFY); the port is 53 unless given.", address(53),
			func(z *Zone, v []netip.AddrPort) { z.Notify = v }),
		one("dnssec", "", "A directory with keys of the zone, as muster keys generate makes them: the zone is signed by all of them.", file(""),
			func(z *Zone, v string) { z.DNSSEC = v }),
		one("notify_tsig", "", "The key to sign that with.", domain(""),
			func(z *Zone, v string) { z.NotifyTSIG = v }),
		each("name_servers", "", "The zone's name servers, all of them, as the parent zone has them: the servers of the registry, or secondaries. The first is the SOA record's. Default: ns1 below the zone's name, at the addresses of dns.listen. Not for source file.",
			func(z *Zone, v []NameServer) { z.NameServers = v },
			must(one("name", "", "Its name, right below the zone's or outside the zone.", domain(""),
				func(n *NameServer, v string) { n.Name = v })),
			many("addresses", "", "Its addresses, if its name is below the zone's.", addressOnly(),
				func(n *NameServer, v []netip.Addr) { n.Addresses = v }),
		),
		part("soa", "Fields of the SOA record. Not for source file.", func(z *Zone, v SOA) { z.SOA = v },
			one("mailbox", "", "Who answers for the zone; default hostmaster@ and the zone's name.", mailbox(),
				func(s *SOA, v string) { s.Mailbox = v }),
			one("refresh", "", "How often secondaries look for changes that NOTIFY has not told them of; default 1m, or 4h where nobody may take the zone over.", duration(time.Second, 24*time.Hour, ""),
				func(s *SOA, v time.Duration) { s.Refresh = v }),
			one("retry", "", "How soon they try again; default 10s, or 1h.", duration(time.Second, 24*time.Hour, ""),
				func(s *SOA, v time.Duration) { s.Retry = v }),
			one("expire", "", "How long they answer without having reached the server; default 168h.", duration(time.Minute, 10_000*time.Hour, ""),
				func(s *SOA, v time.Duration) { s.Expire = v }),
		),
	)
}

func registryKeys() key {
	return under("registry", "Where services and instances are registered.", func(c *Config) *Registry { return &c.Registry },
		one("mode", "embedded", "Whose etcd it is: one inside this process, or a cluster of its own.",
			oneOf(RegistryEmbedded, RegistryEtcd), func(c *Registry, v RegistryMode) { c.Mode = v }),
		one("cluster_prefix", "/muster/v1", "What the keys begin with that exist once a cluster, such as the live servers.", prefix(),
			func(c *Registry, v string) { c.ClusterPrefix = v }),
		under("embedded", "The etcd inside this process, in mode embedded.", func(c *Registry) *Embedded { return &c.Embedded },
			one("dir", `""`, "Where its data are kept.", file(""),
				func(c *Embedded, v string) { c.Dir = v }).from("etcd in $STATE_DIRECTORY, or in muster in the user's cache directory"),
			one("listen", "127.0.0.1:2379", "Where it serves clients such as etcdctl.", address(0),
				func(c *Embedded, v netip.AddrPort) { c.Listen = v }),
		),
		under("etcd", "The etcd cluster, in mode etcd.", func(c *Registry) *Etcd { return &c.Etcd },
			many("endpoints", `["`+etcdDefault+`"]`, "URLs of its servers.", endpoint(),
				func(c *Etcd, v []string) { c.Endpoints = v }),
			one("username", `""`, "Whom to log in as; empty: nobody.", text(),
				func(c *Etcd, v string) { c.Username = v }),
			one("password_file", `""`, "A file with the password.", file(""),
				func(c *Etcd, v string) { c.PasswordFile = v }),
			one("ca", `""`, "A PEM file with the authorities that sign the servers' certificates. Empty: the system's.", file(""),
				func(c *Etcd, v string) { c.CA = v }),
			one("cert", `""`, "A PEM file with this client's certificate.", file(""),
				func(c *Etcd, v string) { c.Cert = v }),
			one("key", `""`, "A PEM file with its private key.", file(""),
				func(c *Etcd, v string) { c.Key = v }),
			one("insecure", "false", "Allow plain http to other hosts: whoever is on the way can read and change everything.", boolean(),
				func(c *Etcd, v bool) { c.Insecure = v }),
		),
		one("snapshot", `""`, "A file that keeps the last state, for starts while etcd is away; off: none.", file(off),
			func(c *Registry, v string) { c.Snapshot = v }).from("snapshot in $STATE_DIRECTORY, or in muster in the user's cache directory"),
		one("stale_after", "10s", "From this age on answers say that they are stale (EDE 3, RFC 8914).", duration(6*time.Second, 24*time.Hour, ""),
			func(c *Registry, v time.Duration) { c.StaleAfter = v }),
		one("max_stale", "0s", "From this age on questions get SERVFAIL.", duration(10*time.Second, 10_000*time.Hour, "the last state is served for ever"),
			func(c *Registry, v time.Duration) { c.MaxStale = v }),
	)
}

// nodeName is a name of labels, or empty.
func nodeName() value[string] {
	v := serviceName()
	v.noun = "a name"
	inner := v.parse
	v.parse = func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return inner(strings.TrimSuffix(s, "."))
	}
	return v
}

// nsid is a name that fits the option.
func nsid() value[string] {
	v := text()
	v.limits = fmt.Sprintf("at most %d octets", dnsserver.NSIDMax)
	inner := v.parse
	v.parse = func(s string) (string, error) {
		if len(s) > dnsserver.NSIDMax {
			return "", errors.New("must be " + v.limits)
		}
		return inner(s)
	}
	return v
}

// logLevel is a level of slog, by name.
func logLevel() value[slog.Level] {
	names := oneOf("debug", "info", "warn", "error")
	return value[slog.Level]{noun: names.noun, schema: names.schema, parse: func(s string) (slog.Level, error) {
		if _, err := names.parse(s); err != nil {
			return 0, err
		}
		var l slog.Level
		err := l.UnmarshalText([]byte(s))
		return l, err
	}}
}
