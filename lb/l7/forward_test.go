package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestProxy_Forwards/both engines towards clients, both towards instances, and
// every kind of body.
func TestProxy_Forwards(t *testing.T) {
	r := start(t, nil)
	addr := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/stream" {
			for range 3 {
				fmt.Fprint(w, "part ")
				_ = http.NewResponseController(w).Flush()
			}
		}
		if r.URL.Path == "/large" {
			_, _ = io.WriteString(w, strings.Repeat("x", 3<<20))
		}
		w.Header().Set("X-Proto", r.Proto)
		fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.RequestURI(), len(body))
	})
	r.register("web/a", addr, "two/a", addr)
	r.routes(`two {"path":"/two","strip_prefix":true,"protocol":"h2c","service":"two"}`)
	for name, c := range map[string]*http.Client{"HTTP/1.1": client(t), "h2c": h2cClient(t)} {
		for _, to := range []string{"", "/two"} {
			t.Run(name+to, func(t *testing.T) {
				for _, test := range []struct{ method, path, body, want string }{
					{"GET", "/a?b=%61", "", "GET /a?b=%61 0"},
					{"GET", "/%61%2Fb", "", "GET /%61%2Fb 0"},
					{"POST", "/small", "hello", "POST /small 5"},
					{"PUT", "/medium", strings.Repeat("x", 60<<10), "PUT /medium 61440"},
					{"POST", "/large-body", strings.Repeat("x", 5<<20), "POST /large-body 5242880"},
					{"GET", "/stream", "", "part part part GET /stream 0"},
					{"GET", "/large", "", strings.Repeat("x", 3<<20) + "GET /large 0"},
					{"DELETE", "/d", "", "DELETE /d 0"},
				} {
					resp, body := do(t, c, test.method, r.url(to+test.path), test.body)
					if resp.StatusCode != http.StatusOK || body != test.want {
						t.Errorf("%s %s: %d %.100q", test.method, test.path, resp.StatusCode, body)
					}
				}
				resp, body := do(t, c, "HEAD", r.url(to+"/h"), "")
				if resp.StatusCode != http.StatusOK || body != "" {
					t.Errorf("HEAD: %d %q", resp.StatusCode, body)
				}
			})
		}
	}
	if s := r.proxy.Stats(); s.Refused != 0 || s.Retries != 0 {
		t.Errorf("%+v", s)
	}
}
