package etcd_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
)

// TestClient_says_why_etcd_does_not_answer: the log said "context deadline exceeded",
// whatever the cause.
func TestClient_says_why_etcd_does_not_answer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangsUp.Close()
	go func() {
		for {
			conn, err := hangsUp.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for _, test := range []struct{ name, endpoint, want string }{
		{"a port that nobody listens at", "http://" + nobody, "connection refused"},
		{"TLS to what has none", "https://" + hangsUp.Addr().String(), "authentication handshake failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines, log := io.Pipe()
			client, err := etcd.New(etcd.Config{Endpoints: []string{test.endpoint}, Log: slog.New(slog.NewTextHandler(log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			source, err := client.Source(1, registry.DefaultPrefix)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- source.Watch(ctx, func(registry.Batch) error { return nil }) }()
			line, err := bufio.NewReader(lines).ReadString('\n')
			if err != nil || !strings.Contains(line, "etcd does not answer") || !strings.Contains(line, test.want) {
				t.Errorf("logged %q, %v; want the cause, %q", line, err, test.want)
			}
			lines.Close() // what is logged from now on is not waited for
			cancel()
			<-done
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
