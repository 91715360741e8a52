package cli_test

import (
	"context"
	"net/http"
	"net/http/httptest"
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
