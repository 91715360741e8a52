// Command coredns is CoreDNS with the few plugins that forward to Muster or answer
// from etcd, for the tests in integration/resolver, which build it, and with the one
// that answers from a zone file, for make bench-dns, over TLS too. It is a module of its own, so that
// Muster does not depend on CoreDNS, and small, so that it builds within a minute.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/etcd"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/tls"
)

func main() { coremain.Run() }
