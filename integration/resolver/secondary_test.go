package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// secret is the key that Muster and its secondaries share.
const secret = "c2VjcmV0IG9mIHRoaXJ0eS10d28gb2N0ZXRzLCBtb3I="

// secondaries are name servers that take zones over, with their configuration: for
// the port to listen at, a directory, the primary's address and port, and the secret.
var secondaries = []struct {
	name, program, debian string
	conf                  string
	args                  func(conf string) []string
}{
	{"BIND", "named", "bind9", `options { directory %[2]q; listen-on port %[1]s { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none; recursion no; };
controls { };
key "key1" { algorithm hmac-sha256; secret %[5]q; };
zone "live.test" { type secondary; primaries port %[4]s { %[3]s key key1; }; file "live.db"; };
zone "still.test" { type secondary; primaries port %[4]s { %[3]s key key1; }; file "still.db"; };
`, func(conf string) []string { return []string{"-g", "-c", conf} }},
	{"Knot", "knotd", "knot", `server:
    listen: 127.0.0.1@%[1]s
    rundir: %[2]q
database:
    storage: %[2]q
key:
  - id: key1
    algorithm: hmac-sha256
    secret: %[5]q
remote:
  - id: primary
    address: %[3]s@%[4]s
    key: key1
acl:
  - id: told
    address: %[3]s
    key: key1
    action: notify
template:
  - id: default
    storage: %[2]q
zone:
  - domain: live.test
    master: primary
    acl: told
  - domain: still.test
    master: primary
    acl: told
`, func(conf string) []string { return []string{"-c", conf} }},
	{"NSD", "nsd", "nsd", `server:
    ip-address: 127.0.0.1@%[1]s
    username: ""
    chroot: ""
    pidfile: ""
    zonesdir: %[2]q
    database: ""
    xfrdfile: ""
    xfrdir: %[2]q
    zonelistfile: "%[2]s/zone.list"
    server-count: 1
remote-control:
    control-enable: no
key:
    name: key1
    algorithm: hmac-sha256
    secret: %[5]q
zone:
    name: live.test
    request-xfr: %[3]s@%[4]s key1
    allow-notify: %[3]s key1
zone:
    name: still.test
    request-xfr: %[3]s@%[4]s key1
    allow-notify: %[3]s key1
`, func(conf string) []string { return []string{"-d", "-c", conf} }},
}

// still is a static zone with a serial number and an address for www.
const still = "$TTL 60\n@ SOA ns1 hostmaster %d 60 10 86400 60\n@ NS ns1\nns1 A 192.0.2.1\nwww A %s\n"

// transferable has a key, whose file is to be named, by which every zone may be had.
const transferable = "keys: [{name: key1, secret_file: %q}]\naccess: [{zone: \"*\", allow: [127.0.0.0/8]}, {transfer: \"*\", tsig: key1}]\n"

// toTell is a port for each of the secondaries, and the configuration of a zone that
// tells them of changes.
func toTell(t *testing.T) (ports []string, notify string) {
	t.Helper()
	var addrs []string
	for range secondaries {
		ports = append(ports, freePort(t))
		addrs = append(addrs, fmt.Sprintf("%q", "127.0.0.1:"+ports[len(ports)-1]))
	}
	return ports, fmt.Sprintf("notify: [%s], notify_tsig: key1", strings.Join(addrs, ", "))
}

// follow starts the secondaries of a primary.
func follow(t *testing.T, ports []string, host, port string) []*program.Process {
	t.Helper()
	var running []*program.Process
	for i, sec := range secondaries {
		dir := t.TempDir()
		conf := filepath.Join(dir, "conf")
		write(t, conf, fmt.Sprintf(sec.conf, ports[i], dir, host, port, secret))
		p, err := program.Start(sec.name, append([]string{find(t, sec.program, sec.debian)}, sec.args(conf)...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		running = append(running, p)
	}
	return running
}

func TestSecondaries_FollowAChangingZone(t *testing.T) {
	l := newLab(t)
	ports, notify := toTell(t)
	write(t, l.Path("key1"), secret)
	write(t, l.Path("still.zone"), fmt.Sprintf(still, 1, "192.0.2.7"))
	s, err := l.Run(t.Context(), fault.Settings{
		Zones: []string{
			"{name: live.test, source: muster, prefix: /live/v1, " + notify + "}",
			fmt.Sprintf("{name: still.test, file: %q, %s}", l.Path("still.zone"), notify),
		},
		More: fmt.Sprintf(transferable, l.Path("key1")),
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(id, address string) {
		t.Helper()
		run(t, l, "register", "web", "--zone", "live.test", "--id", id, "--address", address, "--port", "8080", "--check", "none", "--forever")
	}
	put("one", "10.9.0.1")
	host, port, err := net.SplitHostPort(s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	running := follow(t, ports, host, port)
	dig := find(t, "dig", "bind9-dnsutils")
	steps := []struct {
		what   string
		change func()
		name   string
		want   []string
	}{
		{"the zone as it is", func() {}, "web.live.test", []string{"10.9.0.1"}},
		{"an instance that comes", func() { put("two", "10.9.0.2") }, "web.live.test", []string{"10.9.0.1", "10.9.0.2"}},
		{"an instance that is drained", func() { run(t, l, "drain", "web/one", "--zone", "live.test") }, "web.live.test", []string{"10.9.0.2"}},
		{"an instance by its own name", func() {}, "one.web.live.test", []string{"10.9.0.1"}},
		{"the last that goes", func() { run(t, l, "deregister", "web/two", "--zone", "live.test") }, "two.web.live.test", nil},
		{"a static zone", func() {}, "www.still.test", []string{"192.0.2.7"}},
		{"a static zone that is changed", func() { write(t, l.Path("still.zone"), fmt.Sprintf(still, 2, "192.0.2.8")) }, "www.still.test", []string{"192.0.2.8"}},
	}
	for _, step := range steps {
		step.change()
		for i, sec := range secondaries {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			err := fault.Until(ctx, 20*time.Millisecond, func() error {
				out, err := exec.CommandContext(ctx, dig, "@127.0.0.1", "-p", ports[i], "+short", "+norec", step.name).CombinedOutput()
				got := strings.Fields(string(out))
				slices.Sort(got)
				if err == nil && !slices.Equal(got, step.want) {
					err = fmt.Errorf("it answers %q, want %q", got, step.want)
				}
				return err
			})
			cancel()
			if err != nil {
				t.Fatalf("%s: %s: %v\n%s", sec.name, step.what, err, running[i].Output())
			}
		}
	}
	if out, err := exec.CommandContext(t.Context(), dig, "@"+host, "-p", port, "+short", "live.test", "AXFR").CombinedOutput(); err == nil && !strings.Contains(string(out), "Transfer failed") {
		t.Errorf("without the key the zone is transferred:\n%s", out)
	}
}

// TestSecondaries_FollowASignedZone has secondaries take over the signatures of a static
// zone, and new ones when a key is rolled though nobody has touched its serial number.
// So have they a signed service zone's, which its own server makes when it is asked.
func TestSecondaries_FollowASignedZone(t *testing.T) {
	l := newLab(t)
	ports, notify := toTell(t)
	write(t, l.Path("key1"), secret)
	write(t, l.Path("still.zone"), fmt.Sprintf(still, 1, "192.0.2.7"))
	keys := func(verb, zone string) string {
		t.Helper()
		out, err := l.CLI(t.Context(), "keys", verb, "--zone", zone, "--dir", l.Path("keys"))
		if err != nil {
			t.Fatalf("muster keys %s: %v", verb, err)
		}
		return out
	}
	keys("generate", "live.test")
	keys("generate", "still.test")
	older := strings.TrimSpace(keys("list", "still.test"))
	s, err := l.Run(t.Context(), fault.Settings{
		Zones: []string{
			fmt.Sprintf("{name: live.test, source: muster, prefix: /live/v1, dnssec: %q, %s}", l.Path("keys"), notify),
			fmt.Sprintf("{name: still.test, file: %q, dnssec: %q, %s}", l.Path("still.zone"), l.Path("keys"), notify),
		},
		More: fmt.Sprintf(transferable, l.Path("key1")),
	})
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	running := follow(t, ports, host, port)
	delv, dig := find(t, "delv", "bind9-dnsutils"), find(t, "dig", "bind9-dnsutils")
	valid := func(key string, names ...string) {
		t.Helper()
		for i, sec := range secondaries {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			err := fault.Until(ctx, 50*time.Millisecond, func() error {
				var all error
				for _, name := range names {
					all = errors.Join(all, validate(t, delv, "127.0.0.1", ports[i], key, name, "A"))
				}
				return all
			})
			cancel()
			if err != nil {
				t.Fatalf("%s: %v\n%s", sec.name, err, running[i].Output())
			}
		}
	}
	valid(older, "www.still.test", "nope.still.test")
	keys("roll", "still.test")
	for key := range strings.Lines(keys("list", "still.test")) {
		valid(strings.TrimSpace(key), "www.still.test", "nope.still.test")
	}
	t.Run("a service zone, with NSEC", func(t *testing.T) {
		live := strings.TrimSpace(keys("list", "live.test"))
		for i, id := range []string{"one", "two"} {
			run(t, l, "register", "web", "--zone", "live.test", "--id", id, "--address", fmt.Sprintf("10.9.0.%d", i+1), "--port", "8080", "--check", "none", "--forever")
			valid(live, id+".web.live.test", "web.live.test", "nope.live.test", "a.b.nope.live.test", "live.test")
		}
		out, err := exec.CommandContext(t.Context(), dig, "@"+host, "-p", port, "-y", "hmac-sha256:key1:"+secret, "+onesoa", "+nocomments", "+nocmd", "+nostats", "live.test", "AXFR").Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		zone := l.Path("transferred")
		var records strings.Builder
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, ";") && !strings.Contains(line, "\tTSIG\t") {
				records.WriteString(line)
			}
		}
		write(t, zone, records.String())
		if out, err := exec.CommandContext(t.Context(), find(t, "ldns-verify-zone", "ldnsutils"), zone).CombinedOutput(); err != nil {
			t.Errorf("the zone as it is transferred: %v\n%s", err, out)
		}
		if now := serialOf(t, dig, host, port); now < uint32(time.Now().UTC().Truncate(24*time.Hour).Unix()) {
			t.Errorf("its serial number is %d, below the day's beginning, by which it is signed", now)
		}
	})
}

// serialOf is the serial number that a server has of live.test.
func serialOf(t *testing.T, dig, host, port string) uint32 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), dig, "@"+host, "-p", port, "+short", "live.test", "SOA").Output()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) != 7 {
		t.Fatalf("%v: %q", err, out)
	}
	n, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
