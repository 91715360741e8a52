package resolver_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// TestSignatures_AgeIsTold: a file that is signed already is served as it is; that its
// signatures are about to expire, or have, is told before and after.
func TestSignatures_AgeIsTold(t *testing.T) {
	dir := t.TempDir()
	exe := func(program string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	write(t, filepath.Join(dir, "still"), presigned)
	exe(find(t, "dnssec-keygen", "bind9-utils"), "-a", "ECDSAP256SHA256", "-f", "KSK", "still.test")
	now := time.Now().UTC()
	sign := func(since, until time.Duration) {
		at := func(d time.Duration) string { return now.Add(d).Format("20060102150405") }
		exe(find(t, "dnssec-signzone", "bind9-utils"), "-P", "-z", "-S", "-s", at(since), "-e", at(until), "-o", "still.test", "-f", "signed", "still")
	}
	const day = 24 * time.Hour
	sign(-day, 6*day)
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{Zones: []string{fmt.Sprintf("{name: still.test, file: %q}", filepath.Join(dir, "signed"))}})
	if err != nil {
		t.Fatal(err)
	}
	told := func(until time.Duration, want string, ill bool) {
		t.Helper()
		var out string
		err := s.Poll(t.Context(), func() error {
			at, err := s.Metric(t.Context(), "muster_dns_signatures_expire_timestamp_seconds")
			if err == nil && int64(at) != now.Add(until).Unix() {
				err = fmt.Errorf("they expire at %d, want %d", int64(at), now.Add(until).Unix())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err = l.CLI(t.Context(), "doctor")
		if (err != nil) != ill || strings.Contains(out, "signature") != (want != "") || !strings.Contains(out, want) {
			t.Errorf("muster doctor: %v, want %q in\n%s", err, want, out)
		}
	}
	told(6*day, "", false)
	for _, tt := range []struct {
		since, until time.Duration
		want         string
		ill          bool
	}{
		{-6 * day, day, "expires at", false},
		{-6 * day, -day, "has expired", true},
		{-day, 7 * day, "", false},
	} {
		sign(tt.since, tt.until)
		if err := s.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		told(tt.until, tt.want, tt.ill)
	}
}

// TestSignatures_StayWhenTheirKeyIsGone: what was signed by it is served on, a signed zone
// is never served without signatures, and that the key is missing is told.
func TestSignatures_StayWhenTheirKeyIsGone(t *testing.T) {
	l := newLab(t)
	keys := l.Path("keys")
	for _, zone := range []string{"live.test", "still.test"} {
		run(t, l, "keys", "generate", "--zone", zone, "--dir", keys)
	}
	write(t, l.Path("still.zone"), signedStill)
	s, err := l.Run(t.Context(), fault.Settings{Zones: []string{
		fmt.Sprintf("{name: live.test, source: muster, prefix: /live/v1, dnssec: %q}", keys),
		fmt.Sprintf("{name: still.test, file: %q, dnssec: %q}", l.Path("still.zone"), keys),
	}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, "register", "web", "--zone", "live.test", "--id", "one", "--address", "10.9.0.1", "--port", "8080", "--check", "none", "--forever")
	signed := func(when string) {
		t.Helper()
		for _, name := range []string{"www.still.test.", "nope.still.test.", "web.live.test.", "nope.live.test."} {
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeA)
			m.SetEdns0(1232, true)
			r, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeContext(t.Context(), m, s.DNS)
			if err != nil {
				t.Fatal(err)
			}
			good := 0
			for _, rr := range append(r.Answer, r.Ns...) {
				if sig, ok := rr.(*dns.RRSIG); ok && sig.ValidityPeriod(time.Now()) {
					good++
				}
			}
			if good == 0 || r.Rcode == dns.RcodeServerFailure {
				t.Errorf("%s: %s has no good signature:\n%s", when, name, r)
			}
		}
	}
	signed("with its keys")
	if err := os.Rename(keys, keys+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := s.Logged(t.Context(), "ERROR", "still.test", "keys"); err != nil {
		t.Fatal(err)
	}
	signed("without them")
	if out, err := l.CLI(t.Context(), "doctor"); err == nil || !strings.Contains(out, "still.test") || !strings.Contains(out, "live.test") {
		t.Errorf("muster doctor: %v, want both zones named and exit code 1:\n%s", err, out)
	}
	if err := os.Rename(keys+".gone", keys); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := s.Poll(t.Context(), func() error { _, err := l.CLI(t.Context(), "doctor"); return err }); err != nil {
		t.Errorf("with the keys again: %v", err)
	}
	signed("with its keys again")
}
