package etcd_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/etcd/embedded"
	"github.com/musterdns/muster/registry/registrytest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for most of their time.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// backend is one implementation of etcd.
type backend struct {
	name string
	// start starts one member with its data in dir, listening on addr (port 0:
	// any), and returns where it listens and how to stop it.
	start func(t testing.TB, dir, addr string) (url string, stop func())
}

// backends are the servers that the client is held to: the newest, and the one
// that Debian ships.
func backends() []backend {
	return []backend{{"embedded 3.7", startEmbedded}, {"Debian 3.4", startDebian}}
}

func startEmbedded(t testing.TB, dir, addr string) (string, func()) {
	t.Helper()
	s, err := embedded.Start(context.WithoutCancel(t.Context()), embedded.Config{Dir: dir, Listen: addr})
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s.URL(), stop
}

func startDebian(t testing.TB, dir, addr string) (string, func()) {
	t.Helper()
	peer := "http://" + registrytest.FreeAddr(t)
	return startChild(t, dir, addr, peer, "only="+peer, "only")
}

// startChild runs /usr/bin/etcd as a member of a cluster. With more arguments
// it serves https.
func startChild(t testing.TB, dir, addr, peer, cluster, name string, more ...string) (string, func()) {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("%v\nthis test runs against a real etcd: apt-get install etcd-server", err)
	}
	if strings.HasSuffix(addr, ":0") {
		addr = registrytest.FreeAddr(t)
	}
	url := "http://" + addr
	if len(more) > 0 {
		url = "https://" + addr
	}
	cmd := exec.Command(path, append(more, "--name="+name, "--data-dir="+filepath.Join(dir, "data"),
		"--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster="+cluster,
		"--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync")...)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ended by stop
		close(exited)
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-exited
	}
	t.Cleanup(stop)
	return url, stop
}

// connect returns a plain etcd client of a server that answers.
func connect(t testing.TB, urls ...string) *clientv3.Client {
	t.Helper()
	conn, err := clientv3.New(clientv3.Config{Endpoints: urls, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := conn.Get(ctx, "ready"); err != nil {
		t.Fatalf("etcd on %v does not answer: %v", urls, err)
	}
	return conn
}

// newSource returns a source with a client of its own.
func newSource(t testing.TB, id registry.SourceID, prefix string, urls ...string) *etcd.Source {
	t.Helper()
	client, err := etcd.New(etcd.Config{Endpoints: urls, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	source, err := client.Source(id, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// testLog holds the log to one line an entry. It does not keep the lines: ten
// thousand bad keys make ten thousand.
type testLog struct{ t testing.TB }

func (l testLog) Write(line []byte) (int, error) {
	if n := strings.Count(string(line), "\n"); n != 1 || !strings.Contains(string(line), "level=") {
		l.t.Errorf("a log entry of %d lines: %q", n, line)
	}
	return len(line), nil
}

// store is the suite's view of etcd.
type store struct {
	t    testing.TB
	conn *clientv3.Client
}

func (s store) ctx() context.Context { return s.t.Context() }

func (s store) Put(key, value string) {
	if _, err := s.conn.Put(s.ctx(), key, value); err != nil {
		s.t.Fatal(err)
	}
}

func (s store) Delete(key string) {
	if _, err := s.conn.Delete(s.ctx(), key); err != nil {
		s.t.Fatal(err)
	}
}

func (s store) RevokeLease(key string) {
	resp, err := s.conn.Get(s.ctx(), key)
	if err != nil || len(resp.Kvs) != 1 {
		s.t.Fatalf("reading %s: %v", key, err)
	}
	if _, err := s.conn.Revoke(s.ctx(), clientv3.LeaseID(resp.Kvs[0].Lease)); err != nil {
		s.t.Fatal(err)
	}
}

func (s store) Compact() {
	resp, err := s.conn.Get(s.ctx(), "revision")
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.conn.Compact(s.ctx(), resp.Header.Revision); err != nil {
		s.t.Fatal(err)
	}
}

// host is the address in a URL.
func host(url string) string { return strings.TrimPrefix(url, "http://") }

// TestSource runs the suite of sources against each server.
func TestSource(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel() // much of it waits
			url, _ := b.start(t, t.TempDir(), "127.0.0.1:0")
			conn := connect(t, url)
			registrytest.Run(t, registrytest.Harness{
				Source: func(t *testing.T, id registry.SourceID, prefix string) (registrytest.Source, *registrytest.Proxy) {
					network := registrytest.NewProxy(t, host(url))
					return newSource(t, id, prefix, "http://"+network.Addr()), network
				},
				Store: func(t *testing.T) registrytest.Store { return store{t, conn} },
			})
		})
	}
}

// texts is a format of records that are their values.
type texts struct{}

func (texts) Root() string { return "/texts/" }

func (texts) Parse(raw string) (registry.Key, bool, error) {
	return registry.Key{Kind: registry.KindService, Service: strings.TrimPrefix(raw, "/texts/")}, true, nil
}

func (texts) Note(_ string, value []byte) (any, error) { return string(value), nil }

// TestClient_Notes_lost: of others' records too, those are told that went with their lease.
func TestClient_Notes_lost(t *testing.T) {
	url, _ := startEmbedded(t, t.TempDir(), "127.0.0.1:0")
	conn := connect(t, url)
	client, err := etcd.New(etcd.Config{Endpoints: []string{url}, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := store{t, conn}
	for _, name := range []string{"lost", "deleted"} {
		lease, err := conn.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Put(t.Context(), "/texts/"+name, "x", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	s.Put("/texts/plain", "x")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	batches := make(chan registry.Batch)
	done := make(chan error, 1)
	go func() {
		done <- client.Notes(1, texts{}).Watch(ctx, func(b registry.Batch) error {
			select {
			case batches <- b:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	next := func() registry.Batch {
		for {
			select {
			case b := <-batches:
				if len(b.Notes)+len(b.Deleted) > 0 {
					return b
				}
			case err := <-done:
				t.Fatal(err)
			}
		}
	}
	if b := next(); len(b.Notes) != 3 {
		t.Errorf("%d notes, want 3", len(b.Notes))
	}
	for name, lost := range map[string]bool{"lost": true, "deleted": false, "plain": false} {
		if lost {
			s.RevokeLease("/texts/" + name)
		} else {
			s.Delete("/texts/" + name)
		}
		if b := next(); len(b.Deleted) != 1 || b.Deleted[0].Service != name || (len(b.Lost) == 1) != lost {
			t.Errorf("%s: deleted %v, lost %v; want it lost: %t", name, b.Deleted, b.Lost, lost)
		}
	}
	cancel()
	<-done
}

// fill puts n instances below a prefix, in transactions.
func fill(t testing.TB, conn *clientv3.Client, prefix string, n int) {
	t.Helper()
	for from := 0; from < n; from += registry.OpsMax {
		var puts []clientv3.Op
		for i := from; i < min(from+registry.OpsMax, n); i++ {
			key := fmt.Sprintf("%s/instances/s%d/i%d", prefix, i/10, i)
			puts = append(puts, clientv3.OpPut(key, fmt.Sprintf(`{"address":"10.%d.%d.%d","port":8080,"weight":3,"tags":["v2"],"zone":"eu-1a"}`, i>>16&255, i>>8&255, i&255)))
		}
		if _, err := conn.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}
