package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// csrc are the programs in C: the echo and the generator.
//
//go:embed csrc/*.c
var csrc embed.FS

// server is one program to be measured.
type server struct {
	name    string
	program string // what must be in PATH, or a path; "" for what is built here, or is not to be had
	mend    string // how to get it
	answers bool   // it answers from the data; the echo does not
	// argv writes the configuration below dir and returns the command.
	argv func(l *lab, dir string, port int) ([]string, error)
}

// servers are all that can take part; the first is the base of the ratios.
var servers = []server{
	{name: "echo", argv: echoCommand},
	{name: "muster", answers: true, argv: musterCommand},
	{name: "knot", program: "knotd", mend: "apt-get install knot", answers: true, argv: knotCommand},
	{name: "nsd", program: "nsd", mend: "apt-get install nsd", answers: true, argv: nsdCommand},
	{name: "gdnsd", program: "gdnsd", mend: "apt-get install gdnsd", answers: true, argv: gdnsdCommand},
	{name: "bind", program: "named", mend: "apt-get install bind9", answers: true, argv: namedCommand},
	{name: "pdns", program: "pdns_server", mend: "apt-get install pdns-server pdns-backend-bind", answers: true, argv: pdnsCommand},
	{name: "coredns", program: os.Getenv("COREDNS"), mend: "name its binary in COREDNS", answers: true, argv: corednsCommand},
}

// write writes files, by name, below dir.
func write(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func echoCommand(l *lab, _ string, port int) ([]string, error) {
	return []string{l.echo, fmt.Sprint(port)}, nil
}

// musterCommand serves the zone from etcd with one worker, like the others.
func musterCommand(l *lab, dir string, port int) ([]string, error) {
	admin, err := program.FreePort()
	if err != nil {
		return nil, err
	}
	l.admin = fmt.Sprintf("127.0.0.1:%d", admin)
	err = write(dir, map[string]string{"muster.yaml": fmt.Sprintf(`log: {level: warn}
dns: {listen: ["127.0.0.1:%d"], workers: 1}
zones:
  - {name: %s., source: muster, prefix: /muster/v1, ttl: %ds}
registry:
  mode: etcd
  etcd: {endpoints: [%q]}
  snapshot: "off"
admin: {listen: %q}
`, port, zoneName, ttl, l.etcd, l.admin)})
	return []string{l.muster, "serve", "--config", filepath.Join(dir, "muster.yaml")}, err
}

func knotCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{"knot.conf": fmt.Sprintf(`server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: %[1]s
log:
  - target: stderr
    any: warning
template:
  - id: default
    storage: %[1]s
    journal-content: none
    zonefile-sync: -1
zone:
  - domain: %[3]s
    file: zone
`, dir, port, zoneName), "zone": l.data.zoneFile()})
	return []string{l.programs["knotd"], "-c", filepath.Join(dir, "knot.conf")}, err
}

func nsdCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{"nsd.conf": fmt.Sprintf(`server:
    server-count: 1
    ip-address: 127.0.0.1@%[2]d
    username: ""
    chroot: ""
    database: ""
    zonesdir: %[1]q
    xfrdir: %[1]q
    pidfile: "%[1]s/nsd.pid"
    xfrdfile: "%[1]s/xfrd.state"
    zonelistfile: "%[1]s/zone.list"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: %[3]q
    zonefile: "zone"
`, dir, port, zoneName), "zone": l.data.zoneFile()})
	return []string{l.programs["nsd"], "-d", "-c", filepath.Join(dir, "nsd.conf")}, err
}

func gdnsdCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{"config": fmt.Sprintf(`options => {
  listen => 127.0.0.1:%d
  udp_threads => 1
  tcp_threads => 1
  run_dir => %s/run
  state_dir => %s/state
  min_ttl => 1
}
`, port, dir, dir), "zones/" + zoneName: l.data.zoneFile()})
	return []string{l.programs["gdnsd"], "-c", dir, "start"}, err
}

func namedCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{"named.conf": fmt.Sprintf(`options {
	directory %[1]q; listen-on port %[2]d { 127.0.0.1; }; listen-on-v6 { none; };
	pid-file none; session-keyfile none; recursion no; minimal-responses yes; querylog no;
};
controls { };
zone %[3]q { type primary; file "zone"; };
`, dir, port, zoneName), "zone": l.data.zoneFile()})
	return []string{l.programs["named"], "-g", "-n", "1", "-U", "1", "-c", filepath.Join(dir, "named.conf")}, err
}

// pdnsCommand has the packet cache, as its package does.
func pdnsCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{
		"bind.conf": fmt.Sprintf("options { directory %q; };\nzone %q { type master; file \"zone\"; };\n", dir, zoneName),
		"zone":      l.data.zoneFile(),
	})
	return []string{
		l.programs["pdns_server"], "--no-config", "--daemon=no", "--guardian=no", "--launch=bind", "--bind-config=" + filepath.Join(dir, "bind.conf"),
		"--local-address=127.0.0.1", fmt.Sprintf("--local-port=%d", port), "--socket-dir=" + dir, "--receiver-threads=1", "--distributor-threads=1",
		"--disable-syslog=yes", "--loglevel=3",
	}, err
}

func corednsCommand(l *lab, dir string, port int) ([]string, error) {
	err := write(dir, map[string]string{
		"Corefile": fmt.Sprintf("%s:%d {\n\tbind 127.0.0.1\n\tfile zone\n}\n", zoneName, port), "zone": l.data.zoneFile(),
	})
	return []string{"/usr/bin/env", "-C", dir, "GOMAXPROCS=1", l.programs[os.Getenv("COREDNS")], "-conf", "Corefile"}, err
}

// The same over streams: TLS at port l.dot, HTTPS at l.doh where they have it.

// certificate is where the certificate and the key are.
func (l *lab) certificate() (cert, key string) {
	return filepath.Join(l.dir, fault.CertFile), filepath.Join(l.dir, fault.KeyFile)
}

func musterStreams(l *lab, dir string, port int) ([]string, error) {
	argv, err := musterCommand(l, dir, port)
	if err != nil {
		return nil, err
	}
	cert, key := l.certificate()
	return argv, replace(filepath.Join(dir, "muster.yaml"), "workers: 1", fmt.Sprintf("workers: 1, tls: [\"127.0.0.1:%d\"], https: [\"127.0.0.1:%d\"], certificates: [{cert: %q, key: %q}]", l.dot, l.doh, cert, key))
}

func nsdStreams(l *lab, dir string, port int) ([]string, error) {
	argv, err := nsdCommand(l, dir, port)
	if err != nil {
		return nil, err
	}
	cert, key := l.certificate()
	return argv, replace(filepath.Join(dir, "nsd.conf"), "    username", fmt.Sprintf("    ip-address: 127.0.0.1@%d\n    tls-port: %d\n    tls-service-pem: %q\n    tls-service-key: %q\n    username", l.dot, l.dot, cert, key))
}

func namedStreams(l *lab, dir string, port int) ([]string, error) {
	argv, err := namedCommand(l, dir, port)
	if err != nil {
		return nil, err
	}
	cert, key := l.certificate()
	file := filepath.Join(dir, "named.conf")
	if err := replace(file, "listen-on-v6", fmt.Sprintf("listen-on port %d tls own { 127.0.0.1; }; listen-on port %d tls own http own { 127.0.0.1; }; listen-on-v6", l.dot, l.doh)); err != nil {
		return nil, err
	}
	return argv, replace(file, "controls", fmt.Sprintf("tls own { cert-file %q; key-file %q; };\nhttp own { endpoints { \"/dns-query\"; }; };\ncontrols", cert, key))
}

func corednsStreams(l *lab, dir string, port int) ([]string, error) {
	argv, err := corednsCommand(l, dir, port)
	if err != nil {
		return nil, err
	}
	cert, key := l.certificate()
	text := fmt.Sprintf("%[1]s:%[2]d {\n\tbind 127.0.0.1\n\tfile zone\n}\n"+
		"tls://%[1]s:%[3]d {\n\tbind 127.0.0.1\n\ttls %[5]s %[6]s\n\tfile zone\n}\n"+
		"https://%[1]s:%[4]d {\n\tbind 127.0.0.1\n\ttls %[5]s %[6]s\n\tfile zone\n}\n", zoneName, port, l.dot, l.doh, cert, key)
	return argv, os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text), 0o600)
}

// replace replaces a text that a file has once.
func replace(file, from, to string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.Count(string(text), from) != 1 {
		return fmt.Errorf("%s: %q does not stand there once", file, from)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), from, to, 1)), 0o600)
}
