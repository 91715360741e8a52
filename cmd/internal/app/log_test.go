package app_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/musterdns/muster/cmd/internal/api"
)

// TestRun_logs_durations_in_words: JSON had 30000000000 for 30 s.
func TestRun_logs_durations_in_words(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, "")+`proxy: {listeners: [{name: web, listen: "127.0.0.1:0", mode: http, service: web}]}`, "", false)
	for i, code := range []int{http.StatusOK, http.StatusOK, http.StatusInternalServerError} {
		instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(instance.Close)
		host, port, err := net.SplitHostPort(instance.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		value := fmt.Sprintf(`{"address":%q,"port":%s}`, host, port)
		if _, err := r.Register(t.Context(), api.RegisterRequest{Service: "web", ID: fmt.Sprintf("web-%d", i), Instance: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	r.passing(t, "web", 3)
	url := "http://" + r.listener(t, "web") + "/"
	eventually(t, "the instance that fails is ejected", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return strings.Contains(r.log.String(), `"msg":"instance ejected`)
	})
	if log := r.log.String(); !strings.Contains(log, `"for":"30s"`) {
		t.Errorf("the duration is not in words:\n%s", log)
	}
}
