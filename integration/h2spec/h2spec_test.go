package h2spec_test

import (
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) {
	if fault.Backend(os.Args) {
		return
	}
	goleak.VerifyTestMain(m)
}

// What net/http does otherwise than h2spec wants, each by a right that the RFC gives.
const (
	// It closes the connection on a setting that is there twice.
	twice = "6.5.3 Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE"
	// It answers 400 before the end of the stream, as RFC 9113 section 8.1.1 allows.
	connection = "8.1.2.2 Sends a HEADERS frame that contains the connection-specific header field"
	te         = "8.1.2.2 Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\""
	// The port speaks HTTP/1.1 too, by which the octets are a bad request, answered 400.
	preface = "3.5 Sends invalid connection preface"
)

// h2spec is the path of the program: what H2SPEC_BIN names, as `make test` sets it, or
// else one that is built.
func h2spec(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("H2SPEC_BIN"); path != "" {
		return path
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "install", "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible")
	build.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building h2spec: %v\n%s", err, out)
	}
	return filepath.Join(dir, "h2spec")
}

// report is what h2spec writes, in the form of JUnit.
type report struct {
	Suites []struct {
		ID    string `xml:"id,attr"`
		Cases []struct {
			Name    string    `xml:"classname,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func TestHTTP2(t *testing.T) {
	bin := h2spec(t)
	muster, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := fault.NewLab(muster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	cert, key := l.Path("cert.pem"), l.Path("key.pem")
	if out, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-days", "30", "-subj", "/CN=dns.test", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("openssl (apt-get install openssl): %v\n%s", err, out)
	}
	backend := l.BackendAddr(60)
	if _, err := l.StartBackend(t.Context(), 60); err != nil {
		t.Fatal(err)
	}
	const tcp, tls, https = ":8080", ":8444", ":8443"
	host := l.Addr(70).String()
	pair := fmt.Sprintf("certificates: [{cert: %q, key: %q}]", cert, key)
	if _, err := l.Run(t.Context(), fault.Settings{DNS: fmt.Sprintf("https: [%q], %s", host+https, pair), More: fmt.Sprintf(`proxy:
  listeners:
    - {name: plain, listen: %q, mode: http, service: web}
    - {name: tls, listen: %q, mode: http, service: web, %s}
`, host+tcp, host+tls, pair)}); err != nil {
		t.Fatal(err)
	}
	if out, err := l.CLI(t.Context(), "register", "web", "--id", "one", "--address", backend.Addr().String(), "--port", fmt.Sprint(backend.Port()), "--check", "none", "--forever"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		name, port, path string
		tls              bool
		otherwise        []string
	}{
		{"the proxy over TCP", tcp, "/", false, []string{preface, twice, connection, te}},
		{"the proxy over TLS", tls, "/", true, []string{twice, connection, te}},
		{"DNS over HTTPS", https, "/dns-query", true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "report.xml")
			host, port, err := net.SplitHostPort(host + tt.port)
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"-h", host, "-p", port, "-P", tt.path, "--strict", "--timeout", "3", "--junit-report", file}
			if tt.tls {
				args = append(args, "-t", "-k")
			}
			out, _ := exec.CommandContext(t.Context(), bin, args...).CombinedOutput() // fails when a case does
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var r report
			if err := xml.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			n, failed := 0, []string(nil)
			for _, suite := range r.Suites {
				for _, c := range suite.Cases {
					n++
					if c.Failure != nil || c.Error != nil {
						failed = append(failed, suite.ID[strings.LastIndexByte(suite.ID, '/')+1:]+" "+c.Name)
					}
				}
			}
			slices.Sort(failed)
			slices.Sort(tt.otherwise)
			if n < 140 || !slices.Equal(failed, tt.otherwise) {
				t.Errorf("of %d cases these fail: %q\nwant %q\n%s", n, failed, tt.otherwise, out)
			}
		})
	}
}
