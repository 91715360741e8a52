package fault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/musterdns/muster/integration/program"
)

// The ports of a lab's server.
const (
	portDNS   = 5300
	portAdmin = 8653
	portHTTP  = 8081
	portTCP   = 8082
)

// Zone is the service zone of a lab's server.
const Zone = "svc.internal."

// Settings is what the configuration of a lab's server has beside where it
// listens.
type Settings struct {
	Etcd       string        // URLs with commas; empty: embedded
	StaleAfter time.Duration // 0: the default
	Snapshot   string        // file; empty: none
	Zones      []string      // further ones, as YAML mappings
	DNS        string        // further keys of dns, as in a YAML mapping
	Profiles   bool          // the server tells of its heap; see Server.Heap
	More       string        // further keys of the configuration's top level
}

// Configure writes the configuration.
func (l *Lab) Configure(s Settings) error {
	var b strings.Builder
	fmt.Fprintf(&b, "node: lab\nlog: {format: json}\n")
	fmt.Fprintf(&b, "dns: {listen: [%q], %s}\n", l.at(hostMuster, portDNS), s.DNS)
	fmt.Fprintf(&b, "admin: {listen: %q, pprof: %t}\n", l.at(hostMuster, portAdmin), s.Profiles)
	fmt.Fprintf(&b, "health: {allow_targets: [127.0.0.0/8]}\n")
	fmt.Fprintf(&b, "zones:\n  - {name: %s, source: muster}\n", Zone)
	for _, z := range s.Zones {
		fmt.Fprintf(&b, "  - %s\n", z)
	}
	fmt.Fprintf(&b, "registry:\n  snapshot: %q\n", cmp.Or(s.Snapshot, "off"))
	if s.StaleAfter != 0 {
		fmt.Fprintf(&b, "  stale_after: %s\n", s.StaleAfter)
	}
	if s.Etcd != "" {
		fmt.Fprintf(&b, "  mode: etcd\n  etcd: {endpoints: [%s]}\n", s.Etcd)
	} else {
		fmt.Fprintf(&b, "  mode: embedded\n  embedded: {dir: %q, listen: %q}\n", l.Path("embedded"), l.at(hostMuster, portEtcd))
	}
	b.WriteString(s.More)
	return os.WriteFile(l.ConfigFile(), []byte(b.String()), 0o600)
}

// ConfigFile is the configuration of the lab's server.
func (l *Lab) ConfigFile() string { return l.Path("muster.yaml") }

// Server is a running muster.
type Server struct {
	*program.Process

	DNS, Admin string // where it listens
	logFile    string
	started    time.Time
}

// Proxy is configuration for Settings.More: a listener of mode http at HTTPAddr,
// and one of mode tcp at TCPAddr, both for a service.
func (l *Lab) Proxy(service string) string {
	return fmt.Sprintf("proxy:\n  listeners:\n    - {name: http, listen: %q, mode: http, service: %s}\n    - {name: tcp, listen: %q, mode: tcp, service: %s}\n",
		l.HTTPAddr(), service, l.TCPAddr(), service)
}

// HTTPAddr and TCPAddr are where the listeners of Proxy are.
func (l *Lab) HTTPAddr() string { return l.at(hostMuster, portHTTP) }

// TCPAddr is where the listener of mode tcp is.
func (l *Lab) TCPAddr() string { return l.at(hostMuster, portTCP) }

// ServeProxy starts muster proxy on the lab's configuration.
func (l *Lab) ServeProxy() (*Server, error) {
	return l.server([]string{l.Binary, "proxy", "--config", l.ConfigFile()})
}

// Serve starts muster serve on the lab's configuration, through the given
// command if there is one (prlimit ... muster serve), and does not wait for
// it to answer.
func (l *Lab) Serve(through ...string) (*Server, error) {
	return l.server(append(through, l.Binary, "serve", "--config", l.ConfigFile()))
}

// Dev starts muster dev, with the ports of the lab.
func (l *Lab) Dev() (*Server, error) {
	return l.server([]string{
		l.Binary, "dev", "--dns-listen", l.at(hostMuster, portDNS), "--admin-listen", l.at(hostMuster, portAdmin),
		"--registry-embedded-listen", l.at(hostMuster, portEtcd), "--log-format", "json",
	})
}

// server starts a server with its log in a file, however long that gets.
func (l *Lab) server(argv []string) (*Server, error) {
	s := &Server{DNS: l.at(hostMuster, portDNS), Admin: "http://" + l.at(hostMuster, portAdmin), logFile: l.Path("muster.log")}
	var err error
	s.started = time.Now()
	s.Process, err = l.Start("muster", append([]string{"sh", "-c", `exec "$@" 2>>"$0"`, s.logFile}, argv...)...)
	return s, err
}

// Run configures and starts a server, and waits until it is ready.
func (l *Lab) Run(ctx context.Context, s Settings) (*Server, error) {
	if err := l.Configure(s); err != nil {
		return nil, err
	}
	srv, err := l.Serve()
	if err != nil {
		return nil, err
	}
	return srv, srv.Ready(ctx)
}

// follow starts an etcd, whose client the caller must Close, and a server that follows it.
func (l *Lab) follow(ctx context.Context) (*Etcd, *Server, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Run(ctx, Settings{Etcd: e.URL})
	if err != nil {
		return nil, nil, errors.Join(err, e.Close())
	}
	return e, s, nil
}

// Age is the time since the server was started.
func (s *Server) Age() time.Duration { return time.Since(s.started) }

// Ready waits until the server says that it is.
func (s *Server) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.Poll(ctx, func() error {
		_, err := s.get(ctx, "/readyz")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	return nil
}

// startTimeout is how long a program may take until it answers; what is to be
// faster is measured.
const startTimeout = 20 * time.Second

// get reads from the admin server.
func (s *Server) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Close = true // nothing of it is to stay when the server has ended
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, text)
	}
	return text, err
}

// Metric is the value of a metric's only series, or of the one that is given
// with its labels.
func (s *Server) Metric(ctx context.Context, series string) (float64, error) {
	text, err := s.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, series+" ")
		if !ok {
			continue
		}
		var v float64
		_, err := fmt.Sscanf(rest, "%g", &v)
		return v, err
	}
	return 0, errors.New("there is no metric " + series)
}

// Heap has the server collect its garbage and returns the profile of what is
// left, for go tool pprof. It takes Settings.Profiles.
func (s *Server) Heap(ctx context.Context) ([]byte, error) {
	return s.get(ctx, "/debug/pprof/heap?gc=1")
}

// Log is what the server has logged until now.
func (s *Server) Log() (string, error) {
	b, err := os.ReadFile(s.logFile)
	return string(b), err
}

// LogTail is the end of the log, for messages about failures.
func (s *Server) LogTail() string {
	b, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	const enough = 4096
	return string(b[max(0, len(b)-enough):])
}

// Logged waits until the log has every one of the words in one line.
func (s *Server) Logged(ctx context.Context, words ...string) error {
	return Until(ctx, 10*time.Millisecond, func() error {
		log, err := s.Log()
		if err != nil {
			return err
		}
		for line := range strings.Lines(log) {
			has := true
			for _, w := range words {
				has = has && strings.Contains(line, w)
			}
			if has {
				return nil
			}
		}
		return fmt.Errorf("no line of the log has %q:\n%s", words, s.LogTail())
	})
}

// RSS is the resident memory of the server, bytes.
func (s *Server) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte("VmRSS:"))
	var kib int64
	_, err = fmt.Sscanf(string(rest), "%d kB", &kib)
	return kib << 10, err
}

// CPU is the time that the server's threads, those that have ended too, have
// been on a core.
func (s *Server) CPU() (time.Duration, error) {
	// The clock of a process, as clock_getcpuclockid(3) makes its id: the
	// complement of the process id, and 2 for the scheduler's count, which is
	// exact to the nanosecond where /proc/PID/stat has ticks of 10 ms.
	clock := ^s.PID()<<3 | 2
	var ts syscall.Timespec
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", s.PID(), e)
	}
	return time.Duration(ts.Nano()), nil
}
