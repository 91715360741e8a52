package proxyproto_test

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterdns/muster/lb/proxyproto"
)

func TestHeader_AppendV2(t *testing.T) {
	at := netip.MustParseAddrPort
	cases := []struct {
		header proxyproto.Header
		want   string // after the signature
	}{
		{proxyproto.Header{}, "20 00 0000"},
		{proxyproto.Header{Source: at("192.0.2.1:4660"), Dest: at("198.51.100.2:80")}, "21 11 000c c0000201 c6336402 1234 0050"},
		{proxyproto.Header{Source: at("192.0.2.1:1"), Dest: at("198.51.100.2:2"), Datagram: true}, "21 12 000c c0000201 c6336402 0001 0002"},
		{
			proxyproto.Header{Source: at("[2001:db8::1]:1"), Dest: at("[2001:db8::2]:2")},
			"21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 0002",
		},
		{
			proxyproto.Header{Source: at("192.0.2.1:1"), Dest: at("[2001:db8::2]:2")},
			"21 21 0024 00000000000000000000ffffc0000201 20010db8000000000000000000000002 0001 0002",
		},
	}
	for _, c := range cases {
		b := c.header.AppendV2([]byte("kept"))
		if want := "kept\r\n\r\n\x00\r\nQUIT\n" + string(unhex(t, c.want)); string(b) != want {
			t.Errorf("%v: %x, want %x", c.header, b, want)
		}
		got, n, err := proxyproto.Parse(append(b[4:], "GET /"...))
		if err != nil || n != len(b)-4 {
			t.Errorf("%v: parsed %d octets, %v", c.header, n, err)
		}
		if unmapped(got) != c.header {
			t.Errorf("parsed %v, want %v", got, c.header)
		}
	}
}

// unmapped undoes what AppendV2 does to ends of different families.
func unmapped(h proxyproto.Header) proxyproto.Header {
	plain := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
	if h.Known() {
		h.Source, h.Dest = plain(h.Source), plain(h.Dest)
	}
	return h
}

// TestParse_Corpus reads each file of testdata: a line with the outcome, then
// the octets in hexadecimal.
func TestParse_Corpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("corpus of %d files: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, digits, _ := strings.Cut(string(text), "\n")
		h, n, err := proxyproto.Parse(unhex(t, digits))
		got := "connection"
		switch {
		case err != nil:
			got = err.Error()
		case h.Known():
			got = h.Source.String() + " " + h.Dest.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
		if (n == 0) != (err != nil) {
			t.Errorf("%s: %d octets with error %v", file, n, err)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzParse holds Parse to its contract: it asks for more only where more can
// help, takes no more than it was given, and gives the same however the octets
// arrive.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, digits, _ := strings.Cut(string(text), "\n")
		f.Add(unhex(f, digits))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), proxyproto.SizeMax)]
		h, n, err := proxyproto.Parse(b)
		switch {
		case errors.Is(err, proxyproto.ErrShort):
			if len(b) == proxyproto.SizeMax {
				t.Fatal("more is asked for than a header may have")
			}
			return
		case n > len(b), (n == 0) != (err != nil):
			t.Fatalf("%d of %d octets, error %v", n, len(b), err)
		}
		for i := range n {
			if _, _, err := proxyproto.Parse(b[:i]); !errors.Is(err, proxyproto.ErrShort) {
				t.Fatalf("%d of %d octets: %v, want ErrShort", i, n, err)
			}
		}
		if err == nil && h.Known() {
			again, _, err := proxyproto.Parse(h.AppendV2(nil))
			if err != nil || again != h {
				t.Fatalf("written and read again: %v, %v; want %v", again, err, h)
			}
		}
	})
}
