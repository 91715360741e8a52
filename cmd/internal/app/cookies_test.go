package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/registry/etcd/embedded"
)

// cookie asks r for nothing but its cookie, and returns the response code and the
// cookie (RFC 7873 section 5.4).
func (r *running) cookie(t *testing.T, sent string) (string, string) {
	t.Helper()
	m := new(dns.Msg).SetEdns0(1232, false)
	m.Id = dns.Id()
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: sent}}
	resp, _, err := (&dns.Client{Timeout: patience}).ExchangeContext(t.Context(), m, r.DNS[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range resp.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			return dns.RcodeToString[resp.Rcode], c.Cookie
		}
	}
	t.Fatalf("no cookie in\n%s", resp)
	return "", ""
}

const clientCookie = "2464c4abcf10c957"

// TestRun_shares_the_secret_of_cookies: RFC 9018 section 1. Servers of one
// registry come to take each other's cookies.
func TestRun_shares_the_secret_of_cookies(t *testing.T) {
	store, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	text := fmt.Sprintf(`
dns: {listen: ["127.0.0.1:0"]}
admin: {listen: "127.0.0.1:0"}
registry: {mode: etcd, etcd: {endpoints: [%q]}}
`, store.URL())
	one, other := start(t, text, "", false), start(t, text, "", false)
	deadline := time.After(patience)
	for {
		_, given := one.cookie(t, clientCookie)
		if code, _ := other.cookie(t, given); code == "NOERROR" {
			return
		}
		select {
		case <-deadline:
			t.Fatal("the servers do not take each other's cookies")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestRun_takes_the_secrets_of_cookies_from_a_file: the first makes cookies, all
// are accepted, and a file that is none is refused.
func TestRun_takes_the_secrets_of_cookies_from_a_file(t *testing.T) {
	write := func(secrets string) string {
		file := filepath.Join(t.TempDir(), "cookies")
		if err := os.WriteFile(file, []byte(secrets), 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`
dns: {listen: ["127.0.0.1:0"], cookie_secret_file: %q}
admin: {listen: "127.0.0.1:0"}
registry: {embedded: {listen: "127.0.0.1:0"}}
`, file)
	}
	const first, second = "e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962"
	before, during := start(t, write(first), "", false), start(t, write(second+"\n"+first+"\n"), "", false)
	_, old := before.cookie(t, clientCookie)
	if code, _ := during.cookie(t, old); code != "NOERROR" {
		t.Errorf("a cookie of the secret before gets %s", code)
	}
	_, made := during.cookie(t, clientCookie)
	if code, _ := before.cookie(t, made); code != "BADCOOKIE" {
		t.Errorf("a cookie of a secret that is not known gets %s", code)
	}
}
