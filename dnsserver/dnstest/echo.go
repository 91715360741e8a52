package dnstest

import (
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// Echo answers with the IPv4 address of the client.
type Echo struct{}

// ServeDNS implements dnsserver.Handler.
func (Echo) ServeDNS(b *wire.Builder, _ *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	b.A(wire.Answer, wire.RefQName, 1, from.Addr.Addr().As4())
	return dnsserver.Send
}
