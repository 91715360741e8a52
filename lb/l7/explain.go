package l7

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
	"github.com/musterdns/muster/lb/l7/route"
)

// Question is a request that is asked about.
type Question struct {
	Listener string // its name; empty: the first
	Method   string // empty: GET
	URL      string // with a host: "http://shop.example.com/cart?id=1"
	Fields   []http1.Field
	Client   netip.Addr // zero: 127.0.0.1
}

// Explanation says which way a request would take, and why.
type Explanation struct {
	Listener   string
	Considered []route.Considered // routes whose host and path match, in the order in which they are tried
	Route      string             // empty: none matches
	Service    string
	Target     string // what the instance would be asked for
	Protocol   string // HTTP/1.1, HTTP/2 or either, and whether with TLS
	Instance   string // empty: none may be served
	Address    netip.AddrPort
	// Certain says that it would be this instance; else chance or the load
	// decides, and Instances has their shares.
	Certain   bool
	Instances []dispatch.InstanceInfo
	Limited   bool // the route's limit would refuse it now
	Why       string
}

// Explain says which route, service and instance a request would take and why,
// without taking them: nothing is counted, limited or sent.
func (p *Proxy) Explain(q Question) (Explanation, error) {
	l := p.listeners[0]
	for _, other := range p.listeners {
		if other.cfg.Name == q.Listener {
			l = other
		}
	}
	if q.Listener != "" && l.cfg.Name != q.Listener {
		return Explanation{}, fmt.Errorf("explaining a request: there is no listener %q", q.Listener)
	}
	u, err := url.Parse(q.URL)
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining a request: %w", err)
	}
	client := q.Client
	if !client.IsValid() {
		client = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	x := exchange{listener: l, hop: newHop(l, netip.AddrPortFrom(client, 0)), begun: time.Now()}
	x.req = http1.Request{Method: q.Method, Host: u.Host, Path: u.EscapedPath(), Query: u.RawQuery, Fields: q.Fields}
	if x.req.Method == "" {
		x.req.Method = "GET"
	}
	if x.req.Path == "" {
		x.req.Path = "/"
	}
	return p.explain(&x)
}

func (p *Proxy) explain(x *exchange) (Explanation, error) {
	e := Explanation{Listener: x.listener.cfg.Name}
	routing := x.listener.routing.Load()
	ask := &route.Request{Method: x.req.Method, Host: x.req.Host, Path: x.req.Path, Query: x.req.Query, Fields: x.req.Fields}
	var err error
	if e.Considered, err = routing.table.Explain(ask); err != nil {
		e.Why = "400: " + err.Error()
		return e, nil //nolint:nilerr // it is what the request would be told
	}
	i, _ := routing.table.Match(ask) // fails as Explain does
	if i < 0 {
		e.Why = "404: no route matches the host, the path and the conditions"
		return e, nil
	}
	t := routing.targets[i]
	x.target = t
	x.identify()
	e.Route, e.Service, e.Target = strings.TrimPrefix(t.route.Name, "~"), t.route.Service, route.Target(t.route, x.req.Path)
	if x.req.Query != "" {
		e.Target += "?" + x.req.Query
	}
	switch {
	case t.protocol == protocolHTTP2 || isGRPC(x.req.Fields):
		e.Protocol = "HTTP/2"
	case t.protocol == protocolALPN:
		e.Protocol = "HTTP/2 or HTTP/1.1"
	default:
		e.Protocol = "HTTP/1.1"
	}
	if t.route.TLS != "" {
		e.Protocol += " with TLS as " + t.route.TLS
	}
	e.Limited = t.rate != nil && !t.rate.limiter.Would(t.rate.key(x), x.begun)
	e.Instance, e.Address, e.Certain = t.backend.d.Preview(p.choice(x))
	e.Instances = t.backend.d.Info().Instances
	switch {
	case e.Instance == "":
		e.Why = "503: " + t.backend.d.Describe()
	case e.Instance == x.sticky:
		e.Why = "the client's cookie keeps it to " + e.Instance
	case e.Certain:
		e.Why = "the policy's choice: " + t.backend.d.Describe()
	default:
		e.Why = "by chance or load: " + t.backend.d.Describe()
	}
	return e, nil
}
