package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// The checks of all that have some, and what they share.
const (
	checkInterval = time.Second
	checkFast     = 500 * time.Millisecond // between two while they fail and have not failed often enough
	checkTimeout  = 500 * time.Millisecond
	checkFall     = 2
	checkRise     = 2
	connectLimit  = time.Second
	answerLimit   = 30 * time.Second // where no limit for a try is set
	triesMax      = 4
)

// failoverChoices are the policies that all have; the first is what HAProxy and
// nginx do untold.
var failoverChoices = []string{"round-robin", "least-loaded"}

// failer is a proxy that is to fail over between instances.
type failer struct {
	name    string
	program string // what must be in PATH; "" for Muster
	// start starts it on addr, before instances that run already.
	start func(ctx context.Context, f *failing) error
	// drain takes the first instance out of what is new.
	drain func(ctx context.Context, f *failing) error
}

// failing is one turn of a failer.
type failing struct {
	lab       *fault.Lab
	path      string        // of its program
	addr      string        // where it listens
	try       time.Duration // limit of one try; 0: answerLimit
	choice    string        // of failoverChoices
	instances []byte        // hosts; the first fails
	proc      *program.Process
}

var failers = []failer{
	{"muster", "", startMusterFailing, drainMuster},
	{"haproxy", "haproxy", startHAProxyFailing, drainHAProxy},
	{"nginx", "nginx", startNginxFailing, drainNginx},
}

// startMusterFailing starts an etcd with the service, and Muster before it.
func startMusterFailing(ctx context.Context, f *failing) error {
	e, err := f.lab.Etcd(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	record := fmt.Sprintf(`{"policy":%q,"checks":[{"type":"http","path":"/","interval":%q,"timeout":%q,"fall":%d,"rise":%d}]}`, f.choice, checkInterval, checkTimeout, checkFall, checkRise)
	if _, err := e.Put(ctx, fault.Keys+"services/web", record); err != nil {
		return err
	}
	for n, host := range f.instances {
		if _, err := e.Put(ctx, fault.Instance("web", fmt.Sprintf("web-%d", n)), f.lab.BackendAddr(host).String()); err != nil {
			return err
		}
	}
	more := f.lab.Proxy("web")
	if f.try > 0 {
		more += fmt.Sprintf("  routes: [{name: all, service: web, try_timeout: %s}]\n", f.try)
	}
	s, err := f.lab.Run(ctx, fault.Settings{Etcd: e.URL, More: more})
	if err != nil {
		return err
	}
	f.addr, f.proc = f.lab.HTTPAddr(), s.Process
	return nil
}

func drainMuster(ctx context.Context, f *failing) error {
	_, err := f.lab.CLI(ctx, "drain", "web/web-0")
	return err
}

// limit is that of one try.
func (f *failing) limit() time.Duration {
	if f.try > 0 {
		return f.try
	}
	return answerLimit
}

// startHAProxyFailing configures what HAProxy has for failing over: checks that
// come faster once one has failed, watching what is forwarded, tries at another
// server after whatever may be tried again, and the sessions of a server that
// is marked down ended.
func startHAProxyFailing(ctx context.Context, f *failing) error {
	balance := "roundrobin"
	if f.choice == "least-loaded" {
		balance = "leastconn"
	}
	var servers strings.Builder
	for n, host := range f.instances {
		fmt.Fprintf(&servers, "  server web-%d %s\n", n, f.lab.BackendAddr(host))
	}
	text := fmt.Sprintf(`global
  maxconn 9000
  stats socket %s mode 600 level admin
defaults
  mode http
  timeout connect %dms
  timeout client 60s
  timeout server %dms
  timeout check %dms
  retries %d
  option redispatch 1
  retry-on all-retryable-errors
listen web
  bind %s
  balance %s
  option httpchk GET /
  http-check expect status 200
  default-server check inter %dms fastinter %dms fall %d rise %d observe layer7 error-limit 5 on-error mark-down on-marked-down shutdown-sessions
%s`, f.lab.Path("stats"), connectLimit.Milliseconds(), f.limit().Milliseconds(), checkTimeout.Milliseconds(), triesMax-1,
		f.addr, balance, checkInterval.Milliseconds(), checkFast.Milliseconds(), checkFall, checkRise, &servers)
	return f.run(ctx, text, "-db", "-f")
}

func drainHAProxy(ctx context.Context, f *failing) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", f.lab.Path("stats"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "set server web/web-0 state drain\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if answer = bytes.TrimSpace(answer); err == nil && len(answer) > 0 {
		err = fmt.Errorf("haproxy says %q", answer)
	}
	return err
}

// nginxFailing is nginx's configuration. It has no checks; what its users set
// instead is how many failures take a server out, and for how long.
func (f *failing) nginxFailing(down string) string {
	var servers strings.Builder
	for n, host := range f.instances {
		fmt.Fprintf(&servers, "    server %s max_fails=%d fail_timeout=10s", f.lab.BackendAddr(host), checkFall)
		if n == 0 {
			servers.WriteString(down)
		}
		servers.WriteString(";\n")
	}
	choice := "" // round robin
	if f.choice == "least-loaded" {
		choice = "    least_conn;\n"
	}
	dir := f.lab.Path("nginx")
	return fmt.Sprintf(`daemon off;
worker_processes 1;
pid %[1]s.pid;
error_log /dev/null;
events { worker_connections 9000; }
http {
  access_log off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream web {
%[7]s%[2]s    keepalive 256;
  }
  server {
    listen %[3]s;
    location / {
      proxy_pass http://web;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_connect_timeout %[4]dms;
      proxy_read_timeout %[5]dms;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504;
      proxy_next_upstream_tries %[6]d;
    }
  }
}
`, dir, &servers, f.addr, connectLimit.Milliseconds(), f.limit().Milliseconds(), triesMax, choice)
}

func startNginxFailing(ctx context.Context, f *failing) error {
	return f.run(ctx, f.nginxFailing(""), "-c")
}

// drainNginx marks the server in the configuration, and has it read again.
func drainNginx(_ context.Context, f *failing) error {
	if err := os.WriteFile(f.config(), []byte(f.nginxFailing(" down")), 0o600); err != nil {
		return err
	}
	return f.proc.Signal(syscall.SIGHUP)
}

// config is the configuration of who takes its turn.
func (f *failing) config() string { return f.lab.Path("proxy.conf") }

// run starts the program on a configuration, whose file follows the arguments,
// and waits until it listens.
func (f *failing) run(ctx context.Context, text string, args ...string) error {
	if err := os.WriteFile(f.config(), []byte(text), 0o600); err != nil {
		return err
	}
	var err error
	f.proc, err = f.lab.Start(filepath.Base(f.path), append(append([]string{f.path}, args...), f.config())...)
	if err != nil {
		return err
	}
	return ready(ctx, f.proc, func() error {
		a, err := dialAsker(ctx, f.addr, nil)
		if err != nil {
			return err
		}
		defer a.c.Close()
		_, err = a.get(failoverRequest(0), time.Now().Add(checkTimeout), io.Discard)
		return err
	})
}

// find finds the program of a failer; Muster's is the lab's.
func (p *failer) find() (string, error) {
	if p.program == "" {
		return "", nil
	}
	path, err := program.Find(p.program)
	if err != nil {
		return "", fmt.Errorf("%s takes no part: apt-get install haproxy nginx-light: %w", p.name, err)
	}
	return path, nil
}
