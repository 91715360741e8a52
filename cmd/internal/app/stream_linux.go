package app

import (
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
)

// stream is one listener of mode tcp or udp.
type stream struct {
	*unit

	cfg   config.Listener
	proxy *l4.Proxy
}

// buildStream makes a listener of mode tcp or udp. inherited has its sockets, if
// they are there.
func (s *server) buildStream(l *config.Listener, inherited func(name string) *os.File) (*stream, error) {
	ref := func(service string) dispatch.Ref {
		return dispatch.Ref{Source: s.sourceID(l.Zone), Service: service, Port: l.Port, UDP: l.Mode == config.ModeUDP, Tag: l.Tag}
	}
	cfg := l4.Config{
		Name: l.Name, Listen: l.Listen, UDP: l.Mode == config.ModeUDP, Inherited: inherited, Dispatcher: s.proxies.dispatch,
		Log:            s.log.With("part", "proxy", "listener", l.Name),
		ConnectTimeout: l.ConnectTimeout, IdleTimeout: l.IdleTimeout, DrainTimeout: l.DrainTimeout, StopTimeout: l.StopTimeout,
		ConnsMax: l.MaxConnections, ConnsPerClient: l.MaxPerClient, InstanceMax: int64(l.MaxPerInstance),
		ProxyFrom: l.ProxyFrom, ProxyTo: l.ProxyTo, Transparent: l.Transparent, KeepPort: l.KeepPort,
	}
	if l.OnDown == config.DownDrain {
		cfg.OnDown = l4.DownDrain
	}
	if l.Service != "" {
		cfg.Default = ref(l.Service)
	}
	for _, n := range l.Names {
		cfg.Names = append(cfg.Names, l4.NameRoute{Names: n.Names, To: ref(n.Service)})
	}
	p, err := l4.New(cfg)
	if err != nil {
		return nil, err
	}
	return &stream{newUnit(p.Run, p.Close), *l, p}, nil
}

// opaque takes back what a transparent listener has made of a socket.
func opaque(c syscall.Conn) error { return l4.Opaque(c) }

func (st *stream) listen() error        { return st.proxy.Listen() }
func (st *stream) addr() netip.AddrPort { return st.proxy.Addr() }

// sockets are the listener's sockets by name, for a process to follow this one.
func (st *stream) sockets() map[string]syscall.Conn { return st.proxy.Sockets() }

// state is the listener as the API shows it.
func (st *stream) state() api.ProxyListener {
	n := st.proxy.Stats()
	return api.ProxyListener{
		Name: st.cfg.Name, Mode: string(st.cfg.Mode), Address: st.addr().String(), Service: st.cfg.Service,
		Active: n.Active, Taken: n.Accepted, Refused: n.RefusedMax + n.RefusedOne + n.Unserved + n.Unrouted + n.BadHello,
	}
}

// explain says which instance a connection of a client would go to. The name
// that it asks for is the question's Host.
func (st *stream) explain(q admin.ProxyQuestion) api.ProxyExplanation {
	name := ""
	for _, f := range q.Fields {
		if strings.EqualFold(f[0], "Host") {
			name = f[1]
		}
	}
	e := st.proxy.Explain(q.Client, name)
	out := api.ProxyExplanation{
		Listener: st.cfg.Name, Mode: string(st.cfg.Mode), Route: e.Route, Service: e.Ref.Service, Instance: e.Instance,
		Certain: e.Certain, Why: e.Why, Instances: proxyInstances(e.Backend.Instances),
	}
	if e.Instance != "" {
		out.Address = e.Addr.String()
	}
	return out
}

// streamFamilies are about listeners of modes tcp and udp.
func (s *server) streamFamilies() []metrics.Family {
	family := func(name, help string, f func(*l4.Stats) float64) metrics.Family {
		kind := one(name, help, nil).Kind
		return metrics.Family{Name: name, Help: help, Kind: kind, Labels: []string{"listener"}, Collect: func(emit metrics.Emit) {
			for _, st := range s.proxies.now.Load().streams {
				n := st.proxy.Stats()
				emit(f(&n), st.cfg.Name)
			}
		}}
	}
	return []metrics.Family{
		family("muster_proxy_stream_connections", "Open connections (flows).", func(n *l4.Stats) float64 { return float64(n.Active) }),
		family("muster_proxy_stream_accepted_total", "Connections (flows) taken.", func(n *l4.Stats) float64 { return float64(n.Accepted) }),
		family("muster_proxy_stream_retried_total", "Attempts with another instance.", func(n *l4.Stats) float64 { return float64(n.Retried) }),
		family("muster_proxy_stream_refused_total", "Connections (flows) beyond a limit.", func(n *l4.Stats) float64 { return float64(n.RefusedMax + n.RefusedOne) }),
		family("muster_proxy_stream_unserved_total", "Connections (flows) for which no instance could be had.", func(n *l4.Stats) float64 { return float64(n.Unserved + n.Unrouted) }),
		family("muster_proxy_stream_cut_total", "Connections (flows) ended as their instance failed its checks.", func(n *l4.Stats) float64 { return float64(n.Down) }),
		family("muster_proxy_stream_received_bytes_total", "Octets from clients.", func(n *l4.Stats) float64 { return float64(n.BytesIn) }),
		family("muster_proxy_stream_sent_bytes_total", "Octets to clients.", func(n *l4.Stats) float64 { return float64(n.BytesOut) }),
	}
}
