package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
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
		Config: o.Config, Load: o.Reload, Dev: o.Dev, Proxy: o.Proxy, Version: o.Version, Stderr: o.Stderr,
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
	muster, addr, zone, proxy := command(), "", "svc.internal", "none"
	if len(e.Proxy) > 0 {
		proxy = e.Proxy[0]
	}
	if e.Admin != cli.DefaultAddr {
		addr = " --addr " + e.Admin
	}
	if len(e.Zones) > 0 {
		zone = strings.TrimSuffix(e.Zones[0], ".")
	}
	fmt.Fprintf(w, `
  DNS   %[1]s (UDP and TCP), zone %[2]s
  API   %[3]s
  etcd  %[4]s
  proxy %[10]s

  dig %[5]s +short web.%[6]s
  dig %[5]s +short _http._tcp.web.%[6]s SRV
  curl http://%[10]s/
  %[7]s demo kill web-1%[8]s && %[7]s explain web%[8]s
  etcdctl --endpoints %[9]s put /muster/v1/instances/hello/one 10.0.0.11:8080

`, strings.Join(e.DNS, ", "), strings.Join(e.Zones, ", "), e.Admin, strings.Join(e.Etcd, ", "), at, zone, muster, addr, e.Etcd[0], proxy)
}

// command is what this program is started with: its name, where the PATH leads
// to it, or else its path.
func command() string {
	self, err := os.Executable()
	if err != nil {
		return "muster"
	}
	if found, err := exec.LookPath("muster"); err == nil {
		a, errA := os.Stat(found)
		b, errB := os.Stat(self)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return "muster"
		}
	}
	if wd, err := os.Getwd(); err == nil {
		if below, ok := strings.CutPrefix(self, wd+"/"); ok {
			return "./" + below
		}
	}
	return self
}
