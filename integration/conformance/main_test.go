package conformance_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/program"
)

// serverFlag names another server to ask.
var serverFlag = flag.String("server", "", "`address` of a server that serves testdata/wire.test.zone, instead of the built muster")

// serverAddr is the server that is asked, for UDP and TCP. Set before any test
// runs.
var serverAddr string

// startTimeout is how long the server may take until it answers; most of it is
// for building the binary.
const startTimeout = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	stop, err := startServer()
	defer stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	code := m.Run()
	stop()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	return code
}

// startServer starts the built binary on the zone, unless another server was
// named. The function it returns ends it, and may be called twice.
func startServer() (stop func(), err error) {
	stop = func() {}
	if *serverFlag != "" {
		serverAddr = *serverFlag
		return stop, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return stop, err
	}
	stop = func() { os.RemoveAll(dir) }
	config, err := writeConfig(dir)
	if err != nil {
		return stop, err
	}
	binary, err := program.Muster(ctx, dir)
	if err != nil {
		return stop, err
	}
	p, err := program.Start("muster", binary, "serve", "--config", config)
	if err != nil {
		return stop, err
	}
	stop = func() {
		p.Stop()
		os.RemoveAll(dir)
	}
	return stop, p.Poll(ctx, func() error { return answers(ctx) })
}

// writeConfig writes the configuration and chooses serverAddr.
func writeConfig(dir string) (string, error) {
	zone, err := filepath.Abs("testdata/wire.test.zone")
	if err != nil {
		return "", err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = program.FreePort(); err != nil {
			return "", err
		}
	}
	serverAddr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	path := filepath.Join(dir, "muster.yaml")
	return path, os.WriteFile(path, fmt.Appendf(nil, `log: {level: warn}
dns: {listen: [%q]}
zones:
  - {name: svc.internal., source: muster, prefix: /muster/v1}
  - {name: %s, file: %q}
registry:
  mode: embedded
  embedded: {dir: %q, listen: "127.0.0.1:%d"}
  snapshot: "off"
admin: {listen: "127.0.0.1:%d"}
`, serverAddr, origin, zone, filepath.Join(dir, "etcd"), ports[1], ports[2]), 0o600)
}

// answers reports whether the server answers for the zone.
func answers(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", serverAddr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(frame(probe())); err != nil {
		return err
	}
	msg, err := readFrame(conn)
	if err != nil {
		return err
	}
	if !isProbe(msg) {
		return fmt.Errorf("rcode %s", dns.RcodeToString[int(msg[3]&15)])
	}
	return nil
}
