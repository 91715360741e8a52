package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/musterdns/muster/integration/program"
)

// csrc are the programs in C: the echo and the generator.
//
//go:embed csrc/*.c
var csrc embed.FS

// server is one program to be measured.
type server struct {
	name    string
	program string // what must be in PATH; "" for what is built here
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
