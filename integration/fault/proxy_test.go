package fault_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// proxied is a server with a proxy before three instances of service web, which
// are checked twice a second. Who is gone refuses at once; what a busy machine holds
// up for a second or two has not failed.
func proxied(t *testing.T) (l *fault.Lab, e *fault.Etcd, s *fault.Server, backends []*program.Process) {
	t.Helper()
	return proxiedEvery(t, "500ms")
}

// proxiedEvery is proxied with another interval between checks.
func proxiedEvery(t *testing.T, interval string) (l *fault.Lab, e *fault.Etcd, s *fault.Server, backends []*program.Process) {
	t.Helper()
	l = newLab(t)
	e = etcd(t, l)
	put(t, e, fault.Keys+"services/web", fmt.Sprintf(`{"checks":[{"type":"http","interval":%q,"timeout":"3s","fall":2,"rise":1}]}`, interval))
	for i := range byte(3) {
		host := 100 + i
		p, err := l.StartBackend(t.Context(), host)
		must(t, err)
		backends = append(backends, p)
		put(t, e, fault.Instance("web", fmt.Sprintf("web-%d", i+1)), l.Addr(host).String()+":8080")
	}
	s = run(t, l, fault.Settings{Etcd: e.URL, More: l.Proxy("web")})
	return l, e, s, backends
}

// clients ask all the time until stop is called, which tells what has failed and
// who has answered. Each request has a connection of its own, or not.
func clients(ctx context.Context, addr string, kept bool) (stop func() (failed []string, answered map[string]int)) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var failed []string
	answered := map[string]int{}
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			transport := &http.Transport{DisableKeepAlives: !kept}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
			for ctx.Err() == nil {
				from, err := ask(client, "http://"+addr+"/")
				mu.Lock()
				if err != nil {
					failed = append(failed, err.Error())
				} else {
					answered[from]++
				}
				mu.Unlock()
			}
		})
	}
	return func() ([]string, map[string]int) { cancel(); running.Wait(); return failed, answered }
}

// ask returns who answered a request.
func ask(client *http.Client, url string) (from string, err error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

// awaitAnswer asks until somebody answers whose answer has a prefix.
func awaitAnswer(t *testing.T, url, prefix string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		from, err := ask(client, url)
		if err == nil && !strings.HasPrefix(from, prefix) {
			err = fmt.Errorf("%s answers with %q, want %q", url, from, prefix)
		}
		return err
	}))
}

func TestProxy_FailsOverWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	l, _, s, backends := proxied(t)
	stop := clients(t.Context(), l.HTTPAddr(), true)
	each := clients(t.Context(), l.TCPAddr(), false)
	must(t, fault.Kill(backends[0]))
	logged(t, s, "health changed", l.Addr(100).String(), `"to":"failing"`)
	_, err := l.CLI(t.Context(), "drain", "web/web-2")
	must(t, err)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		out, err := l.CLI(t.Context(), "proxy", "status")
		if err == nil && (!strings.Contains(out, "drain by an administrator") || strings.Count(out, "100.0%") != 1) {
			err = errors.New("the proxy has more than one instance in:\n" + out)
		}
		return err
	}))
	_, err = l.StartBackend(t.Context(), 100)
	must(t, err)
	logged(t, s, "health changed", l.Addr(100).String(), `"from":"failing","to":"passing"`)
	awaitAnswer(t, "http://"+l.HTTPAddr(), l.Addr(100).String())
	awaitAnswer(t, "http://"+l.TCPAddr(), l.Addr(100).String())
	failed, answered := stop()
	if len(failed) > 0 || len(answered) < 3 {
		t.Errorf("over HTTP %d requests failed and %v answered; want none, and all three: %v", len(failed), answered, failed)
	}
	// A connection that a killed instance had is reset with it: one a client.
	failed, answered = each()
	if len(failed) > 4 || len(answered) != 3 {
		t.Errorf("over TCP %d connections failed and %v answered; want at most 4, and all three: %v", len(failed), answered, failed)
	}
}

func TestProxy_CountsByInstance(t *testing.T) {
	t.Parallel()
	l, e, s, _ := proxied(t)
	put(t, e, fault.Instance("web", "dead"), l.Addr(110).String()+":8080") // nobody is there, and no check has seen that
	put(t, e, fault.Keys+"services/web", `{"checks":[]}`)
	series := func(name, id string) string {
		return fmt.Sprintf(`muster_proxy_instance_%s{instance_id=%q,part="",service="web",zone="svc.internal."}`, name, id)
	}
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error { // one after the other, or more than five would fail
		if _, err := ask(http.DefaultClient, "http://"+l.HTTPAddr()+"/"); err != nil {
			t.Errorf("a request failed: %v", err)
		}
		n, err := s.Metric(t.Context(), series("ejections_total", "dead"))
		if err == nil && n != 1 {
			err = fmt.Errorf("%v ejections", n)
		}
		return err
	}))
	http.DefaultClient.CloseIdleConnections()
	for name, want := range map[string]float64{"failures_total": 5, "requests_total": 5, "ejected": 1, "share": 0, "in_flight": 0} {
		metric(t, s, series(name, "dead"), want)
	}
	if n, err := s.Metric(t.Context(), series("requests_total", "web-1")); err != nil || n < 1 {
		t.Errorf("web-1 has had %v requests, %v", n, err)
	}
	metric(t, s, "muster_proxy_instances_left_out", 0)
	if out, err := l.CLI(t.Context(), "doctor"); !strings.Contains(out, "instance web/dead: this server's proxy has ejected it: its requests failed, 5 of 5") {
		t.Errorf("muster doctor does not tell of the ejection: %v\n%s", err, out)
	}
	_, err := e.Client.Delete(t.Context(), fault.Instance("web", "dead"))
	must(t, err)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		if n, err := s.Metric(t.Context(), series("ejected", "dead")); err == nil {
			return fmt.Errorf("the series of an instance that is gone is there: %v", n)
		}
		return nil
	}))
}

// TestProxy_FindsAnInstanceThatHangs: of an instance that accepts and does not
// answer the proxy alone learns, when its next check is far away and requests to
// it have 30 s.
func TestProxy_FindsAnInstanceThatHangs(t *testing.T) {
	t.Parallel()
	for _, over := range []string{"http", "tcp"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			l, _, s, backends := proxiedEvery(t, "10m")
			addr := map[string]string{"http": l.HTTPAddr(), "tcp": l.TCPAddr()}[over]
			for i := range backends { // each is well, as far as the proxy knows
				awaitAnswer(t, "http://"+addr, l.Addr(byte(100+i)).String())
			}
			must(t, backends[0].Signal(syscall.SIGSTOP))
			t.Cleanup(func() { _ = backends[0].Signal(syscall.SIGCONT) })
			stop := clients(t.Context(), addr, over == "http")
			logged(t, s, "health changed", l.Addr(100).String(), `"to":"failing"`)
			failed, _ := stop()
			// A request is taken back, a connection that was asked is reset with its instance.
			if allowed := map[string]int{"http": 0, "tcp": 4}[over]; len(failed) > allowed {
				t.Errorf("%d requests failed, want at most %d: %v", len(failed), allowed, failed)
			}
		})
	}
}

func TestProxy_TakesRoutesFromEtcd(t *testing.T) {
	t.Parallel()
	l, e, _, _ := proxied(t)
	put(t, e, fault.Instance("api", "one"), l.Addr(102).String()+":8080")
	url := "http://" + l.HTTPAddr()
	put(t, e, fault.Keys+"routes/api", `{"path":"/api","service":"api","strip_prefix":true}`)
	awaitAnswer(t, url+"/api/users", l.Addr(102).String()+":8080 /users")
	out, err := l.CLI(t.Context(), "explain", "--proxy", url+"/api/users")
	if err != nil || !strings.Contains(out, "route api: taken") || !strings.Contains(out, "asked for /users") {
		t.Errorf("explain says %v\n%s", err, out)
	}
	// What cannot have an effect is told.
	put(t, e, fault.Keys+"routes/hashed", `{"path":"/hashed","service":"api","hash_on":"header:X-User"}`)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		if out, _ := l.CLI(t.Context(), "doctor"); !strings.Contains(out, "route hashed: hash_on has no effect: instances of api are chosen by policy weighted") {
			return errors.New("muster doctor does not tell of hash_on without hash:\n" + out)
		}
		return nil
	}))
	// Segments are whole: /api2 is not below /api.
	awaitAnswer(t, url+"/api2", l.Addr(100).String()+":8080 /api2")
	put(t, e, fault.Keys+"routes/bad", `{"path":"api","service":"api"}`)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		if out, _ := l.CLI(t.Context(), "doctor"); !strings.Contains(out, "/muster/v1/routes/bad") {
			return errors.New("muster doctor does not show the bad route:\n" + out)
		}
		return nil
	}))
	// One that is mistyped stays as it was, and is shown with what was meant.
	put(t, e, fault.Keys+"routes/api", `{"pathh":"/api","service":"web"}`)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		out, _ := l.CLI(t.Context(), "doctor")
		for _, want := range []string{"/muster/v1/routes/api", `"pathh"`, "write it as path"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("muster doctor does not show %s:\n%s", want, out)
			}
		}
		return nil
	}))
	awaitAnswer(t, url+"/api/users", l.Addr(102).String()+":8080 /users")
	// One whose record is good but cannot be used here is shown too.
	put(t, e, fault.Keys+"routes/lost", `{"path":"/lost","service":"api","zone":"elsewhere."}`)
	must(t, fault.Until(t.Context(), 20*time.Millisecond, func() error {
		for _, verb := range [][]string{{"doctor"}, {"proxy", "status"}} {
			if out, _ := l.CLI(t.Context(), verb...); !strings.Contains(out, "route lost") || !strings.Contains(out, "none of this server's") {
				return fmt.Errorf("muster %v does not show the route that cannot be used:\n%s", verb, out)
			}
		}
		return nil
	}))
	_, err = e.Client.Delete(t.Context(), fault.Keys+"routes/api")
	must(t, err)
	awaitAnswer(t, url+"/api/users", l.Addr(101).String()+":8080 /api/users")
}

func TestProxy_HandsItsSocketsOver(t *testing.T) {
	t.Parallel()
	l, _, s, _ := proxied(t)
	over := clients(t.Context(), l.HTTPAddr(), false)
	stream := clients(t.Context(), l.TCPAddr(), false)
	must(t, s.Signal(syscall.SIGUSR2))
	<-s.Done()
	if s.ExitCode() != 0 {
		t.Errorf("the old process ends with %d, want 0\n%s", s.ExitCode(), s.LogTail())
	}
	successor(t, s)
	awaitAnswer(t, "http://"+l.HTTPAddr(), l.Addr(100).String())
	for what, stop := range map[string]func() ([]string, map[string]int){"http": over, "tcp": stream} {
		if failed, answered := stop(); len(failed) > 0 || len(answered) == 0 {
			t.Errorf("%s: %d connections failed of those that %v answered: %v", what, len(failed), answered, failed)
		}
	}
}

func TestProxy_RunsAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	_, err := l.StartBackend(t.Context(), 100)
	must(t, err)
	put(t, e, fault.Instance("web", "one"), l.Addr(100).String()+":8080")
	must(t, l.Configure(fault.Settings{Etcd: e.URL, More: l.Proxy("web")}))
	s, err := l.ServeProxy()
	must(t, err)
	must(t, s.Ready(t.Context()))
	awaitAnswer(t, "http://"+l.HTTPAddr(), l.Addr(100).String())
	if conn, err := net.DialTimeout("tcp", s.DNS, time.Second); err == nil {
		conn.Close()
		t.Error("muster proxy answers DNS")
	}
	// A client that speaks no HTTP is told what it did.
	conn, err := net.Dial("tcp", l.HTTPAddr())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "HELO\r\n\r\n")
	must(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "400") {
		t.Errorf("nonsense is answered with %q, %v; want 400", line, err)
	}
}
