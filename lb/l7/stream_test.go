package l7_test

import (
	"bufio"
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

	"github.com/musterdns/muster/lb/l7"
	"github.com/musterdns/muster/registry"
)

// shout is an instance that upgrades to a protocol in which each line comes
// back in upper case with its name before it, and serves all else as named
// does. "bye" ends it.
func shout(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "shout" || r.Header.Get("Connection") != "Upgrade" {
			named(name)(w, r)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: shout\r\nX-By: "+name+"\r\n\r\nwelcome\n")
		for {
			line, err := rw.ReadString('\n')
			if err != nil || line == "bye\n" {
				return
			}
			_, _ = io.WriteString(c, name+" "+strings.ToUpper(line))
		}
	}
}

// upgrade opens an upgraded connection, with a line that comes early.
func (r *rig) upgrade(t testing.TB) (c *talk, name string) {
	t.Helper()
	c = r.talk()
	c.t = t
	c.say("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout\r\n\r\nearly\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "shout" {
		t.Fatalf("upgrading: %+v, %v", resp, err)
	}
	name = resp.Header.Get("X-By")
	c.line("welcome")
	c.line(name + " EARLY")
	return c, name
}

// line reads a line.
func (c *talk) line(want string) {
	c.t.Helper()
	if got, err := c.r.ReadString('\n'); err != nil || got != want+"\n" {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestProxy_Upgrades(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.TunnelAge = 200 * time.Millisecond })
	r.apply(registry.Batch{ // or the last instance would be served though it is down
		Services: []registry.Service{{Name: "web", Fail: "closed"}}, Instances: []registry.Instance{instance("web/a", server(t, shout("a")))},
	})
	c, _ := r.upgrade(t)
	for i := range 10 {
		c.say(fmt.Sprintf("line %d\n", i))
		c.line(fmt.Sprintf("a LINE %d", i))
	}
	if s := r.proxy.Stats(); s.Tunnels != 1 || s.InFlight != 1 {
		t.Errorf("%d tunnels and %d in flight, want 1", s.Tunnels, s.InFlight)
	}
	t.Run("the instance ends it", func(t *testing.T) {
		c.t = t
		c.say("bye\n")
		c.closed()
		c.Close()
		await(t, "the tunnel is gone", func() bool { s := r.proxy.Stats(); return s.Tunnels == 0 && s.InFlight == 0 })
	})
	t.Run("the client ends it", func(t *testing.T) {
		c, _ := r.upgrade(t)
		c.Close()
		await(t, "the tunnel is gone", func() bool { s := r.proxy.Stats(); return s.Tunnels == 0 && s.InFlight == 0 })
	})
	t.Run("an instance that refuses", func(t *testing.T) {
		c := r.talk()
		c.say("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
		if resp, body := c.hear("GET"); resp.StatusCode != http.StatusOK || body != "a GET /ws" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	})
	t.Run("the instance drains", func(t *testing.T) {
		begun := time.Now()
		c, _ := r.upgrade(t)
		r.admin("web/a", registry.AdminDrain)
		c.closed()
		if took := time.Since(begun); took < 150*time.Millisecond {
			t.Errorf("it was closed after %s, before its age", took)
		}
		r.admin("web/a", registry.AdminUp)
	})
	t.Run("the instance is marked down", func(t *testing.T) {
		c, _ := r.upgrade(t)
		r.admin("web/a", registry.AdminDown)
		c.closed()
	})
}

// TestProxy_Streams/parts of a body arrive as they are sent, in both directions
// at once, through every pair of engines.
func TestProxy_Streams(t *testing.T) {
	r := start(t, nil)
	addr := server(t, func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w)
		_ = flush.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = flush.Flush()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				w.Header().Set(http.TrailerPrefix+"X-Sum", r.Trailer.Get("X-In"))
				return
			}
			_, _ = io.WriteString(w, "heard "+line)
			_ = flush.Flush()
		}
	})
	r.register("web/a", addr)
	r.routes(`h2 {"path":"/h2","service":"web","protocol":"h2c"}`)
	for name, c := range map[string]*http.Client{"HTTP/1.1": client(t), "h2c": h2cClient(t)} {
		for _, path := range []string{"/", "/h2"} {
			t.Run(name+path, func(t *testing.T) {
				body, feed := io.Pipe()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url(path), body)
				if err != nil {
					t.Fatal(err)
				}
				req.Trailer = http.Header{"X-In": nil}
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				lines := bufio.NewReader(resp.Body)
				for i := range 20 {
					fmt.Fprintf(feed, "%d\n", i)
					if got, err := lines.ReadString('\n'); err != nil || got != fmt.Sprintf("heard %d\n", i) {
						t.Fatalf("got %q, %v", got, err)
					}
				}
				req.Trailer.Set("X-In", "42")
				feed.Close()
				if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
					t.Errorf("at the end %q, %v", rest, err)
				}
				if got := resp.Trailer.Get("X-Sum"); got != "42" {
					t.Errorf("the trailer is %q, want 42", got)
				}
			})
		}
	}
}

// TestProxy_Informational/early hints are passed on, 100 is said when the body
// is wanted.
func TestProxy_Informational(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	for _, n := range []int{5, 100_000} {
		c := r.talk()
		c.say(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", n))
		body, statuses := strings.Repeat("x", n), ""
		for sent := false; ; {
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			statuses += fmt.Sprint(resp.StatusCode, " ")
			if resp.StatusCode == http.StatusContinue && !sent {
				sent = true
				c.say(body)
			}
			if resp.StatusCode == http.StatusOK {
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != body {
					t.Errorf("%d bytes came back, %v; want %d", len(got), err, n)
				}
				break
			}
		}
		if !strings.Contains(statuses, "100 ") || !strings.Contains(statuses, "103 ") {
			t.Errorf("statuses %s, want 100 and 103 before 200", statuses)
		}
	}
}

// TestProxy_Changes/1,000 changes of membership and routes with upgraded
// connections and downloads open: none fails, none is cut.
func TestProxy_Changes(t *testing.T) {
	const changes, tunnels, downloads, askers = 1000, 10, 10, 4
	r := start(t, nil)
	release := make(chan struct{})
	handler := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/download" {
				shout(name)(w, req)
				return
			}
			_, _ = io.WriteString(w, "begin ")
			_ = http.NewResponseController(w).Flush()
			<-release
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20)+"end")
		}
	}
	var addrs []string
	for i := range 4 {
		addrs = append(addrs, server(t, handler(fmt.Sprintf("i%d", i))))
		r.register(fmt.Sprintf("web/i%d", i), addrs[i])
	}
	var open []*talk
	var names []string
	for range tunnels {
		c, name := r.upgrade(t)
		open, names = append(open, c), append(names, name)
	}
	var busy sync.WaitGroup
	var begun atomic.Int64
	for i := range downloads {
		c := client(t)
		if i%2 == 1 {
			c = h2cClient(t)
		}
		busy.Go(func() {
			resp, err := c.Get(r.url("/download"))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			begun.Add(1)
			if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "end") {
				t.Errorf("a download ends after %d bytes: %v", len(body), err)
			}
		})
	}
	await(t, "the downloads have begun", func() bool { return begun.Load() == downloads })
	stop := make(chan struct{})
	var asked, failed atomic.Int64
	for i := range askers {
		c := client(t)
		busy.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				method := []string{"GET", "POST"}[(i+n)%2]
				if resp, body := do(t, c, method, r.url("/"), ""); resp.StatusCode != http.StatusOK {
					failed.Add(1)
					t.Errorf("%s: %d %q", method, resp.StatusCode, body)
				}
			}
		})
	}
	for n := range changes {
		i := n % 3 // the fourth stays
		in := instance(fmt.Sprintf("web/i%d", i), addrs[i])
		switch n / 3 % 4 {
		case 0:
			r.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "web", Name: in.ID}}})
		case 1:
			in.Incarnation = int64(n)
			r.apply(registry.Batch{Instances: []registry.Instance{in}})
		case 2:
			r.admin("web/"+in.ID, registry.AdminDrain)
		case 3:
			r.admin("web/"+in.ID, registry.AdminUp)
		}
		if n%10 == 0 {
			r.routes(fmt.Sprintf(`r%d {"path":"/r%d","service":"web","sticky":"s"}`, n, n))
		}
	}
	close(stop)
	close(release)
	for i, c := range open {
		c.say("still\n")
		c.line(names[i] + " STILL")
		c.Close()
	}
	busy.Wait()
	t.Logf("%d requests, %d failed, beside %d changes", asked.Load(), failed.Load(), changes)
}

// TestProxy_Stops/a stop lets what is in flight end, and closes what is idle.
func TestProxy_Stops(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.Drain = 20 * time.Second })
	begun, release := make(chan struct{}, 4), make(chan struct{})
	r.register("web/a", server(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
		named("a")(w, req)
	}))
	idle := r.talk()
	idle.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.hear("GET")
	var asking sync.WaitGroup
	for _, c := range []*http.Client{client(t), h2cClient(t)} {
		asking.Go(func() {
			if resp, body := do(t, c, "GET", r.url("/slow"), ""); resp.StatusCode != http.StatusOK || body != "a GET /slow" {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		})
		<-begun
	}
	addr := r.addr()
	var stopping sync.WaitGroup
	stopping.Go(r.stop)
	idle.closed()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a connection is taken after the stop")
	}
	close(release)
	asking.Wait()
	stopping.Wait()
}

// TestProxy_Stops/a stop cuts what does not end in time.
func TestProxy_StopsInTime(t *testing.T) {
	r := start(t, func(c *l7.Config) { c.Limits.Drain = 100 * time.Millisecond })
	r.register("web/a", server(t, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }))
	c := r.talk()
	c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	await(t, "it is in flight", func() bool { return r.proxy.Stats().InFlight == 1 })
	r.stop()
	c.closed()
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	r := start(t, nil)
	d := r.dispatch
	good := l7.Listener{Name: "a", Address: "127.0.0.1:0"}
	for name, cfg := range map[string]l7.Config{
		"no dispatcher":        {Source: 1, Listeners: []l7.Listener{good}},
		"no source":            {Dispatcher: d, Listeners: []l7.Listener{good}},
		"no listener":          {Dispatcher: d, Source: 1},
		"two of a name":        {Dispatcher: d, Source: 1, Listeners: []l7.Listener{good, good}},
		"no port":              {Dispatcher: d, Source: 1, Listeners: []l7.Listener{{Name: "a", Address: "127.0.0.1"}}},
		"a service of no name": {Dispatcher: d, Source: 1, Listeners: []l7.Listener{{Name: "a", Address: ":0", Service: "a_b"}}},
		"a short secret":       {Dispatcher: d, Source: 1, Listeners: []l7.Listener{good}, Secret: []byte("short")},
	} {
		if _, err := l7.New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	twice := l7.Config{Dispatcher: d, Source: 1, Listeners: []l7.Listener{good, {Name: "b", Address: netip.MustParseAddrPort(r.addr()).String()}}}
	p, err := l7.New(twice)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err == nil || p.Addr("a") != nil {
		t.Errorf("Listen bound one of two: %v", err)
	}
}

// TestProxy_HearsConnectionsOutWhenItStops/what a client asks a moment after the proxy
// was told to stop, on a connection on which nothing is under way, is answered, and the
// connection closed.
func TestProxy_HearsConnectionsOutWhenItStops(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", server(t, named("a")))
	ask := func(c *talk) *http.Response {
		t.Helper()
		c.say("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, body := c.hear("GET")
		if resp.StatusCode != http.StatusOK || body != "a GET /x" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		return resp
	}
	parked := r.talk()
	ask(parked)
	await(t, "it is parked", func() bool { return r.proxy.Stats().Parked == 1 })
	fresh, idle := r.talk(), r.talk()
	ask(idle)
	await(t, "all are accepted", func() bool { return r.proxy.Stats().Connections == 3 })
	var stopping sync.WaitGroup
	stopping.Go(r.stop)
	<-time.After(100 * time.Millisecond)
	for _, c := range []*talk{parked, fresh, idle} {
		if resp := ask(c); !resp.Close {
			t.Error("the client is not told that the connection is closed")
		}
		c.closed()
	}
	stopping.Wait()
}
