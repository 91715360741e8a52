package config

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/musterdns/muster/registry"
)

// Proxy configures the companion proxy.
type Proxy struct {
	Listeners []Listener
	VIPs      []VIP
	Routes    []registry.Route // beside those in etcd, which win by name

	InstanceTLS []InstanceTLS // by name, for routes
	// SecretFile has what sticky cookies are signed with; empty: a random one
	// that no other server knows. Absolute.
	SecretFile string
}

// secretMin is the least size of the secret for sticky cookies.
const secretMin = 16

// Secret reads SecretFile; without one it is nil.
func (p *Proxy) Secret() ([]byte, error) {
	if p.SecretFile == "" {
		return nil, nil
	}
	secret, err := os.ReadFile(p.SecretFile)
	if err != nil {
		return nil, err
	}
	if len(secret) < secretMin {
		return nil, fmt.Errorf("%s has %d octets, want at least %d", p.SecretFile, len(secret), secretMin)
	}
	return secret, nil
}

// Mode is what a listener does with what comes.
type Mode string

// The modes.
const (
	ModeTCP  Mode = "tcp"
	ModeUDP  Mode = "udp"
	ModeHTTP Mode = "http"
	ModeNAT  Mode = "nat" // the kernel translates addresses
	ModeDSR  Mode = "dsr" // the kernel sends on, instances answer by themselves
)

// Kernel reports whether the kernel forwards, and no socket is listened on.
func (m Mode) Kernel() bool { return m == ModeNAT || m == ModeDSR }

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
	Transparent bool           // tcp
	KeepPort    bool           // tcp

	Certificates []Certificate  // http
	Trusted      []netip.Prefix // http
	AccessLog    bool           // http

	Protocol   Protocol // nat, dsr
	Affinity   Affinity // nat, dsr
	Masquerade bool     // nat
	Interface  string   // dsr
	Attach     Attach   // dsr
}

// Protocol is what a listener of the kernel's modes takes; empty: TCP.
type Protocol string

// The protocols.
const (
	ProtocolTCP Protocol = "tcp"
	ProtocolUDP Protocol = "udp"
)

// Affinity is what of a client decides where it goes; empty: by connection.
type Affinity string

// The affinities.
const (
	AffinityConnection Affinity = "connection"
	AffinityClient     Affinity = "client"
)

// Attach is where the program of mode dsr is attached; empty: auto.
type Attach string

// The places.
const (
	AttachAuto    Attach = "auto"
	AttachNative  Attach = "native"
	AttachGeneric Attach = "generic"
	AttachTCX     Attach = "tcx"
)

// VIP is an address that one of several servers holds.
type VIP struct {
	Address   netip.Prefix // the address with the length of its network's prefix
	Interface string
	Lease     time.Duration // 0: LeaseMin
	Priority  uint8
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

// InstanceTLS is a way of speaking to instances over TLS.
type InstanceTLS struct {
	Name       string
	ServerName string // empty: the service's
	CA         string // absolute; empty: the system's
	Cert, Key  string // absolute; empty: none
	Insecure   bool
}

// Certificate is a certificate chain and its key: as PEM files, absolute, or in the
// registry.
type Certificate struct {
	Cert, Key string
	Secret    string // the name below secrets/certificates/ of the cluster's prefix
}
