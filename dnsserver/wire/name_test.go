package wire_test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

func mustName(t testing.TB, s string) wire.Name {
	t.Helper()
	n, err := wire.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseName(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	longest := label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61) // 255 octets in wire form
	rows := []struct {
		sentence, in, want string
		labels             int
	}{
		{"the root", ".", ".", 0},
		{"a last dot makes no difference", "web.svc.internal.", "web.svc.internal.", 3},
		{"nor does its absence", "web.svc.internal", "web.svc.internal.", 3},
		{"letters are lower-cased, others kept (RFC 4343)", "_HTTP._tcp.WeB-1.ÅZ@[`{", "_http._tcp.web-1.\\195\\133z\\@[`{.", 4},
		{"escapes by number and by character (RFC 1035 section 5.1)", `a\.b.\099\000\255`, `a\.b.c\000\255.`, 2},
		{"an escaped capital is lower-cased too", `\065.x`, `a.x.`, 2},
		{"an escaped dot at the end is no end", `a\.`, `a\..`, 1},
		{"63 octets in a label", label63, label63 + ".", 1},
		{"255 octets in a name", longest, longest + ".", 4},
		{"127 labels", strings.Repeat("a.", 127), strings.Repeat("a.", 127), 127},
	}
	for _, r := range rows {
		t.Run(r.sentence, func(t *testing.T) {
			n := mustName(t, r.in)
			if got := n.String(); got != r.want || n.Labels() != r.labels {
				t.Fatalf("%q: got %q of %d labels, want %q of %d", r.in, got, n.Labels(), r.want, r.labels)
			}
			oracle := make([]byte, 256)
			end, err := dns.PackDomainName(dns.CanonicalName(r.want), oracle, 0, nil, false)
			if err != nil || string(oracle[:end]) != string(n.Wire()) {
				t.Fatalf("%q: wire form %q, want %q (%v)", r.in, n.Wire(), oracle[:end], err)
			}
		})
	}
}

func TestParseName_Errors(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for _, in := range []string{
		"", "..", ".a", "a..b", "a..", "a" + label63, label63 + "." + label63 + "." + label63 + "." + label63,
		strings.Repeat("a.", 128), `\`, `a\`, `\2`, `\25`, `\256`, `\25x`, `\999`,
	} {
		if n, err := wire.ParseName(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, n.String())
		} else if !strings.Contains(err.Error(), "parsing name ") {
			t.Errorf("%q: the error does not name the place: %v", in, err)
		}
	}
}

func TestName_Parts(t *testing.T) {
	n := mustName(t, "Web-1.web.svc.internal")
	if got := string(n.Label(0)) + "|" + string(n.Label(3)); got != "web-1|internal" {
		t.Errorf("labels %q", got)
	}
	if got := string(n.Suffix(2)); got != "\x03svc\x08internal\x00" {
		t.Errorf("suffix %q", got)
	}
	if got := string(n.Suffix(4)); got != "\x00" {
		t.Errorf("the suffix without all labels is %q, want the root", got)
	}
	if got := string(n.Prefix(2)); got != "\x05web-1\x03web" {
		t.Errorf("prefix %q", got)
	}
	for apex, want := range map[string]int{"svc.internal": 2, "web-1.web.svc.internal": 0, ".": 4, "c.internal": -1, "x.web-1.web.svc.internal": -1} {
		a := mustName(t, apex)
		got, ok := n.Below(&a)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("below %s: %d, %v; want %d", apex, got, ok, want)
		}
	}
}

func TestName_Set(t *testing.T) {
	var n wire.Name
	if !n.Set([]byte("\x03WEB\x03Svc\x00")) || n.String() != "web.svc." {
		t.Errorf("got %q", n.String())
	}
	same := mustName(t, "web.svc")
	if !n.Equal(&same) {
		t.Error("a name set is not equal to the same name parsed")
	}
	for _, bad := range []string{"", "\x03web", "\x03web\x00x", "\x03we", "\xc0\x0c", "\x40a\x00", strings.Repeat("\x3f"+strings.Repeat("a", 63), 4) + "\x00"} {
		if n.Set([]byte(bad)) {
			t.Errorf("%q is taken for a name", bad)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{".", "a.b", `\.`, `\000.x`, "A..", strings.Repeat("a.", 127)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := wire.ParseName(s)
		if err != nil {
			return
		}
		again, err := wire.ParseName(n.String())
		if err != nil || !again.Equal(&n) {
			t.Fatalf("%q is %q, which reads as %q (%v)", s, n.String(), again.String(), err)
		}
		if name, end, err := dns.UnpackDomainName(n.Wire(), 0); err != nil || end != n.Len() || name != n.String() {
			t.Fatalf("%q is %q; the oracle reads %q up to %d (%v)", s, n.String(), name, end, err)
		}
	})
}
