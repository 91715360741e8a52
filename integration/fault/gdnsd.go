package fault

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// GdnsdIntervalMin is the least interval between gdnsd's checks: its timeout, a second
// at least, must be less.
const GdnsdIntervalMin = 2 * time.Second

// Gdnsd is a gdnsd that checks addresses.
type Gdnsd struct {
	Listen   netip.AddrPort
	Plugin   string // http_status or tcp_connect
	Port     int    // of the targets
	Interval int    // seconds
	Fall     int    // failures until an address is down; 0: gdnsd's default
	// Resources are lists of 64 addresses at most. With a TTL, seconds, laneN of the
	// lab's zone has the addresses of the N-th that are up.
	Resources [][]netip.Addr
	TTL       int
}

// Command writes the configuration below dir and returns the command that runs it.
func (g *Gdnsd) Command(dir string) ([]string, error) {
	path, err := program.Find("gdnsd")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install gdnsd)", err)
	}
	zones := filepath.Join(dir, "zones")
	if err := os.MkdirAll(zones, 0o750); err != nil {
		return nil, err
	}
	if g.TTL > 0 {
		var b strings.Builder
		fmt.Fprintf(&b, "@ %[1]d SOA ns1 hostmaster 1 60 10 86400 %[1]d\n@ %[1]d NS ns1\nns1 %[1]d A %[2]s\n", g.TTL, g.Listen.Addr())
		for i := range g.Resources {
			fmt.Fprintf(&b, "%s %d DYNA multifo!r%d\n", laneService(i), g.TTL, i)
		}
		if err := os.WriteFile(filepath.Join(zones, strings.TrimSuffix(Zone, ".")), []byte(b.String()), 0o600); err != nil {
			return nil, err
		}
	}
	return []string{path, "-c", dir, "start"}, os.WriteFile(filepath.Join(dir, "config"), []byte(g.config(dir)), 0o600)
}

// config is the configuration: an address that has come back is up at its first check
// that passes.
func (g *Gdnsd) config(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "options => { listen => %s, run_dir => %[2]s/run, state_dir => %[2]s/state, min_ttl => 1 }\n", g.Listen, dir)
	more := ""
	if g.Plugin == "http_status" {
		more = "url_path => /, ok_codes => [ 200 ],"
	}
	fmt.Fprintf(&b, "service_types => { s => { plugin => %s, port => %d, %s interval => %d, timeout => %d, up_thresh => 1, ok_thresh => 1, down_thresh => %d } }\n",
		g.Plugin, g.Port, more, g.Interval, max(g.Interval/2, 1), cmp.Or(g.Fall, 10))
	b.WriteString("plugins => { multifo => {\n")
	for i, addrs := range g.Resources {
		fmt.Fprintf(&b, "r%d => { service_types => s, up_thresh => 0.01,", i)
		for k, addr := range addrs {
			fmt.Fprintf(&b, " a%d => %s,", k, addr)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("} }\n")
	return b.String()
}
