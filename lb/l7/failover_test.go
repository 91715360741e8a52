package l7_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
)

// TestProxy_FailsOver/instances die, fail and drain under load, and no
// idempotent request fails for it.
func TestProxy_FailsOver(t *testing.T) {
	const askers, requests = 8, 100
	r := start(t, nil)
	var broken atomic.Bool
	victim := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		named("victim")(w, req)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = victim.Serve(l) })
	t.Cleanup(func() {
		victim.Close()
		serving.Wait()
	})
	r.register("web/victim", l.Addr().String(), "web/b", server(t, named("b")), "web/c", server(t, named("c")))
	clients := []*http.Client{client(t), h2cClient(t)}
	// load has all ask at once, and calls event when half is done.
	load := func(what string, event func()) {
		t.Helper()
		var asking sync.WaitGroup
		var done atomic.Int64
		happened := make(chan struct{})
		for i := range askers {
			asking.Go(func() {
				for n := range requests {
					resp, body := do(t, clients[i%2], []string{"GET", "PUT", "DELETE"}[n%3], r.url("/"), "")
					if resp.StatusCode != http.StatusOK {
						t.Errorf("%s: %d %q", what, resp.StatusCode, body)
					}
					if done.Add(1) == askers*requests/2 {
						event()
						close(happened)
					}
				}
			})
		}
		asking.Wait()
		<-happened
	}
	load("500s", func() { broken.Store(true) })
	broken.Store(false)
	load("drain", func() { r.admin("web/victim", registry.AdminDrain) })
	r.admin("web/victim", registry.AdminUp)
	load("death", func() { victim.Close() })
	if s := r.proxy.Stats(); s.Retries == 0 {
		t.Error("nothing was retried: the test shows nothing")
	}
}

// TestProxy_HashOn/a key stays with its instance, whichever way it is given.
func TestProxy_HashOn(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Listeners[0].Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	var list []registry.Instance
	for _, id := range []string{"a", "b", "c", "d"} {
		list = append(list, instance("web/"+id, server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(id)) })))
	}
	r.apply(registry.Batch{Services: []registry.Service{{Name: "web", Policy: "hash"}}, Instances: list})
	r.routes(`header {"path":"/header","service":"web","hash_on":"header:X-User"}`, `cookie {"path":"/cookie","service":"web","hash_on":"cookie:user"}`)
	c := client(t)
	ask := func(path, field string) string {
		_, body := do(t, c, "GET", r.url(path), "", field)
		return body
	}
	for _, by := range []struct{ path, field string }{{"/header", "X-User: %d"}, {"/cookie", "Cookie: x=1; user=%d"}} {
		seen := map[string]bool{}
		for user := range 40 {
			field := fmt.Sprintf(by.field, user)
			first := ask(by.path, field)
			seen[first] = true
			for range 3 {
				if again := ask(by.path, field); again != first {
					t.Errorf("%s: %s, then %s", field, first, again)
				}
			}
		}
		if len(seen) != len(list) {
			t.Errorf("%s: 40 users reach %d instances, want all", by.path, len(seen))
		}
	}
	// Cause: who had none of them all hashed alike, to one instance of all.
	for _, path := range []string{"/header", "/cookie"} {
		seen := map[string]bool{}
		for n := range 40 {
			seen[ask(path, fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", n))] = true
		}
		if len(seen) != len(list) {
			t.Errorf("%s: 40 clients without a key reach %d instances, want all", path, len(seen))
		}
	}
	for range 10 { // one client, one instance
		if first, again := ask("/", "X-User: 1"), ask("/", "X-User: 2"); first != again {
			t.Errorf("one client goes to %s and %s", first, again)
		}
	}
}

// TestProxy_Circuit/instances at their limit get nothing more, and the client
// is told when to come again.
func TestProxy_Circuit(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.Active = 1 })
	begun, release := make(chan struct{}, 2), make(chan struct{})
	hold := func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	}
	r.register("web/a", server(t, hold), "web/b", server(t, hold))
	c := client(t)
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			if resp, _ := do(t, c, "GET", r.url("/"), ""); resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
		<-begun
	}
	resp, body := do(t, c, "GET", r.url("/"), "")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v %q, want 503 with Retry-After", resp.StatusCode, resp.Header, body)
	}
	close(release)
	asking.Wait()
}
