package embedded_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/registry/etcd/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a server that the test closes.
func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// etcdctl runs etcdctl of package etcd-client against a server.
func etcdctl(t *testing.T, s *embedded.Server, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "etcdctl", append([]string{"--endpoints=" + s.URL()}, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %s: %v\n%s(apt-get install etcd-client brings it)", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestStart(t *testing.T) {
	t.Run("plain etcdctl writes and reads", func(t *testing.T) {
		s := start(t, embedded.Config{Listen: "127.0.0.1:0"})
		etcdctl(t, s, "put", "/muster/v1/instances/web/a", "10.0.0.1:80")
		if got := etcdctl(t, s, "get", "--print-value-only", "/muster/v1/instances/web/a"); got != "10.0.0.1:80\n" {
			t.Errorf("read %q", got)
		}
	})
	t.Run("a busy port is an error, or another with AnyPort", func(t *testing.T) {
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close()
		if _, err := embedded.Start(t.Context(), embedded.Config{Listen: busy.Addr().String()}); err == nil {
			t.Error("two servers on one port")
		}
		s := start(t, embedded.Config{Listen: busy.Addr().String(), AnyPort: true})
		if s.URL() == "http://"+busy.Addr().String() {
			t.Errorf("URL %s is the busy one", s.URL())
		}
	})
	// Cause: etcd waits for the lock of its store for ever, and no signal ended
	// a server that was started with the directory of another one.
	t.Run("a directory in use is an error that names it", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "etcd")
		first := start(t, embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
		_, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
		if err == nil || !strings.Contains(err.Error(), dir+" is in use by another process") {
			t.Errorf("got %v", err)
		}
		etcdctl(t, first, "put", "k", "still served")
	})
	t.Run("data outlives a restart in a directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "etcd")
		first := start(t, embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
		etcdctl(t, first, "put", "k", "kept")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := start(t, embedded.Config{Dir: dir, Listen: "127.0.0.1:0"})
		if got := etcdctl(t, second, "get", "--print-value-only", "k"); got != "kept\n" {
			t.Errorf("read %q", got)
		}
		var size int64
		_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if info, ierr := d.Info(); err == nil && ierr == nil && !d.IsDir() {
				size += info.Size()
			}
			return nil
		})
		if size > 40<<20 {
			t.Errorf("an empty store takes %d bytes of disk", size)
		}
	})
	t.Run("an address that is none is named", func(t *testing.T) {
		_, err := embedded.Start(t.Context(), embedded.Config{Listen: "localhost:1"})
		if err == nil || !strings.Contains(err.Error(), `"localhost:1"`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("what etcd logs reaches slog", func(t *testing.T) {
		told := make(chan struct{}, 1)
		log := slog.New(slog.NewTextHandler(listener{told}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s := start(t, embedded.Config{Listen: "127.0.0.1:0", Log: log})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
		default:
			t.Error("nothing was logged")
		}
	})
}

// listener is a log that says when etcd has written a line. etcd may write one
// after its end.
type listener struct{ told chan<- struct{} }

func (l listener) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "component=etcd") {
		select {
		case l.told <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

func TestServer_Run(t *testing.T) {
	t.Run("ends with its context and leaves no directory", func(t *testing.T) {
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		s := start(t, embedded.Config{Listen: "127.0.0.1:0"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	})
}

// BenchmarkStart is a part of the second that `make run` may take.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		begun := time.Now()
		s, err := embedded.Start(b.Context(), embedded.Config{Listen: "127.0.0.1:0"})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms/start")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
