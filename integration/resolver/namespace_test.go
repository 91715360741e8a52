package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
)

// upstreamAddr is where the namespace's server of outside names listens.
const upstreamAddr = "127.0.0.2:53"

// uncached is how long libc, which keeps nothing, may take to see a change that
// the server has confirmed: the time of a few processes on a busy machine, and
// far less than the TTL.
const uncached = 5 * time.Second

// A machine whose resolv.conf names Muster alone: the test runs itself again in
// a network and a mount namespace of its own, where port 53 is free and
// /etc/resolv.conf can be another.
func TestResolvConf_NamesMusterAlone(t *testing.T) {
	if netlab.Inside() {
		testInside(t)
		return
	}
	out, err := netlab.Again(t.Context(), t.Name(), 3*time.Minute)
	if err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	t.Logf("in the namespace:\n%s", out)
}

// testInside is the test in the namespace.
func testInside(t *testing.T) {
	enter(t)
	upstream(t)
	l := newLab(t)
	err := l.Configure(fault.Settings{
		Zones: []string{"{name: 9.10.in-addr.arpa., source: reverse}"},
		More:  fmt.Sprintf("forward: {upstreams: [%q]}\n", upstreamAddr),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Serve("env", "MUSTER_DNS_LISTEN=127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	register(t, l, "one", "10.9.0.1")
	register(t, l, "six", "fd00::6")

	for _, row := range []struct{ name, args, want string }{
		{"a service", "ahostsv4 web.svc.internal", "10.9.0.1"},
		{"a service by the search list", "ahostsv4 web", "10.9.0.1"},
		{"a service in IPv6", "ahostsv6 web.svc.internal", "fd00::6"},
		{"a service in both", "ahosts web.svc.internal", "10.9.0.1 fd00::6"},
		{"an instance", "hosts six.web.svc.internal", "fd00::6"},
		{"an address", "hosts 10.9.0.1", "10.9.0.1"},
		{"a name outside", "ahostsv4 www.example.com", "192.0.2.80"},
		{"a name outside that needs TCP", "ahostsv4 large.example.com", strings.Join(largeAddresses(), " ")},
		{"no name of the zone", "ahosts absent.svc.internal", ""},
		{"no name outside", "ahosts absent.example.com", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := getent(t, row.args, strings.Fields(row.want)...); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("an address has the instance's name", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "getent", "hosts", "10.9.0.1").CombinedOutput()
		if got := strings.Fields(string(out)); err != nil || len(got) != 2 || got[1] != "one.web.svc.internal" {
			t.Errorf("getent hosts 10.9.0.1 prints %q, %v; want one.web.svc.internal", out, err)
		}
	})
	t.Run("changes", func(t *testing.T) { testChanges(t, l) })
}

// testChanges changes what is registered and what is answered.
func testChanges(t *testing.T, l *fault.Lab) {
	for _, row := range []struct {
		name   string
		change []string
		want   []string
	}{
		{"an instance comes", []string{"register", "web", "--id", "two", "--address", "10.9.0.2", "--port", "8080", "--check", "none", "--forever"}, []string{"10.9.0.1", "10.9.0.2"}},
		{"an instance is drained", []string{"drain", "web/one"}, []string{"10.9.0.2"}},
		{"it comes back", []string{"drain", "web/one", "--undo"}, []string{"10.9.0.1", "10.9.0.2"}},
		{"an instance goes", []string{"deregister", "web/two"}, []string{"10.9.0.1"}},
	} {
		run(t, l, row.change...)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), uncached)
		err := fault.Until(ctx, time.Millisecond, func() error { return getent(t, "ahostsv4 web.svc.internal", row.want...) })
		cancel()
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		t.Logf("%s: seen %s after muster %s", row.name, time.Since(began).Round(time.Millisecond), row.change[0])
	}
}

// getent fails unless the addresses that getent prints are those that are
// wanted. Without any, getent must not find the name.
func getent(t *testing.T, args string, want ...string) error {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "getent", strings.Fields(args)...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 2 { // getent(1): a key was not found
		err = nil
	}
	if err != nil {
		return fmt.Errorf("getent %s: %w\n%s", args, err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Fields(line)[0])
	}
	slices.Sort(got)
	got = slices.Compact(got) // a line for each type of socket
	if !slices.Equal(got, want) {
		return fmt.Errorf("getent %s prints the addresses %q, want %q", args, got, want)
	}
	return nil
}

// enter makes the namespace a machine whose resolv.conf names Muster alone.
func enter(t *testing.T) {
	t.Helper()
	ip := find(t, "ip", "iproute2")
	for _, args := range []string{
		"link set lo up",
		// Without an address of a family that is not loopback, getaddrinfo(3)
		// with AI_ADDRCONFIG finds none.
		"address add 192.0.2.1/32 dev lo",
		"address add fd00::1/128 dev lo",
	} {
		if out, err := exec.CommandContext(t.Context(), ip, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"resolv.conf":   "nameserver 127.0.0.1\nsearch svc.internal\noptions timeout:2 attempts:1\n",
		"nsswitch.conf": "hosts: files dns\n",
		"hosts":         "127.0.0.1 localhost\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join("/etc", name)
		if err := syscall.Mount(file, at, "", syscall.MS_BIND, ""); err != nil {
			t.Fatalf("%s cannot be mounted over, there must be one: %v", at, err)
		}
	}
}

// largeAddresses are more than a datagram of 1232 octets holds.
func largeAddresses() []string {
	var out []string
	for i := range 100 {
		out = append(out, fmt.Sprintf("192.0.2.%d", 100+i))
	}
	return out
}

// upstream serves example.com, over UDP and TCP, and denies all other names.
func upstream(t *testing.T) {
	t.Helper()
	records := map[string][]string{"www.example.com.": {"192.0.2.80"}, "large.example.com.": largeAddresses()}
	serve := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		question := q.Question[0]
		addresses, found := records[strings.ToLower(question.Name)]
		if !found {
			m.Rcode = dns.RcodeNameError
		}
		if question.Qtype == dns.TypeA {
			for _, a := range addresses {
				m.Answer = append(m.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(a),
				})
			}
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m) // the client has gone
	})
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: upstreamAddr, Net: network, Handler: serve, NotifyStartedFunc: func() { close(started) }}
		ended := make(chan error, 1)
		go func() { ended <- s.ListenAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = s.Shutdown() // it was started
			<-ended
		})
	}
}
