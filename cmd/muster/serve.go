package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/musterdns/muster/cmd/internal/app"
	"github.com/musterdns/muster/cmd/internal/cli"
	"github.com/musterdns/muster/cmd/internal/handover"
)

// serve runs a server and, for muster dev, says what to try.
func serve(ctx context.Context, o cli.ServeOptions) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	upgrade, stop := handover.Signal()
	defer stop()
	sockets, err := handover.Inherited()
	if err != nil {
		return err
	}
	opt := app.Options{
		Config: o.Config, Load: o.Reload, Dev: o.Dev, Version: o.Version, Stderr: o.Stderr,
		Reload: hangup, Upgrade: upgrade, Sockets: sockets,
	}
	if o.Dev {
		opt.Started = func(e app.Endpoints) { greet(o.Stdout, e) }
	}
	return app.Run(ctx, opt)
}

// greet says on the terminal of muster dev where things are and what to try.
func greet(w io.Writer, e app.Endpoints) {
	at := "@127.0.0.1"
	if a, err := netip.ParseAddrPort(e.DNS[0]); err == nil {
		at = fmt.Sprintf("@%s -p %d", a.Addr(), a.Port())
	}
	fmt.Fprintf(w, `
  DNS   %s (UDP and TCP), zone %s
  API   %s
  etcd  %s

  dig %s +short web.svc.internal
  dig %s +short _http._tcp.web.svc.internal SRV
  muster demo kill web-1 && muster explain web
  etcdctl --endpoints %s put /muster/v1/instances/hello/one 10.0.0.11:8080

`, strings.Join(e.DNS, ", "), strings.Join(e.Zones, ", "), e.Admin, strings.Join(e.Etcd, ", "), at, at, e.Etcd[0])
}
