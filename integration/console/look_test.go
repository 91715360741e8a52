package console_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/musterdns/muster/integration/fault"
)

// evaluate runs a script in the page.
func evaluate[T any](ctx context.Context, t *testing.T, script string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return v
}

// post sends JSON to the server's API.
func post(t *testing.T, s *fault.Server, path, body string) {
	t.Helper()
	resp, err := http.Post(s.Admin+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", path, body, resp.Status)
	}
}

// registered starts a server with n instances of the service web, one of them drained,
// and one of the service api.
func registered(t *testing.T, n int) (*fault.Lab, *fault.Server) {
	t.Helper()
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		post(t, s, "/v1/register", fmt.Sprintf(`{"service":"web","id":"i%03d","instance":{"address":"10.9.%d.%d","port":8080,"region":"eu","zone":"eu-1a","checks":[]}}`, i, i/250, i%250+1))
	}
	post(t, s, "/v1/register", `{"service":"api","id":"one","instance":{"address":"10.9.200.1","port":8080,"checks":[]}}`)
	post(t, s, "/v1/admin", fmt.Sprintf(`{"service":"web","instance":"i%03d","state":"drain","reason":"%s"}`, n-1, strings.Repeat("a long reason ", 12)))
	return l, s
}

// TestConsole_FitsTheWindow holds all that a row says to windows from that of a telephone on.
func TestConsole_FitsTheWindow(t *testing.T) {
	_, s := registered(t, 2)
	ctx, _ := browser(t, s.Admin+"/#svc.internal./web")
	for _, width := range []int64{360, 500, 750, 800, 1000, 1100, 1400} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900)); err != nil {
			t.Fatal(err)
		}
		if row := shown(ctx, t, `[data-instance="i001"]`); !strings.Contains(row, "a long reason") {
			t.Errorf("the row is %q", row)
		}
		// Of cards the columns' names are there to be read aloud.
		const outside = `[...document.querySelectorAll("body :not(thead, thead *)")].filter((e) => e.getBoundingClientRect().right > e.closest("section, main, body").getBoundingClientRect().right).map((e) => e.outerHTML.slice(0, 100)).join("\n")`
		if wide := evaluate[string](ctx, t, outside); wide != "" {
			t.Errorf("%d pixels wide: beyond the edge are:\n%s", width, wide)
		}
		// It is a table, all the same, for who does not see it.
		const roles = `[...document.querySelectorAll("#instances tr")].every((r) => r.getAttribute("role") === "row" && r.children.length === document.querySelectorAll("#columns th").length)`
		if !evaluate[bool](ctx, t, roles) {
			t.Error("the rows and columns are those of no table")
		}
	}
}

// TestConsole_KeepsFocusAndSelection has an instance change while another's address is
// being selected, and a service be registered before the one that has the focus.
func TestConsole_KeepsFocusAndSelection(t *testing.T) {
	l, s := registered(t, 2)
	ctx, _ := browser(t, s.Admin+"/#svc.internal./web")
	shown(ctx, t, `[data-instance="i001"]`)
	evaluate[bool](ctx, t, `document.querySelector('[data-service$="/web"]').focus(), getSelection().selectAllChildren(document.querySelector('[data-instance="i000"] code')), true`)
	command(t, l, "register", "earlier", "--id", "one", "--address", "10.9.0.9", "--port", "8080", "--check", "none", "--forever")
	command(t, l, "drain", "web/i001", "--undo")
	shown(ctx, t, `[data-instance="i001"].changed`)
	shown(ctx, t, `[data-service$="/earlier"]`)
	if at := evaluate[string](ctx, t, `document.activeElement.dataset.service ?? document.activeElement.tagName`); at != "svc.internal./web" {
		t.Errorf("the focus is at %s, want at the service web", at)
	}
	if text := evaluate[string](ctx, t, `String(getSelection())`); text != "10.9.0.1:8080" {
		t.Errorf("%q is selected, want the address", text)
	}
}

// TestConsole_ShowsSomeOfVeryManyInstances holds the page to a size that a browser can
// bear, with what is not answered on it.
func TestConsole_ShowsSomeOfVeryManyInstances(t *testing.T) {
	_, s := registered(t, 250)
	ctx, _ := browser(t, s.Admin+"/#svc.internal./web")
	if row := shown(ctx, t, `#instances tr:first-child`); !strings.Contains(row, "i249") {
		t.Errorf("the first of very many is %q, want the one that is drained", row)
	}
	if n := evaluate[int](ctx, t, `document.querySelectorAll("#instances tr").length`); n != 200 {
		t.Errorf("%d instances are shown, want 200", n)
	}
	if rest := shown(ctx, t, "#rest"); !strings.Contains(rest, "and 50 more") {
		t.Errorf("of the others it says %q", rest)
	}
}

// TestConsole_ShowsSomeOfVeryManyServices: the one that was ill was among those that are not
// listed.
func TestConsole_ShowsSomeOfVeryManyServices(t *testing.T) {
	_, s := registered(t, 2)
	for i := range 500 {
		post(t, s, "/v1/register", fmt.Sprintf(`{"service":"s%03d","id":"one","instance":{"address":"10.9.201.1","port":8080,"checks":[]}}`, i))
	}
	ctx, _ := browser(t, s.Admin+"/")
	if row := shown(ctx, t, `#services li:first-child`); !strings.Contains(row, "web") {
		t.Errorf("the first of very many is %q, want the one with an instance that is drained", row)
	}
	if more := shown(ctx, t, "#more"); !strings.Contains(more, "and 2 more") {
		t.Errorf("of the others it says %q", more)
	}
}

// contrast lists texts of the page that stand out from what is behind them by less than
// WCAG 2.1 asks for in 1.4.3 (AA): 4.5 to 1.
const contrast = `(() => {
  const rgb = (c) => c.match(/[\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
  document.getElementById("alarm").hidden = false;
  document.getElementById("alarm").textContent = "an alarm";
  for (const tone of ["good", "bad", "warn", "dim"]) {
    const all = document.createElement("span");
    all.className = tone; all.textContent = tone;
    for (const place of ["#name", "[aria-current]", "#events", "header"]) document.querySelector(place).append(all.cloneNode(true));
  }
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(e.textContent.slice(0, 40) + ": " + ratio.toFixed(2));
  }
  return matchMedia("(prefers-color-scheme: dark)").matches + "\n" + poor.join("\n");
})()`

func TestConsole_Contrast(t *testing.T) {
	_, s := registered(t, 2)
	for scheme, flags := range map[string][]chromedp.ExecAllocatorOption{
		"false": nil,
		"true":  {chromedp.Flag("blink-settings", "preferredColorScheme=0")},
	} {
		t.Run("dark "+scheme, func(t *testing.T) {
			ctx, _ := browser(t, s.Admin+"/#svc.internal./web", flags...)
			shown(ctx, t, `[data-instance="i001"]`)
			shown(ctx, t, "#connection.good")
			if poor := evaluate[string](ctx, t, contrast); poor != scheme+"\n" {
				t.Errorf("dark, and what is hard to read: %s", poor)
			}
		})
	}
}
