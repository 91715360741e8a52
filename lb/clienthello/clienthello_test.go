package clienthello_test

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterdns/muster/lb/clienthello"
)

// hello is what crypto/tls sends first.
func hello(t testing.TB, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		c := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		_ = c.Handshake() // fails as the server goes away
	}()
	b := make([]byte, 1<<15)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// fragmented is a hello in records of at most n octets.
func fragmented(b []byte, n int) []byte {
	var out []byte
	for rest := b[5:]; len(rest) > 0; {
		part := rest[:min(n, len(rest))]
		out = append(append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part))), part...)
		rest = rest[len(part):]
	}
	return out
}

func TestServerName_OfCryptoTLS(t *testing.T) {
	for name, want := range map[string]string{"Web.Example.com": "web.example.com", "a": "a", "10.0.0.1": "", "": ""} {
		b := hello(t, name)
		for _, octets := range [][]byte{b, append(b, "more"...), fragmented(b, 1), fragmented(b, 100)} {
			if got, err := clienthello.ServerName(octets); got != want || err != nil {
				t.Errorf("%q in %d octets: %q, %v", name, len(octets), got, err)
			}
			for i := range b {
				if got, err := clienthello.ServerName(octets[:i]); !errors.Is(err, clienthello.ErrShort) {
					t.Fatalf("%q, %d of %d octets: %q, %v, want ErrShort", name, i, len(octets), got, err)
				}
			}
		}
	}
}

// TestServerName_Corpus reads each file of testdata: a line with the outcome,
// then the octets in hexadecimal.
func TestServerName_Corpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("corpus of %d files: %v", len(files), err)
	}
	for _, file := range files {
		want, b := corpus(t, file)
		name, err := clienthello.ServerName(b)
		got := "name " + name
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

func corpus(t testing.TB, file string) (outcome string, octets []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	outcome, digits, _ := strings.Cut(string(text), "\n")
	octets, err = hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return outcome, octets
}

// FuzzServerName holds ServerName to its contract: it asks for more only where
// more can help, and gives the same however the octets arrive.
func FuzzServerName(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		_, b := corpus(f, file)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), clienthello.SizeMax)]
		name, err := clienthello.ServerName(b)
		if errors.Is(err, clienthello.ErrShort) {
			if len(b) == clienthello.SizeMax {
				t.Fatal("more is asked for than a ClientHello may have")
			}
			return
		}
		short := true
		for i := range min(len(b), 512) {
			sub, err2 := clienthello.ServerName(b[:i])
			if errors.Is(err2, clienthello.ErrShort) {
				if !short {
					t.Fatalf("%d octets ask for more, and fewer did not", i)
				}
				continue
			}
			short = false
			if sub != name || (err2 == nil) != (err == nil) {
				t.Fatalf("%d octets: %q, %v; %d: %q, %v", i, sub, err2, len(b), name, err)
			}
		}
	})
}
