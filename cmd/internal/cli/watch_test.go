package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/musterdns/muster/cmd/internal/cli"
)

func TestWatch_prints_what_changed_and_what_is_gone(t *testing.T) {
	instance := func(id string, serving bool, health string) string {
		return fmt.Sprintf(`{"zone":"z.","service":"web","id":%q,"domain":%q,"addresses":["10.0.0.1"],"weight":1,"serving":%t,"why":"because","health":%q}`,
			id, id+".web.z.", serving, health)
	}
	lists := []string{
		instance("a", true, "passing") + "," + instance("b", true, "passing"),
		instance("a", false, "failing") + "," + instance("b", true, "passing"),
		instance("a", false, "failing"),
	}
	listed, streams := 0, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/instances":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"instances":[%s]}`, lists[min(listed, len(lists)-1)])
			listed++
		case streams == 0:
			w.Header().Set("Content-Type", "text/event-stream")
			streams++
			fmt.Fprint(w, "data: {\"id\":1,\"kind\":\"health\",\"zone\":\"z.\",\"service\":\"web\"}\n\ndata: {\"id\":2,\"kind\":\"gap\"}\n\n")
		default:
			http.Error(w, `{"error":{"message":"enough"}}`, http.StatusGone)
		}
	}))
	defer srv.Close()
	var out, errs output
	code := cli.Run(t.Context(), cli.App{}, []string{"watch", "web", "--addr", srv.URL}, strings.NewReader(""), &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "muster: enough") {
		t.Errorf("exit code %d, errors %q", code, errs.String())
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		got = append(got, strings.Join([]string{f[0], f[2], f[3], f[len(f)-1]}, " "))
	}
	want := []string{
		"INSTANCE IN HEALTH WHY",
		"web/a yes passing because", "web/b yes passing because",
		"web/a no failing because",
		"web/b no passing deregistered",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
