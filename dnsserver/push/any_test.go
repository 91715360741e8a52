package push_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/push"
)

// TestHub_any: ANY is all types of the name, whichever they become (RFC 8765 section 6.2.1),
// and what a subscription to one of them matches too is told once (section 6.3.1).
func TestHub_any(t *testing.T) {
	e := newEnv(t, 0, func(c *push.Config) { c.MemoryMax = 4096 })
	e.serve("a.example.test. A 192.0.2.1", `a.example.test. TXT "x"`, "b.example.test. ALIAS a.example.test.", "*.w.example.test. MX 1 a.example.test.")
	c := e.dial()
	for i, q := range []struct {
		name string
		typ  uint16
		want []string
	}{
		{"a.example.test.", dns.TypeANY, []string{"+a.example.test. A 192.0.2.1", `+a.example.test. TXT "x"`}},
		{"a.example.test.", dns.TypeA, []string{"+a.example.test. A 192.0.2.1"}},
		{"b.example.test.", dns.TypeANY, []string{"+b.example.test. A 192.0.2.1"}},
		{"c.w.example.test.", dns.TypeANY, []string{"+c.w.example.test. MX 1 a.example.test."}},
	} {
		if code := c.subscribe(uint16(i+1), q.name, q.typ); code != 0 {
			t.Fatalf("%s: code %d", q.name, code)
		}
		if got := c.pushed(); !slices.Equal(got, q.want) {
			t.Errorf("%s: %q, want %q", q.name, got, q.want)
		}
	}
	e.serve("a.example.test. A 192.0.2.2", `a.example.test. TXT "x"`, "a.example.test. AAAA 2001:db8::1")
	want := []string{
		"+a.example.test. A 192.0.2.2", "+a.example.test. AAAA 2001:db8::1",
		"-a.example.test. A 192.0.2.1", "-b.example.test. A 192.0.2.1", "-c.w.example.test. MX 1 a.example.test.",
	}
	if got := c.pushed(); !slices.Equal(got, want) {
		t.Errorf("after a change %q, want %q", got, want)
	}
	e.serve("a.example.test. CNAME b.example.test.")
	want = []string{
		"+a.example.test. CNAME b.example.test.", "-a.example.test. A 192.0.2.2",
		"-a.example.test. AAAA 2001:db8::1", `-a.example.test. TXT "x"`,
	}
	if got := c.pushed(); !slices.Equal(got, want) {
		t.Errorf("the name becomes an alias: %q, want %q", got, want)
	}
	t.Run("all that is told counts", func(t *testing.T) {
		e.serve(`big.example.test. TXT "`+strings.Repeat("x", 255)+`" "`+strings.Repeat("y", 255)+`"`, "big.example.test. A 192.0.2.1",
			`big.example.test. SPF "`+strings.Repeat("x", 255)+`" "`+strings.Repeat("y", 255)+`"`)
		c.pushed()
		if code := c.subscribe(9, "big.example.test.", dns.TypeTXT); code != 0 {
			t.Errorf("one type: code %d", code)
		}
		c.pushed()
		if code := c.subscribe(10, "big.example.test.", dns.TypeANY); code != dns.RcodeServerFailure {
			t.Errorf("all types, beyond the memory: code %d, want SERVFAIL", code)
		}
	})
}
