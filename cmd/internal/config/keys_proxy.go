package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

func proxyKeys() key {
	return under("proxy", "The companion proxy, for clients that do not ask DNS again.", func(c *Config) *Proxy { return &c.Proxy },
		each("listeners", "[]", "Where the proxy takes connections, and for which service. A reload starts, stops and changes listeners of modes tcp, udp and http; those that have not changed keep their connections.",
			func(p *Proxy, v []Listener) { p.Listeners = v }, slices.Concat(listenerKeys(), listenerModeKeys(), kernelKeys())...),
		each("vips", "[]", "Virtual addresses, each held by one of the servers that name it: by a lease in etcd, at /muster/v1/vips/ADDRESS. Listeners of modes nat and dsr at such an address forward only where it is held.",
			func(p *Proxy, v []VIP) { p.VIPs = v },
			must(one("address", "", "The address, with the length of its network's prefix, as 10.0.0.100/24. No interface has it otherwise.", prefixed(),
				func(a *VIP, v netip.Prefix) { a.Address = v })),
			must(one("interface", "", "The interface to have it on.", text(),
				func(a *VIP, v string) { a.Interface = v })),
			one("lease", "", "How long after its holder has died another may take it. Default 5s.", duration(LeaseMin, time.Minute, ""),
				func(a *VIP, v time.Duration) { a.Lease = v }),
			one("priority", "", "Of several servers that could take the address, the one with the highest priority does; from one with a lower it takes it over once it has been there, without a break, for three times the lease. Default 0.", integer(0, 255),
				func(a *VIP, v int) { a.Priority = uint8(v) }),
		),
		each("routes", "[]", "Which HTTP requests go to which service: the most specific host, then the longest path, then the most conditions. A route in etcd (/muster/v1/routes/NAME) goes before one here of the same name.",
			func(p *Proxy, v []registry.Route) { p.Routes = v }, routeKeys()...),
		each("instance_tls", "[]", "Ways of speaking to instances over TLS, for routes to name. The files are read again when they change.",
			func(p *Proxy, v []InstanceTLS) { p.InstanceTLS = v }, instanceTLSKeys()...),
		one("secret_file", `""`, "A file with at least 16 octets that sticky cookies are signed with; servers that share clients share it. Empty: a random secret.", file(""),
			func(p *Proxy, v string) { p.SecretFile = v }),
	)
}

// listenerKeys are the keys of listeners of every mode.
func listenerKeys() []key {
	return []key{
		must(one("name", "", "What routes, logs and metrics call it.", label(),
			func(l *Listener, v string) { l.Name = v })),
		must(one("listen", "", "The address and port; nat and dsr: those that clients connect to, which is often a virtual address.", address(0),
			func(l *Listener, v netip.AddrPort) { l.Listen = v })),
		must(one("mode", "", "What is forwarded: connections (tcp), flows of datagrams (udp), requests (http: HTTP/1.1, HTTP/2, gRPC, WebSocket); or what the kernel takes, without a socket here: by translating addresses (nat), or by sending on to instances that have the address too and answer by themselves (dsr).", oneOf(ModeTCP, ModeUDP, ModeHTTP, ModeNAT, ModeDSR),
			func(l *Listener, v Mode) { l.Mode = v })),
		one("service", "", "The service; http: of requests that match no route, tcp: of names that match none.", serviceNamed(),
			func(l *Listener, v string) { l.Service = v }),
		one("zone", "", "The service zone that services are in. Default: the only one.", domain(""),
			func(l *Listener, v string) { l.Zone = v }),
		one("max_connections", "", "tcp, udp, http: connections (flows) at once. Default: 100,000, http 20,000.", integer(1, 10_000_000),
			func(l *Listener, v int) { l.MaxConnections = v }),
		one("max_per_instance", "", "tcp, udp, http: connections (http: requests) at once to one instance; more go to others, or are refused. Default: any number.", integer(1, 10_000_000),
			func(l *Listener, v int) { l.MaxPerInstance = v }),
		one("connect_timeout", "", "tcp, udp, http: how long connecting to an instance may take. Default: 2s, http 1s.", duration(10*time.Millisecond, time.Minute, ""),
			func(l *Listener, v time.Duration) { l.ConnectTimeout = v }),
		one("idle_timeout", "", "tcp, udp, http: what is silent for so long is ended. Default: tcp 10m, udp 30s, http 1m.", duration(time.Second, 24*time.Hour, ""),
			func(l *Listener, v time.Duration) { l.IdleTimeout = v }),
		one("stop_timeout", "", "tcp, udp, http: how long what is in flight may go on when the server stops, or a reload takes the listener away or changes it. Default: 30s.", duration(time.Second, 24*time.Hour, ""),
			func(l *Listener, v time.Duration) { l.StopTimeout = v }),
	}
}

// listenerModeKeys are those of listeners of some modes.
func listenerModeKeys() []key {
	return []key{
		one("port", "", "All but http: the named port of the instances. Default: their default port.", label(),
			func(l *Listener, v string) { l.Port = v }),
		one("tag", "", "All but http: only instances with this tag.", label(),
			func(l *Listener, v string) { l.Tag = v }),
		one("max_per_client", "", "tcp, udp: connections at once of one client, an IPv4 address or IPv6 /64. Default: any number.", integer(1, 10_000_000),
			func(l *Listener, v int) { l.MaxPerClient = v }),
		one("on_down", "", "tcp, udp: what becomes of connections to an instance whose checks fail: reset at once (the default), or left to end (drain).", oneOf(DownReset, DownDrain),
			func(l *Listener, v OnDown) { l.OnDown = v }),
		one("drain_timeout", "", "tcp, udp: how long connections to a drained or deregistered instance last. Default 0s.", duration(time.Second, 24*time.Hour, "as long as they like"),
			func(l *Listener, v time.Duration) { l.DrainTimeout = v }),
		each("names", "", "tcp: services by the name that a TLS client asks for (SNI); TLS is not ended here.",
			func(l *Listener, v []ListenerName) { l.Names = v },
			must(many("names", "", "Host names; *.example.com is all below it.", hostPattern(),
				func(n *ListenerName, v []string) { n.Names = v })),
			must(one("service", "", "The service.", serviceNamed(),
				func(n *ListenerName, v string) { n.Service = v }))),
		many("proxy_protocol_from", "", "tcp: networks whose connections begin with a PROXY header (version 1 or 2).", network(),
			func(l *Listener, v []netip.Prefix) { l.ProxyFrom = v }),
		one("proxy_protocol_to", "", "tcp: begin connections to instances with a PROXY header, version 2. Default false.", boolean(),
			func(l *Listener, v bool) { l.ProxyTo = v }),
		one("transparent", "", "tcp: keep the client's address towards the instance, and take what was sent to any address (IP_TRANSPARENT). Needs CAP_NET_ADMIN and rules that bring the packets here. Default false.", boolean(),
			func(l *Listener, v bool) { l.Transparent = v }),
		one("keep_port", "", "With transparent: connect to the port that the client asked for. Default false.", boolean(),
			func(l *Listener, v bool) { l.KeepPort = v }),
		certificateKeys("", "http: certificates for TLS, read again when the files change. None: cleartext.",
			func(l *Listener, v []Certificate) { l.Certificates = v }),
		many("trusted", "", "http: networks whose X-Forwarded-For and Forwarded are believed and added to, and whose X-Real-IP and other X-Forwarded- fields are passed on. Everybody else's are replaced or dropped.", network(),
			func(l *Listener, v []netip.Prefix) { l.Trusted = v }),
		one("access_log", "", "http: log a line a request. Default false.", boolean(),
			func(l *Listener, v bool) { l.AccessLog = v }),
	}
}

// LeaseMin is the shortest lease that a VIP can be held by: the kernel takes an
// address away up to 2 s late, and etcd grants no less than 2 s.
const LeaseMin = 5 * time.Second

// kernelKeys are those of listeners that the kernel forwards for.
func kernelKeys() []key {
	return []key{
		one("protocol", "", "nat, dsr: tcp (the default) or udp.", oneOf(ProtocolTCP, ProtocolUDP),
			func(l *Listener, v Protocol) { l.Protocol = v }),
		one("affinity", "", "nat, dsr: each connection goes its own way (connection, the default), or all of a client's address one (client).", oneOf(AffinityConnection, AffinityClient),
			func(l *Listener, v Affinity) { l.Affinity = v }),
		one("masquerade", "", "nat: instances see this machine's address in place of the client's, so that replies come back through it whatever their routes are. Default false.", boolean(),
			func(l *Listener, v bool) { l.Masquerade = v }),
		one("interface", "", "dsr: the interface that clients' packets come in on and that instances are on.", text(),
			func(l *Listener, v string) { l.Interface = v }),
		one("attach", "", "dsr: where the program is attached: native (in the driver), generic or tcx (in the stack), or auto (the default): the first of them that works.", oneOf(AttachAuto, AttachNative, AttachGeneric, AttachTCX),
			func(l *Listener, v Attach) { l.Attach = v }),
	}
}

// addressOnly is the address of one host.
func addressOnly() value[netip.Addr] {
	return value[netip.Addr]{noun: "an address", schema: map[string]any{"type": "string"}, parse: func(s string) (netip.Addr, error) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return netip.Addr{}, errors.New("must be the address of one host, as 10.0.0.100")
		}
		return a.Unmap(), nil
	}}
}

// prefixed is an address with the length of its network's prefix.
func prefixed() value[netip.Prefix] {
	return value[netip.Prefix]{noun: "an address with a prefix length", schema: map[string]any{"type": "string"}, parse: func(s string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() || p.Addr().IsUnspecified() {
			return netip.Prefix{}, errors.New("must be an address with the length of its network's prefix, as 10.0.0.100/24")
		}
		return p, nil
	}}
}

// certificateKeys are a list of certificates.
func certificateKeys[P any](def, doc string, set func(*P, []Certificate)) key {
	return each("certificates", def, doc, set,
		one("cert", "", "A PEM file with the certificate and those that it is signed with.", file(""),
			func(c *Certificate, v string) { c.Cert = v }),
		one("key", "", "A PEM file with its private key.", file(""),
			func(c *Certificate, v string) { c.Key = v }),
		one("secret", "", "In the place of files, the name of a certificate in etcd: the value of CLUSTER_PREFIX/secrets/certificates/NAME is certificate, chain and key in PEM.", label(),
			func(c *Certificate, v string) { c.Secret = v }))
}

// routeKeys are the members of a registry.Route, in the form that it has in etcd
// too.
func routeKeys() []key {
	return append(append([]key{
		must(one("name", "", "What logs and explanations call it.", serviceNamed(),
			func(r *registry.Route, v string) { r.Name = v })),
	}, routeMatchKeys()...), routeTargetKeys()...)
}

// routeMatchKeys say which requests a route is for.
func routeMatchKeys() []key {
	match := func() []key {
		return []key{
			must(one("name", "", "The name.", text(), func(m *registry.RouteMatch, v string) { m.Name = v })),
			one("value", "", "The exact value. Default: any.", text(), func(m *registry.RouteMatch, v string) { m.Value = v }),
		}
	}
	return []key{
		many("listeners", "", "Names of http listeners. Default: all.", label(),
			func(r *registry.Route, v []string) { r.Listeners = v }),
		many("hosts", "", "Host names; *.example.com is all below it. Default: all.", hostPattern(),
			func(r *registry.Route, v []string) { r.Hosts = v }),
		one("path", "", "A path and all below it, by whole segments: /api/users is not /api/users2. Default: all.", text(),
			func(r *registry.Route, v string) { r.Path = v }),
		many("methods", "", "Methods. Default: all.", text(),
			func(r *registry.Route, v []string) { r.Methods = v }),
		each("headers", "", "Header fields that must be there.",
			func(r *registry.Route, v []registry.RouteMatch) { r.Headers = v }, match()...),
		each("query", "", "Query parameters that must be there.",
			func(r *registry.Route, v []registry.RouteMatch) { r.Query = v }, match()...),
	}
}

// routeTargetKeys say where a route's requests go, and how.
func routeTargetKeys() []key {
	return []key{
		must(one("service", "", "The service.", serviceNamed(),
			func(r *registry.Route, v string) { r.Service = v })),
		one("zone", "", "The service zone that it is in. Default: the listener's.", domain(""),
			func(r *registry.Route, v string) { r.Zone = v }),
		one("port", "", "The named port of its instances. Default: their default port.", label(),
			func(r *registry.Route, v string) { r.Port = v }),
		one("tag", "", "Only instances with this tag.", label(),
			func(r *registry.Route, v string) { r.Tag = v }),
		one("tls", "", "Speak to the instances over TLS, in the way of this name in instance_tls (of each server's own configuration, for routes in etcd too). Default: in cleartext.", label(),
			func(r *registry.Route, v string) { r.TLS = v }),
		one("protocol", "", "What is spoken to the instances: http1 (the default) or h2c; with tls: http1, h2, or what the instance agrees to (ALPN), HTTP/2 if it does (the default). gRPC is always HTTP/2.", oneOf("http1", "h2c", "h2"),
			func(r *registry.Route, v string) { r.Protocol = v }),
		one("strip_prefix", "", "Take the path off. Default false.", boolean(),
			func(r *registry.Route, v bool) { r.StripPrefix = v }),
		one("rewrite", "", "Put this in place of the path.", text(),
			func(r *registry.Route, v string) { r.Rewrite = v }),
		one("host", "", "Send this in place of the client's Host.", text(),
			func(r *registry.Route, v string) { r.Host = v }),
		named("set_request", "Header fields to set on requests.", text(),
			func(r *registry.Route, v map[string]string) { r.SetRequest = v }),
		many("remove_request", "", "Header fields to take off requests.", text(),
			func(r *registry.Route, v []string) { r.RemoveRequest = v }),
		named("set_response", "Header fields to set on responses.", text(),
			func(r *registry.Route, v map[string]string) { r.SetResponse = v }),
		many("remove_response", "", "Header fields to take off responses.", text(),
			func(r *registry.Route, v []string) { r.RemoveResponse = v }),
		one("hash_on", "", "What the policy hash goes by: client (the default), cookie:NAME or header:NAME, and client where a request has none.", text(),
			func(r *registry.Route, v string) { r.HashOn = v }),
		one("sticky", "", "Name of a cookie that keeps a client to its instance.", text(),
			func(r *registry.Route, v string) { r.Sticky = v }),
		one("timeout", "", "How long the response may take to begin, all tries together. Default 30s.", duration(time.Millisecond, registry.RouteTimeoutMax, ""),
			func(r *registry.Route, v time.Duration) { r.Timeout = v }),
		one("try_timeout", "", "The same for one try. Default: the whole.", duration(time.Millisecond, registry.RouteTimeoutMax, ""),
			func(r *registry.Route, v time.Duration) { r.TryTimeout = v }),
		one("retries", "", "Further tries, each with another instance. Default 3.", integer(0, registry.RouteRetriesMax),
			func(r *registry.Route, v int) { r.Retries = &v }),
		one("retry_on", "", "What is tried again: error, gateway (error, 502, 503, 504), or 5xx (gateway, 500; the default).", oneOf("error", "gateway", "5xx"),
			func(r *registry.Route, v string) { r.RetryOn = v }),
		one("retry_post", "", "POST and PATCH may be sent twice. Default false.", boolean(),
			func(r *registry.Route, v bool) { r.RetryPost = v }),
		one("body_max", "", "Octets of a request's body. Default 1 GiB.", integer(1, registry.RouteBodyMax),
			func(r *registry.Route, v int) { r.BodyMax = int64(v) }),
		part("limit", "How many requests are taken; more get 429.",
			func(r *registry.Route, v registry.RouteLimit) { r.Limit = &v },
			must(one("rate", "", "A second, on average.", number(0.001, registry.RouteRateMax),
				func(l *registry.RouteLimit, v float64) { l.Rate = v })),
			one("burst", "", "At once. Default: one second's worth.", integer(1, registry.RouteRateMax),
				func(l *registry.RouteLimit, v int) { l.Burst = v }),
			one("by", "", "Of each client (the default), for each value of a field (header:NAME), or of all together (route).", text(),
				func(l *registry.RouteLimit, v string) { l.By = v }),
		),
	}
}

// instanceTLSKeys are the members of one way of speaking to instances over TLS.
func instanceTLSKeys() []key {
	return []key{
		must(one("name", "", "What routes call it.", label(),
			func(t *InstanceTLS, v string) { t.Name = v })),
		one("server_name", "", "The name that instances are asked for (SNI) and must have in their certificate. Default: the service's, as web.svc.internal.", text(),
			func(t *InstanceTLS, v string) { t.ServerName = v }),
		one("ca", "", "A PEM file with those who may sign instances' certificates. Default: whom the system trusts.", file(""),
			func(t *InstanceTLS, v string) { t.CA = v }),
		one("cert", "", "A PEM file with a certificate for instances that ask for one, and those that it is signed with.", file(""),
			func(t *InstanceTLS, v string) { t.Cert = v }),
		one("key", "", "A PEM file with its private key.", file(""),
			func(t *InstanceTLS, v string) { t.Key = v }),
		one("insecure", "", "Take any certificate of an instance: who can stand in between reads and changes everything. Default false.", boolean(),
			func(t *InstanceTLS, v bool) { t.Insecure = v }),
	}
}

// label is a name of one label, in lower case.
func label() value[string] {
	return value[string]{noun: "a name", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		name, err := registry.FoldLabel(s)
		return name, reason(err)
	}}
}

// serviceNamed is a service's name in lower case.
func serviceNamed() value[string] {
	return value[string]{noun: "a service's name", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		name, err := registry.FoldService(s)
		return name, reason(err)
	}}
}

// hostPattern is a host name, or *. before one.
func hostPattern() value[string] {
	return value[string]{noun: "a host name", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		rest, wild := strings.CutPrefix(s, "*.")
		name, err := registry.FoldService(strings.TrimSuffix(rest, "."))
		if err != nil {
			return "", errors.New("must be a host name, or *. before one")
		}
		if wild {
			name = "*." + name
		}
		return name, nil
	}}
}
