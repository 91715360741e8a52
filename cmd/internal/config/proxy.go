package config

import (
	"net/netip"
	"time"

	"github.com/musterdns/muster/registry"
)

// Proxy configures the companion proxy.
type Proxy struct {
	Listeners []Listener
	Routes    []registry.Route // beside those in etcd, which win by name
	// SecretFile has what sticky cookies are signed with; empty: a random one
	// that no other server knows. Absolute.
	SecretFile string
}

// Mode is what a listener does with what comes.
type Mode string

// The modes.
const (
	ModeTCP  Mode = "tcp"
	ModeUDP  Mode = "udp"
	ModeHTTP Mode = "http"
)

// Listener is one address at which the proxy takes connections for a service.
type Listener struct {
	Name   string
	Mode   Mode
	Listen netip.AddrPort

	Service string // empty: routes (http) or names (tcp) say where to
	Zone    string // of the services
	Port    string // named port of the instances
	Tag     string // only instances with this tag

	MaxConnections int
	MaxPerClient   int           // not http; 0: no bound
	MaxPerInstance int           // 0: no bound
	ConnectTimeout time.Duration // of one attempt
	IdleTimeout    time.Duration // 0: the mode's default
	StopTimeout    time.Duration // to finish when the server stops
	DrainTimeout   time.Duration // not http; 0: for ever
	OnDown         OnDown        // not http

	Names       []ListenerName // tcp
	ProxyFrom   []netip.Prefix // tcp
	ProxyTo     bool           // tcp
	Transparent bool           // tcp, udp
	KeepPort    bool           // tcp, udp

	Certificates []Certificate  // http
	Trusted      []netip.Prefix // http
	AccessLog    bool           // http
}

// OnDown is what becomes of connections to an instance whose checks fail.
type OnDown string

// The ways.
const (
	DownReset OnDown = "reset"
	DownDrain OnDown = "drain"
)

// ListenerName routes TLS connections by the name that their client asks for.
type ListenerName struct {
	Names   []string
	Service string
}

// Certificate is a certificate chain and its key, as PEM files; absolute.
type Certificate struct {
	Cert, Key string
}
