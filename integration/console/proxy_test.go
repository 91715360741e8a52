package console_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/musterdns/muster/integration/fault"
)

func TestConsole_ShowsWhatTheProxySees(t *testing.T) {
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{More: l.Proxy("web")})
	if err != nil {
		t.Fatal(err)
	}
	const dead = 102
	for id, host := range map[string]byte{"one": 100, "two": 101, "dead": dead} {
		if host != dead {
			if _, err := l.StartBackend(t.Context(), host); err != nil {
				t.Fatal(err)
			}
		}
		command(t, l, "register", "web", "--id", id, "--address", l.Addr(host).String(), "--port", "8080", "--check", "none", "--forever")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 40 { // as many as eject what refuses them
		resp, err := client.Get("http://" + l.HTTPAddr() + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	conn, err := net.Dial("tcp", l.TCPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	ctx, told := browser(t, s.Admin+"/")
	if err := chromedp.Do(ctx, chromedp.WaitVisible("#connection.good")); err != nil {
		t.Fatal(err)
	}
	// Instance, chosen, in flight, requests, failures, ejections, share.
	out := strings.Fields(shown(ctx, t, `[data-proxied="dead"]`))
	if len(out) < 8 || strings.Join(out[:3], " ") != "dead ejected 0" || out[3] != "5" || out[4] != "5" || out[5] != "1" || out[6] != "0.0" {
		t.Errorf("the ejected instance is shown as %q", out)
	}
	table := shown(ctx, t, "#proxies table")
	if !strings.Contains(table, "1 in flight") || strings.Count(table, "50.0 %") != 2 {
		t.Errorf("the connection, or the others' shares, are missing:\n%s", table)
	}
	flying := 0
	for _, id := range []string{"one", "two"} {
		if row := strings.Fields(shown(ctx, t, `[data-proxied="`+id+`"]`)); row[2] == "1" {
			flying++
		}
	}
	if flying != 1 {
		t.Errorf("%d instances are shown with the connection, want one", flying)
	}
	conn.Close()
	gone := chromedp.Poll[bool](`document.querySelector("#proxies caption")?.textContent.includes(" 0 in flight")`, chromedp.WithPollingInterval(50*time.Millisecond))
	if _, err := chromedp.Run(ctx, gone); err != nil {
		t.Errorf("the end of the connection is not shown: %v", err)
	}
	if lines := told(); lines != "" {
		t.Errorf("the browser says:\n%s", lines)
	}
}
