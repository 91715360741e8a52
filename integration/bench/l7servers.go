package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/musterdns/muster/integration/program"
)

// peerProxy is one program that proxies.
type peerProxy struct {
	name    string
	program string // what must be in PATH; "" for Muster
	mend    string // how to get it
	// start starts it on c.addr before an instance, sets c.proc, and returns all
	// that it has started.
	start func(ctx context.Context, c *l7Contender, path, dir, instance string) ([]*program.Process, error)
}

// httpProxies are all that can take part; the first is the base of the ratios.
var httpProxies = []peerProxy{
	{"nginx", "nginx", "apt-get install nginx-light", configured("nginx.conf", nginxText, "-c")},
	{"haproxy", "haproxy", "apt-get install haproxy", configured("haproxy.cfg", haproxyText, "-db", "-f")},
	{"caddy", "caddy", "apt-get install caddy", configured("Caddyfile", caddyText, "run", "--adapter", "caddyfile", "--config")},
	{"muster", "", "", startMuster("http")},
}

// bothFile has a certificate and its key, in the directory above a proxy's own.
const bothFile = "both.pem"

// configured starts a program with a configuration file whose text has places
// for a directory, an address to listen on, an instance, the port of that
// address, and an address to speak TLS at, in this order. The
// file's name follows the arguments.
func configured(file, text string, args ...string) func(context.Context, *l7Contender, string, string, string) ([]*program.Process, error) {
	return func(_ context.Context, c *l7Contender, path, dir, instance string) ([]*program.Process, error) {
		_, port, err := net.SplitHostPort(c.addr)
		if err != nil {
			return nil, err
		}
		if err := write(dir, map[string]string{file: fmt.Sprintf(text, dir, c.addr, instance, port, c.secure)}); err != nil {
			return nil, err
		}
		argv := append([]string{"env", "HOME=" + dir, path}, args...)
		p, err := start(serverCore, c.name, append(argv, filepath.Join(dir, file))...)
		if err != nil {
			return nil, err
		}
		c.proc = p
		return []*program.Process{p}, nil
	}
}

const nginxText = `# port %[4]s
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log /dev/null;
events { worker_connections 20000; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream web { server %[3]s; keepalive 256; keepalive_requests 1000000000; }
  ssl_certificate %[1]s/../both.pem; ssl_certificate_key %[1]s/../both.pem;
  server {
    listen %[2]s; listen %[5]s ssl;
    location / {
      proxy_pass http://web;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }
  }
}
`

const haproxyText = `# %[1]s, port %[4]s
global
  nbthread 1
  maxconn 9100
  maxpipes 128
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
  option splice-auto
frontend web
  bind %[2]s
  bind %[5]s ssl crt %[1]s/../both.pem
  default_backend web
backend web
  server a %[3]s
`

const caddyText = `# %[1]s
{
	admin off
	auto_https off
	log {
		level ERROR
	}
}
http://shop.example.com:%[4]s {
	bind 127.0.0.1 # %[2]s
	reverse_proxy %[3]s
}
`

// startMuster starts Muster with a listener of a mode before a service, and
// registers the instance there.
func startMuster(mode string) func(context.Context, *l7Contender, string, string, string) ([]*program.Process, error) {
	return func(ctx context.Context, c *l7Contender, path, dir, instance string) ([]*program.Process, error) {
		return serveInstance(ctx, mode, c, path, dir, instance)
	}
}

func serveInstance(ctx context.Context, mode string, c *l7Contender, path, dir, instance string) ([]*program.Process, error) {
	var ports [3]int
	for i := range ports {
		port, err := program.FreePort()
		if err != nil {
			return nil, err
		}
		ports[i] = port
	}
	admin := fmt.Sprintf("127.0.0.1:%d", ports[0])
	listeners := fmt.Sprintf("{name: web, listen: %q, mode: %s, service: web}", c.addr, mode)
	if mode == "http" {
		both := filepath.Join(dir, "..", bothFile)
		listeners += fmt.Sprintf(", {name: secure, listen: %q, mode: http, service: web, certificates: [{cert: %q, key: %q}]}", c.secure, both, both)
	}
	file := filepath.Join(dir, "muster.yaml")
	if err := write(dir, map[string]string{"muster.yaml": fmt.Sprintf(`log: {level: warn}
dns: {listen: ["127.0.0.1:%d"], workers: 1}
zones: [{name: svc.internal., source: muster}]
registry: {mode: embedded, embedded: {dir: %q, listen: "127.0.0.1:%d"}, snapshot: "off"}
proxy: {listeners: [%s]}
admin: {listen: %q}
`, ports[1], filepath.Join(dir, "etcd"), ports[2], listeners, admin)}); err != nil {
		return nil, err
	}
	p, err := start(serverCore, c.name, path, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	c.proc = p
	host, port, err := net.SplitHostPort(instance)
	if err == nil {
		_, err = strconv.Atoi(port)
	}
	if err != nil {
		return []*program.Process{p}, err
	}
	if err := ready(ctx, p, func() error {
		_, err := call(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		return err
	}); err != nil {
		return []*program.Process{p}, err
	}
	// It holds the registration while it runs.
	r, err := start(loadCore, "register", path, "register", "web", "--addr", admin, "--address", host, "--port", port)
	if err != nil {
		return []*program.Process{p}, err
	}
	return []*program.Process{p, r}, nil
}
