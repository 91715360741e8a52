//go:build linux

package l4_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l4"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// childVariable names the instance that this program proxies to when it runs as
// a process of its own, childListen where that is to listen, transparently.
const (
	childVariable = "L4_PROXY_TO"
	childListen   = "L4_PROXY_TRANSPARENT"
)

// child is that process: it prints its address and serves until its input ends.
func child(to string) error {
	p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: "svc.internal."}}}})
	if err != nil {
		return err
	}
	d, err := dispatch.New(dispatch.Config{Pool: p})
	if err != nil {
		return err
	}
	listen, err := netip.ParseAddrPort(os.Getenv(childListen))
	if err != nil {
		return err
	}
	proxy, err := l4.New(l4.Config{
		Name: "child", Listen: listen, Dispatcher: d, Default: web, Transparent: true, KeepPort: true, StopTimeout: time.Nanosecond,
	})
	if err != nil {
		return err
	}
	if err := proxy.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{p.Run, d.Run, proxy.Run} {
		go func() { done <- run(ctx) }()
	}
	a := netip.MustParseAddrPort(to)
	in := registry.Instance{Service: "web", ID: "a", Weight: 1, Port: a.Port(), Incarnation: 1, Addresses: []netip.Addr{a.Addr()}}
	if err := p.Sink(ctx)(registry.Batch{Source: 1, Revision: 1, Reset: true, AsOf: time.Now(), Instances: []registry.Instance{in}}); err != nil {
		return err
	}
	published := p.Published()
	for p.View().Find(1, pool.WireName("web")) == nil {
		<-published
		published = p.Published()
	}
	fmt.Fprintln(os.Stdout, proxy.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	for range 3 {
		if e := <-done; e != nil && !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
	}
	return err
}
