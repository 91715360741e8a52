//go:build linux

package l4

import (
	"net/netip"

	"github.com/musterdns/muster/lb/dispatch"
)

// Explanation says where a connection would go now.
type Explanation struct {
	Route    string // the entry of Config.Names that matches, or "default"
	Ref      dispatch.Ref
	Instance string // its id; empty: none may be served
	Addr     netip.AddrPort
	// Certain says that the next such connection goes there; otherwise chance or
	// what is in flight decides, and Instance is what the policy has first.
	Certain bool
	Why     string        // what there is to choose from, in a sentence
	Backend dispatch.Info // each instance with its share, and why it is in or out
}

// Explain says which instance a client would get now and why; name is that of
// its ClientHello (empty: none). It changes nothing.
func (p *Proxy) Explain(client netip.Addr, name string) Explanation {
	b, route := p.routes.find(canonical(name))
	if b == nil {
		return Explanation{Certain: true, Why: "no route for the name " + name}
	}
	e := Explanation{Route: route, Ref: b.Ref(), Why: b.Describe(), Backend: b.Info()}
	e.Instance, e.Addr, e.Certain = b.Preview(dispatch.Request{Hash: dispatch.HashAddr(client), Client: client})
	return e
}
