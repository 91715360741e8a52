package cli_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/musterdns/muster/cmd/internal/cli"
)

// TestRun_interrupted ends a command that waits for its answer, as Ctrl-C does.
func TestRun_interrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		interrupt()
		<-r.Context().Done()
	}))
	defer srv.Close()
	var out, errs output
	code := cli.Run(ctx, cli.App{}, []string{"status", "--addr", srv.URL}, strings.NewReader(""), &out, &errs)
	if code != 1 || errs.String() != "muster: interrupted\n" {
		t.Errorf("exit code %d, errors %q", code, errs.String())
	}
}

// TestRun_documented_verbs: every verb that the documents and the console name is there.
func TestRun_documented_verbs(t *testing.T) {
	app := cli.App{Serve: func(context.Context, cli.ServeOptions) error { return nil }}
	verb := regexp.MustCompile("(?:`|<code>|\\$ )muster ([a-z]+)")
	for _, file := range []string{
		"../../../README.md", "../../../CHANGELOG.md", "../../../lb/README.md", "../../../health/README.md",
		"../../../dnsserver/README.md", "../admin/console/index.html",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := verb.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names no verb", file)
		}
		for _, match := range found {
			var out, errs output
			if code := cli.Run(t.Context(), app, []string{"help", match[1]}, strings.NewReader(""), &out, &errs); code != 0 {
				t.Errorf("%s: muster %s: %s", file, match[1], errs.String())
			}
		}
	}
}
