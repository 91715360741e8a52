package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/cmd/internal/cli"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/etcd/embedded"
	"github.com/musterdns/muster/registry/registrytest"
)

// workerMain is a command for register: "serve ADDRESS CODE" serves HTTP until
// SIGTERM and then ends with CODE; "exit CODE" ends at once.
func workerMain(args string) {
	var addr string
	var code int
	if _, err := fmt.Sscanf(args, "exit %d", &code); err == nil {
		os.Exit(code)
	}
	if _, err := fmt.Sscanf(args, "serve %s %d", &addr, &code); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(99)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(98)
	}
	go func() { _ = http.Serve(l, http.NotFoundHandler()) }()
	<-term
	fmt.Fprintln(os.Stdout, "worker: terminated")
	os.Exit(code)
}

// output is a buffer that can be read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// store is an etcd of the test's own, and what is registered in it.
type store struct {
	url     string
	batches chan registry.Batch
}

func startStore(t *testing.T) *store {
	t.Helper()
	srv, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	client, err := etcd.New(etcd.Config{Endpoints: []string{srv.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	source, err := client.Source(1, registry.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	st := &store{url: srv.URL(), batches: make(chan registry.Batch, 64)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = source.Watch(ctx, func(b registry.Batch) error {
			select {
			case st.batches <- b:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return st
}

// next waits for the next batch that registers or deregisters something.
func (st *store) next(t *testing.T) registry.Batch {
	t.Helper()
	for {
		select {
		case b := <-st.batches:
			if len(b.Instances)+len(b.Deleted) > 0 {
				return b
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was registered or deregistered in 20s")
		}
	}
}

// registering is a register command that runs.
type registering struct {
	out  output // both streams, in order
	code chan int
	stop context.CancelFunc
}

func startRegister(t *testing.T, args ...string) *registering {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := &registering{code: make(chan int, 1), stop: cancel}
	go func() {
		r.code <- cli.Run(ctx, cli.App{}, append([]string{"register"}, args...), strings.NewReader(""), &r.out, &r.out)
	}()
	return r
}

func (r *registering) wait(t *testing.T, want int) {
	t.Helper()
	select {
	case got := <-r.code:
		if got != want {
			t.Errorf("exit code %d, want %d; it said:\n%s", got, want, r.out.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it did not end in 20s; it said:\n%s", r.out.String())
	}
}

func workerPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("worker")
	if err != nil {
		t.Fatalf("testscript.Main puts worker into PATH: %v", err)
	}
	return path
}

// freeAddr is an address that the command can listen on, and its port.
func freeAddr(t *testing.T) (addr, port string) {
	t.Helper()
	addr = registrytest.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return addr, port
}

func TestRegister_command(t *testing.T) {
	st := startStore(t)
	addr, port := freeAddr(t)
	r := startRegister(t, "web", "--etcd", st.url, "--address", "127.0.0.1", "--port", port, "--id", "web-1", "--weight", "3",
		"--tag", "v2", "--check", "http:/,status=404,interval=1s", "--drain", "50ms", "--", workerPath(t), "serve", addr, "7")
	b := st.next(t)
	if len(b.Instances) != 1 {
		t.Fatalf("registered: %+v", b)
	}
	in := b.Instances[0]
	if in.Service != "web" || in.ID != "web-1" || in.Weight != 3 || !in.Leased || len(in.Tags) != 1 || len(in.Checks) != 1 || in.Checks[0].Status != "404" {
		t.Errorf("registered: %+v", in)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("it was registered before it listened: %v", err)
	} else {
		conn.Close()
	}
	r.stop()
	// The end of its drain comes with it or after it.
	if b := st.next(t); !slices.Contains(b.Deleted, registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "web-1"}) {
		t.Errorf("deregistered: %+v", b)
	}
	r.wait(t, 7)
	_, after, drained := strings.Cut(r.out.String(), "web/web-1 is drained")
	if _, after, ended := strings.Cut(after, "worker: terminated"); !drained || !ended || !strings.Contains(after, "web/web-1 is deregistered") {
		t.Errorf("want it drained, then the command terminated, then it deregistered; it said:\n%s", r.out.String())
	}
}

func TestRegister_passes_on_the_code_of_a_command_that_ends_by_itself(t *testing.T) {
	st := startStore(t)
	_, port := freeAddr(t)
	r := startRegister(t, "web", "--etcd", st.url, "--address", "127.0.0.1", "--port", port, "--check", "tcp", "--", workerPath(t), "exit", "5")
	r.wait(t, 5)
	if s := r.out.String(); strings.Contains(s, "registered") {
		t.Errorf("it was registered although it never listened: %s", s)
	}
}

func TestRegister_command_not_found(t *testing.T) {
	st := startStore(t)
	r := startRegister(t, "web", "--etcd", st.url, "--port", "1", "--", "/no/such/command")
	r.wait(t, 127)
}

func TestRegister_without_a_command_holds_until_it_is_stopped(t *testing.T) {
	st := startStore(t)
	r := startRegister(t, "db", "--etcd", st.url, "--address", "10.0.0.7", "--port", "5432", "--named-port", "metrics=9187", "--id", "db-1")
	b := st.next(t)
	if len(b.Instances) != 1 || b.Instances[0].Port != 5432 || len(b.Instances[0].Ports) != 1 || b.Instances[0].Addresses[0].String() != "10.0.0.7" {
		t.Fatalf("registered: %+v", b)
	}
	r.stop()
	if b := st.next(t); len(b.Deleted) != 1 {
		t.Errorf("deregistered: %+v", b)
	}
	r.wait(t, 0)
}

func TestRegister_asks_the_server_which_etcd_it_uses(t *testing.T) {
	st := startStore(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"registry":{"endpoints":[%q]},"zones":[{"name":"other.","source":"muster","prefix":"/other"},{"name":"z.","source":"muster","prefix":"/muster/v1"}]}`, st.url)
	}))
	defer srv.Close()
	r := startRegister(t, "db", "--addr", srv.URL, "--zone", "Z", "--address", "10.0.0.7", "--port", "5432")
	if b := st.next(t); len(b.Instances) != 1 || b.Instances[0].Service != "db" {
		t.Errorf("registered: %+v", b)
	}
	r.stop()
	r.wait(t, 0)
	r = startRegister(t, "db", "--addr", srv.URL, "--zone", "nope", "--port", "5432")
	r.wait(t, 2)
	if s := r.out.String(); !strings.Contains(s, "--zone nope.: is no service zone of the server") {
		t.Errorf("it said: %s", s)
	}
}
