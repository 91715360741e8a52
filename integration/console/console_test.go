package console_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) {
	if fault.Backend(os.Args) { // an instance of a test
		return
	}
	goleak.VerifyTestMain(m)
}

// hostile is what nobody should write, in a place that the console shows.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

// browser opens the console in a browser that ends with the test. told is what the
// browser has had to say: what a page writes to its console, and what it broke.
func browser(t *testing.T, url string, more ...chromedp.ExecAllocatorOption) (ctx context.Context, told func() string) {
	t.Helper()
	chromium, err := program.Find("chromium")
	if err != nil {
		t.Fatalf("chromium is needed: apt-get install chromium: %v", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()))
	options = append(options, more...)
	ctx, cancelTime := context.WithTimeout(t.Context(), 60*time.Second)
	ctx, cancelBrowser := chromedp.NewExecAllocator(ctx, options...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		cancelTab()
		cancelBrowser()
		cancelTime()
	})
	messages := chromedp.Console(ctx)
	var mu sync.Mutex
	var lines []string
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			mu.Lock()
			lines = append(lines, m.String())
			mu.Unlock()
		}
	}()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return ctx, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, "\n")
	}
}

// shown waits until the page has what a selector is to find, and returns its text.
func shown(ctx context.Context, t *testing.T, selector string) string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Text(selector))
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return text
}

func newLab(t *testing.T) *fault.Lab {
	t.Helper()
	bin, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := fault.NewLab(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// command runs muster against the lab's server.
func command(t *testing.T, l *fault.Lab, args ...string) {
	t.Helper()
	if out, err := l.CLI(t.Context(), args...); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func TestConsole_ShowsAChangeWithoutBeingLoadedAgain(t *testing.T) {
	l := newLab(t)
	s, err := l.Run(t.Context(), fault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) { command(t, l, args...) }
	for i, id := range []string{"one", "two"} {
		run("register", "web", "--id", id, "--address", fmt.Sprintf("10.9.0.%d", i+1), "--port", "8080", "--check", "none", "--forever")
	}
	ctx, told := browser(t, s.Admin+"/")
	before := shown(ctx, t, `[data-instance="one"]`)
	if !strings.Contains(before, "in") || !strings.Contains(before, "50.0 %") || !strings.Contains(before, "10.9.0.1:8080") {
		t.Errorf("an instance is shown as %q", before)
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.stayed = true`)); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.WaitVisible("#connection.good")); err != nil {
		t.Fatal(err)
	}
	run("drain", "web/one", "--reason", hostile)
	after := shown(ctx, t, `[data-instance="one"].changed`)
	if !strings.Contains(after, "out") || !strings.Contains(after, "drain") {
		t.Errorf("the drained instance is shown as %q", after)
	}
	if other := shown(ctx, t, `[data-instance="two"]`); !strings.Contains(other, "100.0 %") {
		t.Errorf("the other is shown as %q", other)
	}
	if n := shown(ctx, t, "#services .count.warn"); n != "1/2" {
		t.Errorf("the service's count is %q", n)
	}
	if e := shown(ctx, t, "#events li"); !strings.Contains(e, "web/one") {
		t.Errorf("the event is shown as %q", e)
	}
	run("deregister", "web/two")
	if f := shown(ctx, t, "#failure:not(:empty)"); !strings.Contains(f, "two") || !strings.Contains(f, "deregistered while it was answered") {
		t.Errorf("the end of an instance that was answered is shown as %q", f)
	}
	title, err := chromedp.Run(ctx, chromedp.Title())
	if err != nil {
		t.Fatal(err)
	}
	stayed, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.stayed === true`))
	if err != nil {
		t.Fatal(err)
	}
	page, err := chromedp.Run(ctx, chromedp.OuterHTML("body"))
	if err != nil {
		t.Fatal(err)
	}
	if !stayed {
		t.Error("the page was loaded again")
	}
	if title != "Muster" || strings.Contains(page, "<img") || !strings.Contains(page, "&lt;img src=x") {
		t.Errorf("what was written as a reason is no text: title %q", title)
	}
	if lines := told(); lines != "" {
		t.Errorf("the browser says:\n%s", lines)
	}
}
