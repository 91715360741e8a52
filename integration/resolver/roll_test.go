package resolver_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// roller is a server whose zones are signed and whose key is being rolled, and the
// parent zone, which it serves too.
type roller struct {
	t          *testing.T
	lab        *fault.Lab
	host, port string
	serial     int
}

const rolled = "live.test"

func newRoller(t *testing.T) *roller {
	t.Helper()
	r := &roller{t: t, lab: newLab(t)}
	r.keys("generate")
	r.parent(r.keys("ds"))
	s, err := r.lab.Run(t.Context(), fault.Settings{Zones: []string{
		fmt.Sprintf("{name: %s, source: muster, prefix: /live/v1, dnssec: %q}", rolled, r.lab.Path("keys")),
		fmt.Sprintf("{name: test, file: %q}", r.lab.Path("test.zone")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, r.lab, "register", "web", "--zone", rolled, "--id", "one", "--address", "10.9.0.1", "--port", "8080", "--check", "none", "--forever")
	if r.host, r.port, err = net.SplitHostPort(s.DNS); err != nil {
		t.Fatal(err)
	}
	return r
}

// keys runs a verb of muster keys.
func (r *roller) keys(verb string, args ...string) string {
	r.t.Helper()
	out, err := r.lab.CLI(r.t.Context(), append([]string{"keys", verb, "--zone", rolled, "--dir", r.lab.Path("keys")}, args...)...)
	if err != nil {
		r.t.Fatalf("muster keys %s: %v", verb, err)
	}
	return out
}

// parent writes the parent zone.
func (r *roller) parent(ds string) {
	r.t.Helper()
	r.serial++
	write(r.t, r.lab.Path("test.zone"), fmt.Sprintf("$TTL 1\n@ SOA ns1 hostmaster %d 60 10 86400 1\n@ NS ns1\nns1 A 127.0.0.1\nlive NS ns1\n%s", r.serial, ds))
}

// await waits until the records of a type are those.
func (r *roller) await(typ string, want ...string) {
	r.t.Helper()
	dig := find(r.t, "dig", "bind9-dnsutils")
	slices.Sort(want)
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := fault.Until(ctx, 50*time.Millisecond, func() error {
		out, err := exec.CommandContext(ctx, dig, "@"+r.host, "-p", r.port, "+short", "+norec", rolled, typ).CombinedOutput()
		got := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out), " ", "")), "\n")
		slices.Sort(got)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s is %q, want %q", typ, got, want)
		}
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
}

// TestKeys_Roll goes through the roll of a key. At each step a resolver that knows the
// old key alone, where there may be one, and one that knows the new, must believe what
// it is answered.
func TestKeys_Roll(t *testing.T) {
	r := newRoller(t)
	delv, settime := find(t, "delv", "bind9-dnsutils"), find(t, "dnssec-settime", "bind9-utils")
	rdata := func(line string) string { // as dig +short has it, without blanks
		return strings.Join(strings.Fields(strings.SplitN(strings.SplitN(line, ";", 2)[0], " ", 4)[3]), "")
	}
	valid := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			for _, q := range [][2]string{{"web." + rolled, "A"}, {"nope." + rolled, "A"}, {rolled, "DNSKEY"}, {rolled, "CDS"}} {
				if err := validate(t, delv, r.host, r.port, key, q[0], q[1]); err != nil {
					t.Error(err)
				}
			}
		}
	}
	list := func() []string { return strings.Split(strings.TrimSpace(r.keys("list")), "\n") }
	older := list()[0]
	r.await("DNSKEY", rdata(older))
	valid(older)

	r.keys("roll")
	both := list()
	newer := both[0]
	if rdata(newer) == rdata(older) {
		newer = both[1]
	}
	r.await("DNSKEY", rdata(older), rdata(newer))
	r.await("CDS", "") // resolvers may not know it yet
	valid(older, newer)
	if out, err := r.lab.CLI(t.Context(), "keys", "roll", "--zone", rolled, "--dir", r.lab.Path("keys")); err == nil {
		t.Errorf("a second roll begins: %s", out)
	}

	// An hour later, as BIND's tool has it.
	_, file, _ := strings.Cut(newer, "tag ")
	file = strings.TrimSuffix(strings.Fields(file)[1], ".private;")
	if out, err := exec.CommandContext(t.Context(), settime, "-P", "sync", "-1mi", file).CombinedOutput(); err != nil {
		t.Fatalf("dnssec-settime: %v\n%s", err, out)
	}
	var ds string
	for line := range strings.Lines(r.keys("ds")) {
		if strings.Contains(newer, fmt.Sprintf("tag %s,", strings.Fields(line)[3])) {
			ds = line
		}
	}
	r.await("CDS", rdata(strings.TrimSpace(ds)))
	r.await("CDNSKEY", rdata(newer))
	valid(older, newer)

	server := net.JoinHostPort(r.host, r.port)
	if out, err := r.lab.CLI(t.Context(), "keys", "retire", "--zone", rolled, "--dir", r.lab.Path("keys"), "--server", server); err == nil {
		t.Errorf("the old key ends before the parent has the new one: %s", out)
	}
	r.parent(ds)
	r.await("DS", rdata(strings.TrimSpace(ds)))
	r.keys("retire", "--server", server, "--ds-ttl", "2s")
	r.await("DNSKEY", rdata(newer))
	valid(newer)
}
