// Package config reads Muster's configuration: a YAML file, the environment
// and flags, merged by viper (flags > environment > file > defaults).
//
// One table (keys.go) has every key with its type, default, limits and
// meaning. Decoding, flags, environment variables, the reference, the JSON
// schema and the view of what is in force are all made from it.
//
// A key exists only once its feature does; an unknown key is an error. Every
// problem is reported, not only the first, with file, line and column.
package config

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

// Config is a complete configuration: every field is set, be it by default. It
// is not changed after Load.
type Config struct {
	// File is the file that was read, absolute; empty: none.
	File string

	Node     string // this server's name; never empty
	Log      Log
	DNS      DNS
	Zones    []Zone
	Registry Registry
	Health   Health
	Services []Service
	Admin    Admin
	Forward  Forward
	Access   []Access
	Keys     []TSIGKey
	ECS      ECS
	// Localities are where clients are, by network.
	Localities []Locality
	Proxy      Proxy

	settings []Setting
	where    map[string]Origin
}

// Where says where the value of a key came from: "zones[1].file" gives
// "muster.yaml:7:11".
func (c *Config) Where(key string) Origin { return c.where[key] }

// Log configures logging.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// LogFormat is how log lines are written.
type LogFormat string

// The formats.
const (
	LogAuto LogFormat = "auto" // text on a terminal, JSON otherwise
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// DNS configures the DNS server.
type DNS struct {
	Listen           []netip.AddrPort // UDP and TCP; at least one, distinct
	TLS              []netip.AddrPort // DNS over TLS
	HTTPS            []netip.AddrPort // DNS over HTTPS
	QUIC             []netip.AddrPort // DNS over QUIC
	ProxyFrom        []netip.Prefix   // proxies whose queries begin with a PROXY header
	Certificates     []Certificate    // for these; the first is for clients that name no server
	Workers          int              // sockets an address for UDP; 0: one a core
	TCP              TCP
	WhyAllow         []netip.Prefix // who may ask `_why` names
	RateLimit        RateLimit
	NSID             string // what the server calls itself to clients; empty: nothing
	HideVersion      bool   // clients are not told the program's version
	CookieSecretFile string // absolute path; empty: the servers of the registry share a secret
}

// RateLimit bounds what one network gets over UDP.
type RateLimit struct {
	PerSecond int // like responses; 0: no limit
	Slip      int // every how manieth response over it is sent with TC; 0: none
	Exempt    []netip.Prefix
}

// TCP bounds DNS over TCP.
type TCP struct {
	MaxConnections int           // at once, over all addresses
	MaxPerClient   int           // at once of one IPv4 address or IPv6 /64
	IdleTimeout    time.Duration // a connection without a query is closed after it
}

// ZoneSource is where a zone's records come from.
type ZoneSource string

// The sources.
const (
	SourceMuster  ZoneSource = "muster"  // the registry, under Prefix
	SourceNaming  ZoneSource = "naming"  // what gRPC's naming in etcd has under Prefix
	SourceSkyDNS  ZoneSource = "skydns"  // what CoreDNS's etcd plugin answers from, under Prefix
	SourceReverse ZoneSource = "reverse" // PTR for the instances of the service zones
	SourceFile    ZoneSource = "file"    // a master file
)

// Services reports whether a zone of the source has services, that is, whether it
// is a service zone.
func (s ZoneSource) Services() bool {
	return s == SourceMuster || s == SourceNaming || s == SourceSkyDNS
}

// Native is the prefix of a service zone's own keys: what stands in etcd in
// Muster's form. Instances of a foreign source lie elsewhere.
func (c *Config) Native(z *Zone) string {
	if z.Source == SourceMuster {
		return z.Prefix
	}
	return c.Registry.ClusterPrefix + "/zones/" + strings.TrimSuffix(z.Name, ".")
}

// Zone is one zone to be authoritative for.
type Zone struct {
	Name        string // absolute, lower case: "svc.internal."
	Source      ZoneSource
	Prefix      string           // of a service zone's instances, without a last slash
	File        string           // SourceFile: absolute path
	TTL         time.Duration    // not SourceFile: of answers, where nothing nearer says
	NegativeTTL time.Duration    // not SourceFile: SOA minimum
	Notify      []netip.AddrPort // secondaries to tell of changes
	NotifyTSIG  string           // the key to sign that with; empty: none
	DNSSEC      string           // absolute path of a directory with the zone's keys; empty: the zone is not signed
	NameServers []NameServer     // not SourceFile; none: ns1 below the zone's name, at this server's addresses
	SOA         SOA              // not SourceFile
}

// NameServer is a name server of a zone.
type NameServer struct {
	Name      string       // absolute
	Addresses []netip.Addr // of one right below the zone's name; none of others
}

// SOA is fields of a zone's SOA record; zero: the default.
type SOA struct {
	Mailbox                string // as a domain name (RFC 1035 section 8)
	Refresh, Retry, Expire time.Duration
}

// RegistryMode says whose etcd is used.
type RegistryMode string

// The modes.
const (
	RegistryEmbedded RegistryMode = "embedded" // one inside this process
	RegistryEtcd     RegistryMode = "etcd"     // a cluster of its own
)

// Registry configures where registrations are kept.
type Registry struct {
	Mode          RegistryMode
	ClusterPrefix string // of what exists once a cluster, without a last slash
	Embedded      Embedded
	Etcd          Etcd
	Snapshot      string        // absolute path; empty: none is kept
	StaleAfter    time.Duration // from this age on, answers say that they are stale
	MaxStale      time.Duration // from this age on, SERVFAIL; 0: never
}

// Embedded configures the embedded etcd.
type Embedded struct {
	Dir    string // absolute path; empty: a temporary one
	Listen netip.AddrPort
}

// Etcd configures the client of an external etcd.
type Etcd struct {
	Endpoints    []string // URLs; at least one
	Username     string
	PasswordFile string // absolute path, or empty
	CA           string // likewise; empty: the system's
	Cert         string // likewise
	Key          string // likewise
	Insecure     bool   // plain http to other hosts is meant
}

// Health configures the checking of instances.
type Health struct {
	Defaults     CheckDefaults
	AllowTargets []netip.Prefix // may be probed although loopback, link-local, ...
	Exec         ExecMode
	Share        bool          // the checking is shared with the other servers of the registry
	ChurnHold    time.Duration // how long removals are held when half of a zone falls at once; 0: never
}

// ExecMode says which exec checks are run.
type ExecMode string

// The modes.
const (
	ExecOff        ExecMode = "off"        // none
	ExecConfigured ExecMode = "configured" // those whose command the file has
	ExecAny        ExecMode = "any"
)

// CheckDefaults are what checks take where they say nothing themselves.
type CheckDefaults struct {
	Interval     time.Duration
	Timeout      time.Duration
	Rise         int
	Fall         int
	FastInterval time.Duration // after the first failure
}

// Service is the policy for the services of one name (or "*", for all) in one
// zone. What an etcd key says wins, field by field.
type Service struct {
	Zone string // of a service zone
	registry.Service
}

// Admin configures the admin API.
type Admin struct {
	Listen    netip.AddrPort
	TokenFile string // absolute path; empty: writing needs no token
	Pprof     bool
	LameDuck  time.Duration // 0: none
}

// Forward configures the forwarding of questions outside the zones.
type Forward struct {
	Upstreams []netip.AddrPort // none: such questions are REFUSED
	Timeout   time.Duration
}

// ECS configures client subnets (RFC 7871).
type ECS struct {
	AcceptFrom []netip.Prefix // resolvers that are believed; none: nobody
}

// Locality is where the clients of a network are.
type Locality struct {
	CIDR         netip.Prefix
	Region, Zone string // lower case, as instances have them; one of them is set
}

// Access says who may ask a zone, or have all of it. Of several entries that fit a question the
// one with the longest zone counts; a question that none fits is refused.
type Access struct {
	Zone     string // absolute, lower case, with all below it; "*": every name; empty: Transfer
	Transfer string // likewise: the entry says who may have whole zones
	Allow    []netip.Prefix
	TSIG     string // with Transfer: the key that the request must be signed with
}

// TSIGKey is a secret shared with other name servers (RFC 8945).
type TSIGKey struct {
	Name       string // absolute, lower case
	Algorithm  string
	SecretFile string // absolute path
}
