package resolver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
)

// world is an internet in network and mount namespaces: servers of the root and of
// city., both signed, and two servers of one registry, to whom zones below city. are
// delegated. The addresses are of no networks for special purposes, which resolvers and
// suites treat otherwise, and the two servers' of networks of their own.
type world struct {
	t      *testing.T
	lab    *fault.Lab
	serial int
	ds     map[string]string // of the signed zones below city., by their names
}

// The zones of the two servers.
const (
	liveSigned  = "live.city."
	livePlain   = "plain.city."
	stillSigned = "still.city."
	stillPlain  = "flat.city."
)

// The hosts of the world: addresses of those who serve the root and city., and of the two
// servers.
var (
	worldRoots   = []string{"45.1.0.1", "45.2.0.1", "2a45:1::1", "2a45:2::1"}
	worldServers = [2][2]string{{"46.2.0.1", "2a46:2::1"}, {"47.3.0.1", "2a47:3::1"}}
)

// worldStill is a static zone with what proofs are needed for.
const worldStill = `$TTL 3600
@ SOA ns1 hostmaster.mail.city. 1 14400 3600 604800 300
@ NS ns1
@ NS ns2
@ MX 10 mail.city.
` + worldGlue + `www A 10.8.0.1
*.wild A 10.8.0.2
chain CNAME link
link CNAME www
a.b.ent TXT "x"
sub NS ns.sub
ns.sub A 192.0.2.99
`

// worldGlue are the addresses of a zone's name servers.
const worldGlue = `ns1 A 46.2.0.1
ns1 AAAA 2a46:2::1
ns2 A 47.3.0.1
ns2 AAAA 2a47:3::1
`

// newWorld makes the world; the test is run in namespaces of its own.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, lab: newLab(t), ds: map[string]string{}}
	ip := find(t, "ip", "iproute2")
	w.command(ip, "link", "set", "lo", "up")
	addresses := append([]string{}, worldRoots...)
	for _, s := range worldServers {
		addresses = append(addresses, s[:]...)
	}
	for _, a := range addresses {
		w.command(ip, "address", "add", a, "dev", "lo", "nodad")
	}
	w.ds["."], w.ds["city."] = w.keys(".", "generate"), w.keys("city.", "generate")
	w.ds[liveSigned], w.ds[stillSigned] = w.keys(liveSigned, "generate", "--cds"), w.keys(stillSigned, "generate", "--cds")
	w.serve()
	return w
}

func (w *world) command(argv ...string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// keys runs a verb of muster keys, and returns what it prints.
func (w *world) keys(zone, verb string, args ...string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), w.lab.Binary, append([]string{"keys", verb, "--zone", zone, "--dir", w.lab.Path("keys")}, args...)...).Output()
	if err != nil {
		w.t.Fatalf("muster keys %s %s: %v", verb, zone, err)
	}
	return string(out)
}

// serve starts the servers and waits until they answer.
func (w *world) serve() {
	w.t.Helper()
	root := fmt.Sprintf("$TTL 3600\n@ SOA a.root. hostmaster.mail.city. 1 14400 3600 604800 300\n@ NS a.root.\n@ NS b.root.\n%scity. NS a.city.\ncity. NS b.city.\n%s%s", worldRootGlue("root."), worldRootGlue("city."), w.ds["city."])
	write(w.t, w.lab.Path("root.zone"), root)
	write(w.t, w.lab.Path("hints"), ". 3600 NS a.root.\n. 3600 NS b.root.\n"+worldRootGlue("root."))
	w.city()
	w.networks()
	write(w.t, w.lab.Path("still.zone"), worldStill)
	w.start("root", worldRoots, `{mode: embedded, snapshot: "off", embedded: {dir: `+w.lab.Path("root")+`, listen: "127.0.0.2:2379"}}`,
		fmt.Sprintf("{name: ., file: root.zone, dnssec: keys}, {name: city., file: city.zone, dnssec: keys}, {name: arpa., file: arpa.zone}, {name: %s, file: asn.zone}", asnZone))
	for i, registry := range []string{
		`{mode: embedded, snapshot: "off", embedded: {dir: ` + w.lab.Path("etcd") + `, listen: "127.0.0.1:2379"}}`,
		`{mode: etcd, snapshot: "off", etcd: {endpoints: ["http://127.0.0.1:2379"]}}`,
	} {
		const apex = "name_servers: [{name: ns1.%[1]s, addresses: [46.2.0.1, 2a46:2::1]}, {name: ns2.%[1]s, addresses: [47.3.0.1, 2a47:3::1]}], soa: {mailbox: hostmaster@mail.city}"
		w.start(fmt.Sprintf("server%d", i+1), worldServers[i][:], registry, fmt.Sprintf(
			"{name: %s, source: muster, dnssec: keys, %s}, {name: %s, source: muster, prefix: /plain, %s}, {name: %s, file: still.zone, dnssec: keys}, {name: %s, file: still.zone}",
			liveSigned, fmt.Sprintf(apex, liveSigned), livePlain, fmt.Sprintf(apex, livePlain), stillSigned, stillPlain))
	}
}

// worldRootGlue are the addresses of those who serve the root and city., by names in each.
func worldRootGlue(zone string) string {
	return fmt.Sprintf("a.%[1]s 3600 A %[2]s\nb.%[1]s 3600 A %[3]s\na.%[1]s 3600 AAAA %[4]s\nb.%[1]s 3600 AAAA %[5]s\n", zone, worldRoots[0], worldRoots[1], worldRoots[2], worldRoots[3])
}

// city writes the zone that has the delegations, with the DS records there are.
func (w *world) city() {
	w.serial++
	var b strings.Builder
	fmt.Fprintf(&b, "$TTL 3600\n@ SOA a hostmaster.mail %d 14400 3600 604800 300\n@ NS a\n@ NS b\n@ MX 10 mail\nmail A 45.1.0.1\nmail MX 10 mail\n%s", w.serial, worldRootGlue("city."))
	for _, zone := range []string{liveSigned, livePlain, stillSigned, stillPlain} {
		fmt.Fprintf(&b, "$ORIGIN %[1]s\n@ NS ns1\n@ NS ns2\n%[2]s%[3]s", zone, worldGlue, w.ds[zone])
	}
	write(w.t, w.lab.Path("city.zone"), b.String())
}

// asnZone is where Zonemaster asks for the numbers of the autonomous systems that
// addresses are in.
const asnZone = "asnlookup.zonemaster.net."

// networks writes what is said of the servers' addresses: their names and systems.
func (w *world) networks() {
	head := "$TTL 3600\n@ SOA a.city. hostmaster.mail.city. 1 14400 3600 604800 300\n@ NS a.city.\n"
	arpa, asn := strings.Builder{}, strings.Builder{}
	arpa.WriteString(head)
	asn.WriteString(head)
	for i, s := range worldServers {
		for _, a := range s {
			reverse, err := dns.ReverseAddr(a)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, zone := range []string{liveSigned, livePlain, stillSigned, stillPlain} {
				fmt.Fprintf(&arpa, "%s PTR ns%d.%s\n", reverse, i+1, zone)
			}
			bits := 16
			name := strings.NewReplacer(".in-addr.arpa.", ".origin", ".ip6.arpa.", ".origin6").Replace(reverse)
			fmt.Fprintf(&asn, "%s TXT \"%d | %s | SE | ripencc | 2010-01-01\"\n", name, 64600+i, netip.PrefixFrom(netip.MustParseAddr(a), bits).Masked())
		}
	}
	write(w.t, w.lab.Path("arpa.zone"), arpa.String())
	write(w.t, w.lab.Path("asn.zone"), asn.String())
}

// start starts a server and waits until it answers.
func (w *world) start(name string, addresses []string, registry, zones string) {
	w.t.Helper()
	var listen []string
	for _, a := range addresses {
		listen = append(listen, fmt.Sprintf("%q", net.JoinHostPort(a, "53")))
	}
	admin := map[string]string{"root": "127.0.0.3", "server1": "127.0.0.1", "server2": "127.0.0.2"}[name] + ":8653"
	file := w.lab.Path(name + ".yaml")
	// Everybody asks from few addresses, and much.
	write(w.t, file, fmt.Sprintf("node: %s\ndns: {listen: [%s], rate_limit: {per_second: 0}}\nadmin: {listen: %q}\nregistry: %s\nzones: [%s]\n", name, strings.Join(listen, ", "), admin, registry, zones))
	p, err := w.lab.Start(name, w.lab.Binary, "serve", "--config", file)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Poll(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", r.Status)
		}
		return nil
	}); err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, p.Output())
	}
}

// post writes by the API of the first of the two servers.
func (w *world) post(ctx context.Context, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:8653/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", path, text, r.Status)
	}
	return nil
}

// register registers an instance.
func (w *world) register(ctx context.Context, zone, service, id, address string) error {
	return w.post(ctx, "register", map[string]any{"zone": zone, "service": service, "id": id, "instance": map[string]any{
		"addresses": []string{address}, "port": 8080, "ports": map[string]int{"http": 8080}, "tags": []string{"v2"},
	}})
}

// deregister takes an instance out.
func (w *world) deregister(ctx context.Context, zone, service, id string) error {
	return w.post(ctx, "deregister", map[string]any{"zone": zone, "service": service, "instance": id})
}

// inWorld runs a test in namespaces of its own.
func inWorld(t *testing.T, limit time.Duration, test func(*world)) {
	t.Helper()
	if netlab.Inside() {
		test(newWorld(t))
		return
	}
	if out, err := netlab.Again(t.Context(), t.Name(), limit); err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	} else {
		t.Logf("in the namespace:\n%s", out)
	}
}
