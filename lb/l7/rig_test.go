package l7_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a running proxy over a real pool.
type rig struct {
	t        testing.TB
	pool     *pool.Pool
	proxy    *l7.Proxy
	dispatch *dispatch.Dispatcher
	sink     func(registry.Batch) error
	rev      int64
	stop     func() // ends the proxy and waits for it
}

// start runs a proxy until the test ends, with a listener "web" whose service
// is web. change may be nil.
func start(t testing.TB, change func(*l7.Config)) *rig {
	t.Helper()
	p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: "svc.internal."}}}})
	if err != nil {
		t.Fatal(err)
	}
	// Ejections have tests of their own: here they would hide what is retried.
	d, err := dispatch.New(dispatch.Config{Pool: p, Outlier: &lb.OutlierRule{}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := l7.Config{Dispatcher: d, Source: 1, Listeners: []l7.Listener{{Name: "web", Address: "127.0.0.1:0", Service: "web"}}}
	if change != nil {
		change(&cfg)
	}
	proxy, err := l7.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	below, endBelow := context.WithCancel(context.WithoutCancel(t.Context()))
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var running, runningBelow sync.WaitGroup
	runningBelow.Go(func() { _ = p.Run(below) })
	runningBelow.Go(func() { _ = d.Run(below) })
	running.Go(func() {
		if err := proxy.Run(ctx); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	r := &rig{t: t, pool: p, proxy: proxy, dispatch: d, sink: p.Sink(below)}
	r.stop = sync.OnceFunc(func() {
		end()
		running.Wait()
		endBelow()
		runningBelow.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

// apply sinks a batch and waits until it is answered.
func (r *rig) apply(b registry.Batch) {
	r.t.Helper()
	r.rev++
	b.Source, b.Revision, b.AsOf = 1, r.rev, time.Now()
	if r.rev == 1 {
		b.Reset = true
	}
	if err := r.sink(b); err != nil {
		r.t.Fatal(err)
	}
	if err := r.pool.WaitFor(r.t.Context(), 1, r.rev); err != nil {
		r.t.Fatal(err)
	}
}

// instance is an instance "service/id" at an address.
func instance(name, addr string) registry.Instance {
	service, id, _ := strings.Cut(name, "/")
	a := netip.MustParseAddrPort(addr)
	return registry.Instance{Service: service, ID: id, Weight: 1, Addresses: []netip.Addr{a.Addr()}, Port: a.Port(), Incarnation: 1}
}

// register registers backends as instances: "web/a" to an address.
func (r *rig) register(of ...any) {
	r.t.Helper()
	var b registry.Batch
	for i := 0; i < len(of); i += 2 {
		b.Instances = append(b.Instances, instance(of[i].(string), of[i+1].(string)))
	}
	r.apply(b)
}

// admin sets an administrator's word on an instance.
func (r *rig) admin(name string, state registry.AdminState) {
	r.t.Helper()
	service, id, _ := strings.Cut(name, "/")
	r.apply(registry.Batch{Admin: []registry.Admin{{Service: service, Instance: id, State: state}}})
}

// routes sets the routes from lines "name json".
func (r *rig) routes(lines ...string) {
	r.t.Helper()
	var list []registry.Route
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		route, err := registry.DecodeRoute(name, []byte(value))
		if err != nil {
			r.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, route)
	}
	if err := errors.Join(r.proxy.SetRoutes(list)...); err != nil {
		r.t.Fatal(err)
	}
}

// addr is where the proxy's listener "web" listens.
func (r *rig) addr() string { return r.proxy.Addr("web").String() }

// url is a URL at the proxy.
func (r *rig) url(path string) string { return "http://" + r.addr() + path }

// await waits for a condition.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("still not: %s", what)
		}
	}
}

// server runs an HTTP server until the test ends and returns its address.
// HTTP/1.1 and h2c are served.
func server(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// named is a handler that says its name.
func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %s", name, r.Method, r.URL.RequestURI())
	}
}

// raw runs a TCP server that calls f for each connection, which is closed when
// f returns, until the test ends.
func raw(t testing.TB, f func(c net.Conn, n int)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var n atomic.Int64
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				f(c, int(n.Add(1)))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// client is an HTTP/1.1 client whose connections end with the test.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// h2cClient is an HTTP/2 client in cleartext.
func h2cClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// do sends a request and returns the response with its body read.
func do(t testing.TB, c *http.Client, method, url, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the body: %v", method, url, err)
	}
	return resp, string(got)
}

// talk is a connection to the proxy on which a test writes what it likes.
type talk struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (r *rig) talk() *talk {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &talk{r.t, c, bufio.NewReader(c)}
}

// say writes.
func (c *talk) say(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads a response with its body.
func (c *talk) hear(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}

// closed fails the test unless the other end closes.
func (c *talk) closed() {
	c.t.Helper()
	if n, err := io.Copy(io.Discard, c.r); err != nil && !isReset(err) {
		c.t.Errorf("the connection is not closed: %d bytes, %v", n, err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}
