package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
)

// TestRun_changes_everything_or_nothing: a configuration of which something cannot be
// used that is read last changes nothing before.
func TestRun_changes_everything_or_nothing(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const whole = `
dns: {listen: ["127.0.0.1:0"]%s}
admin: {listen: "127.0.0.1:0"}
registry: {embedded: {listen: "127.0.0.1:0"}}
services: [{name: web, ttl: %s}]
%s
`
	r := start(t, fmt.Sprintf(whole, "", "7s", ""), "", false)
	if _, err := r.Register(t.Context(), api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.1"}`)}); err != nil {
		t.Fatal(err)
	}
	st, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ttl := func(what, text string, want time.Duration) {
		t.Helper()
		replace(t, st.Config.File, text)
		r.hup <- os.Interrupt
		r.hup <- os.Interrupt // taken when the first has been carried out
		svc, err := r.Service(t.Context(), "", "web")
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(svc.TTL); got != want {
			t.Errorf("%s: the TTL is %s, want %s", what, got, want)
		}
	}
	for what, more := range map[string][2]string{
		"a secret of cookies that is none": {fmt.Sprintf(", cookie_secret_file: %q", file("cookies", "not hexadecimal")), ""},
		"a key that is none":               {"", fmt.Sprintf("keys: [{name: key1, secret_file: %q}]", file("key", "%%%"))},
	} {
		ttl(what, fmt.Sprintf(whole, more[0], "8s", more[1]), 7*time.Second)
	}
	if log := r.log.String(); !strings.Contains(log, "the new configuration is refused") {
		t.Error("that it is refused is not logged")
	}
	ttl("a good configuration", fmt.Sprintf(whole, "", "9s", ""), 9*time.Second)
	// What waits for a restart is told for as long as it waits.
	waits := func() bool {
		t.Helper()
		doctor, err := r.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(fmt.Sprint(doctor), "dns.workers has changed, and is read at the start alone")
	}
	ttl("more workers", fmt.Sprintf(whole, ", workers: 3", "9s", ""), 9*time.Second)
	ttl("and another TTL", fmt.Sprintf(whole, ", workers: 3", "10s", ""), 10*time.Second)
	if !waits() {
		t.Error("the doctor does not tell that dns.workers waits for a restart")
	}
	ttl("as it was", fmt.Sprintf(whole, "", "11s", ""), 11*time.Second)
	if waits() {
		t.Error("the doctor tells of a change that was taken back")
	}
}
