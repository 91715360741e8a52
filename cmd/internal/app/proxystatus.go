package app

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/lb/l7/http1"
)

// proxyState is the companion proxy as the API shows it.
func (s *server) proxyState() api.Proxy {
	out := api.Proxy{Listeners: []api.ProxyListener{}, Routes: []api.ProxyRoute{}, Services: []api.ProxyService{}}
	for _, st := range s.proxies.now.Load().streams {
		out.Listeners = append(out.Listeners, st.state())
	}
	for _, h := range s.proxies.now.Load().http {
		st := h.proxy.Stats()
		out.Listeners = append(out.Listeners, api.ProxyListener{
			Name: h.cfg.Name, Mode: string(h.cfg.Mode), Address: h.addr().String(), Service: h.cfg.Service,
			Active: int64(st.Connections), Taken: st.Accepted, Refused: st.Overflow + st.Refused + st.Limited,
		})
	}
	out.Listeners = append(out.Listeners, s.proxies.kernel.states()...)
	out.VIPs = s.proxies.kernel.vipStates()
	lists := s.routeLists()
	for _, r := range mergeRoutes(lists) {
		source := "configuration"
		if r.Revision != 0 {
			source = "etcd"
		}
		out.Routes = append(out.Routes, api.ProxyRoute{
			Name: r.Name, Hosts: r.Hosts, Path: r.Path, Service: r.Service, Zone: r.Zone, Source: source, Problem: s.routeProblem(r.Name),
		})
	}
	infos := s.proxies.dispatch.Info()
	s.proxies.kernel.carried(infos)
	for i := range infos {
		out.Services = append(out.Services, s.proxyService(&infos[i]))
	}
	return out
}

// proxyService is one service as the proxy sees it.
func (s *server) proxyService(info *dispatch.Info) api.ProxyService {
	out := api.ProxyService{
		Zone: s.zoneOf(info), Service: info.Ref.Service, Policy: info.Policy, Active: info.Active, Instances: proxyInstances(info.Instances),
	}
	if info.Policy != "" {
		out.Mode = api.Mode(info.Mode.String())
	}
	out.Part = partOf(info.Ref)
	return out
}

// partOf is which instances of its service a Ref is of; empty: all.
func partOf(r dispatch.Ref) string {
	switch {
	case r.Port != "" && r.UDP:
		return "port " + r.Port + "/udp"
	case r.Port != "":
		return "port " + r.Port
	case r.Tag != "":
		return "tag " + r.Tag
	default:
		return ""
	}
}

// zoneOf is the zone of a service.
func (s *server) zoneOf(info *dispatch.Info) string {
	for i := range s.sources {
		if s.sources[i].etcd.ID() == info.Ref.Source {
			return s.sources[i].zone
		}
	}
	return ""
}

func proxyInstances(list []dispatch.InstanceInfo) []api.ProxyInstance {
	out := make([]api.ProxyInstance, 0, len(list))
	for i := range list {
		in := &list[i]
		out = append(out, api.ProxyInstance{
			ID: in.ID, Address: in.Addr, In: in.In, Share: in.Share, Active: in.Active, Total: in.Total, Failures: in.Failures, Ejections: in.Ejections,
			BytesIn: in.BytesIn, BytesOut: in.BytesOut, Ejected: in.Ejected, Why: in.Why,
		})
	}
	return out
}

// addr is where the listener listens.
func (h *httpProxy) addr() netip.AddrPort {
	a, err := netip.ParseAddrPort(h.proxy.Addr(h.cfg.Name).String())
	if err != nil {
		return h.cfg.Listen
	}
	return a
}

// explainProxy says which way a request or connection would take. A target is
// a URL, or a listener by its name or address.
func (s *server) explainProxy(q admin.ProxyQuestion) (api.ProxyExplanation, error) {
	u, err := url.Parse(q.Target)
	if err == nil && u.Host != "" {
		return s.explainURL(q, u)
	}
	if addr, err := netip.ParseAddrPort(q.Target); err == nil {
		for _, h := range s.proxies.now.Load().http {
			if sameListener(h.addr(), addr) {
				return s.explainHTTP(h, q, "http://"+q.Target+"/")
			}
		}
	}
	for _, h := range s.proxies.now.Load().http {
		if h.cfg.Name == q.Target {
			return s.explainHTTP(h, q, "http://"+h.addr().String()+"/")
		}
	}
	if e, found, err := s.explainConnection(q); found {
		return e, err
	}
	return api.ProxyExplanation{}, fmt.Errorf("%q is neither a URL nor a listener; there are %s", q.Target, strings.Join(s.listenerNames(), ", "))
}

// explainConnection says which way a connection to a listener that reads no HTTP
// would take; found is false if the target is none, by name or address.
func (s *server) explainConnection(q admin.ProxyQuestion) (e api.ProxyExplanation, found bool, err error) {
	addr, err := netip.ParseAddrPort(q.Target)
	for _, st := range s.proxies.now.Load().streams {
		if st.cfg.Name == q.Target || err == nil && sameListener(st.addr(), addr) {
			return st.explain(q), true, nil
		}
	}
	return s.proxies.kernel.explain(q)
}

// sameListener reports whether a connection to an address comes to a listener.
func sameListener(bound, to netip.AddrPort) bool {
	return bound == to || bound.Addr().IsUnspecified() && bound.Port() == to.Port()
}

// addressOf is where a client of a URL connects to, if its host is an address.
func addressOf(u *url.URL) (netip.AddrPort, bool) {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	addr, err := netip.ParseAddrPort(net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	return addr, err == nil
}

// explainURL finds the listener that a URL's host and port lead to, or else the
// first that its scheme fits, as behind a name in DNS.
func (s *server) explainURL(q admin.ProxyQuestion, u *url.URL) (api.ProxyExplanation, error) {
	var fits *httpProxy
	addr, isAddress := addressOf(u)
	for _, h := range s.proxies.now.Load().http {
		if isAddress && sameListener(h.addr(), addr) {
			return s.explainHTTP(h, q, q.Target)
		}
		if fits == nil && (u.Scheme == "https") == (h.certificates != nil) {
			fits = h
		}
	}
	if isAddress {
		at := q
		at.Target = addr.String()
		if e, found, err := s.explainConnection(at); found {
			return e, err
		}
	}
	if fits == nil {
		return api.ProxyExplanation{}, fmt.Errorf("no http listener takes %s; there are %s", u.Scheme, strings.Join(s.listenerNames(), ", "))
	}
	return s.explainHTTP(fits, q, q.Target)
}

func (s *server) listenerNames() []string {
	names := []string{}
	for _, l := range s.proxyState().Listeners {
		names = append(names, l.Name)
	}
	return names
}

func (s *server) explainHTTP(h *httpProxy, q admin.ProxyQuestion, target string) (api.ProxyExplanation, error) {
	ask := l7.Question{Listener: h.cfg.Name, Method: q.Method, URL: target, Client: q.Client}
	for _, f := range q.Fields {
		ask.Fields = append(ask.Fields, http1.NewField(f[0], f[1]))
	}
	e, err := h.proxy.Explain(ask)
	if err != nil {
		return api.ProxyExplanation{}, err
	}
	out := api.ProxyExplanation{
		Listener: e.Listener, Mode: string(config.ModeHTTP), Route: e.Route, Service: e.Service, Target: e.Target, Protocol: e.Protocol,
		Instance: e.Instance, Certain: e.Certain, Limited: e.Limited, Why: e.Why, Instances: proxyInstances(e.Instances),
	}
	if e.Instance != "" {
		out.Address = e.Address.String()
	}
	for _, c := range e.Considered {
		name := c.Name
		if name == "~"+h.cfg.Name { // l7's name of the listener's own service
			name = "of the listener itself"
		}
		out.Considered = append(out.Considered, api.ProxyCandidate{Route: name, Why: cmp.Or(c.Reason, "taken")})
	}
	return out, nil
}
