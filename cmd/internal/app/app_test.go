package app_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/app"
	"github.com/musterdns/muster/cmd/internal/config"
)

// patience is how long what must happen is waited for, on a busy machine.
const patience = 30 * time.Second

// running is a server in this process.
type running struct {
	*api.Client
	app.Endpoints
	hup  chan os.Signal
	log  *logBuffer
	stop func() error // ends it and returns what Run returned
}

// logBuffer keeps what is logged. It is safe for concurrent use.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// basics are the keys that let servers run side by side.
const basics = `
dns: {listen: ["127.0.0.1:0"]}
admin: {listen: "127.0.0.1:0"%s}
registry: {embedded: {listen: "127.0.0.1:0"}}
`

// start runs a server with a configuration file of the given text and waits
// until it answers.
func start(t *testing.T, text, token string, dev bool) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "muster.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startWith(t, func() (*config.Config, config.Problems) {
		return config.Load(config.Options{File: file, Throwaway: true})
	}, token, dev)
}

// replace replaces a configuration file at once: the server may still be reading it
// for the order before.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// startWith is start with the configuration that load returns.
func startWith(t *testing.T, load func() (*config.Config, config.Problems), token string, dev bool) *running {
	t.Helper()
	cfg, problems := load()
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	cfg.Log.Level = slog.LevelInfo
	r := &running{hup: make(chan os.Signal), log: &logBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	started, done := make(chan app.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- app.Run(ctx, app.Options{
			Config: cfg, Load: load, Dev: dev, Version: "test", Stderr: r.log, Reload: r.hup,
			Started: func(e app.Endpoints) { started <- e },
		})
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Log(r.log)
		}
	})
	select {
	case r.Endpoints = <-started:
	case err := <-done:
		done <- err
		t.Fatalf("the server did not start: %v\n%s", err, r.log)
	case <-time.After(patience):
		t.Fatalf("the server does not answer\n%s", r.log)
	}
	client, err := api.NewClient(api.ClientConfig{Addr: r.Admin, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	r.Client = client
	return r
}

// ask asks a question over UDP and returns the response code and the answers
// without their TTLs, in the order sent.
func (r *running) ask(t *testing.T, name string, qtype uint16) (string, []string) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	resp, _, err := (&dns.Client{Timeout: patience}).ExchangeContext(t.Context(), m, r.DNS[0])
	if err != nil {
		t.Fatalf("asking %s: %v", name, err)
	}
	var out []string
	for _, rr := range resp.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return dns.RcodeToString[resp.Rcode], out
}

// until asks again until the answer is as wanted: rcode and answers, sorted as
// given, with spaces between.
func (r *running) until(t *testing.T, name string, qtype uint16, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		code, answers := r.ask(t, name, qtype)
		got := strings.TrimSpace(code + " " + strings.Join(answers, " "))
		if got == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s %s is answered %q, want %q", name, dns.TypeToString[qtype], got, want)
		case <-tick.C:
		}
	}
}

// passing waits until so many of a service's instances pass their checks.
func (r *running) passing(t *testing.T, service string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		svc, err := r.Service(t.Context(), "", service)
		if err == nil && svc.Counts.Passing == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("service %s: %+v, %v; want %d passing", service, svc.Counts, err, want)
		case <-tick.C:
		}
	}
}

// wantError checks that err is the API's with the status and these words.
func wantError(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	e, ok := err.(*api.Error) //nolint:errorlint // the client returns it as it is
	if !ok {
		t.Fatalf("got error %v, want one of the API with status %d", err, status)
	}
	if e.Status != status {
		t.Errorf("got status %d (%v), want %d", e.Status, e, status)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("%q does not say %q", e, w)
		}
	}
}

func TestRun_registers_serves_and_forgets(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, ""), "", false)
	ctx := t.Context()

	reg, err := r.Register(ctx, api.RegisterRequest{Service: "Web", ID: "web-1", Instance: []byte(`{"address":"10.0.0.1","port":8080,"tags":["v1"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if reg.Domain != "web-1.web.svc.internal." || reg.Key != "/muster/v1/instances/web/web-1" || reg.Revision == 0 {
		t.Errorf("registered as %+v", reg)
	}
	r.until(t, "web.svc.internal.", dns.TypeA, "NOERROR 10.0.0.1")
	r.until(t, "web.svc.internal.", dns.TypeSRV, "NOERROR 0 1 8080 web-1.web.svc.internal.")

	if _, err := r.SetWeight(ctx, api.WeightRequest{Service: "web", Instance: "web-1", Weight: 7}); err != nil {
		t.Fatal(err)
	}
	svc, err := r.SetService(ctx, api.ServiceRequest{Service: "web", Patch: []byte(`{"ttl":9,"policy":"hash"}`)})
	if err != nil || svc.TTL != api.Duration(9*time.Second) || svc.Policy != "hash" {
		t.Errorf("set service: %+v, %v", svc, err)
	}
	svc, err = r.SetService(ctx, api.ServiceRequest{Service: "web", Patch: []byte(`{"ttl":null}`)})
	if err != nil || svc.TTL != api.Duration(5*time.Second) || svc.Policy != "hash" {
		t.Errorf("withdrawing the ttl: %+v, %v", svc, err)
	}
	got, err := r.Service(ctx, "", "web")
	if err != nil || len(got.Instances) != 1 || got.Instances[0].Weight != 7 || got.Instances[0].Tags[0] != "v1" {
		t.Errorf("the service is %+v, %v", got, err)
	}

	if _, err := r.Deregister(ctx, api.DeregisterRequest{Service: "web", Instance: "web-1"}); err != nil {
		t.Fatal(err)
	}
	r.until(t, "web.svc.internal.", dns.TypeA, "NOERROR") // its own key keeps the name
	r.until(t, "gone.svc.internal.", dns.TypeA, "NXDOMAIN")
}

func TestRun_drops_a_registration_without_heartbeats(t *testing.T) {
	const ttl = api.Duration(6 * time.Second) // in which a busy machine comes to the one heartbeat
	r := start(t, fmt.Sprintf(basics, ""), "", false)
	ctx := t.Context()
	_, err := r.Register(ctx, api.RegisterRequest{
		Service: "mail", ID: "m1", Instance: []byte(`{"address":"10.0.0.25","port":25}`), TTL: ttl,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.until(t, "mail.svc.internal.", dns.TypeA, "NOERROR 10.0.0.25")
	beat, err := r.Heartbeat(ctx, api.HeartbeatRequest{Service: "mail", Instance: "m1"})
	if err != nil || !beat.Held || beat.Next != ttl {
		t.Errorf("heartbeat: %+v, %v", beat, err)
	}
	r.until(t, "mail.svc.internal.", dns.TypeA, "NXDOMAIN")
	_, err = r.Heartbeat(ctx, api.HeartbeatRequest{Service: "mail", Instance: "m1"})
	wantError(t, err, 404, "waits for no heartbeat", "register")
}

func TestRun_drains_and_brings_back(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, ""), "", false)
	ctx := t.Context()
	for i := range 2 {
		doc := fmt.Appendf(nil, `{"address":"10.0.0.%d","port":80}`, i+1)
		if _, err := r.Register(ctx, api.RegisterRequest{Service: "web", ID: fmt.Sprintf("web-%d", i+1), Instance: doc}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "web-2.web.svc.internal.", dns.TypeA, "NOERROR 10.0.0.2")
	set, err := r.SetAdmin(ctx, api.AdminRequest{Service: "web", Instance: "web-1", State: api.AdminDrain, Reason: "kernel", By: "ann"})
	if err != nil || set.Left != 1 || set.SafeAfter != api.Duration(7*time.Second) {
		t.Fatalf("drain: %+v, %v", set, err)
	}
	// The answer to the write comes after its effect.
	if code, answers := r.ask(t, "web.svc.internal.", dns.TypeA); code != "NOERROR" || len(answers) != 1 || answers[0] != "10.0.0.2" {
		t.Errorf("after the drain: %s %q", code, answers)
	}
	why, err := r.Explain(ctx, "web", "", "")
	if err != nil || len(why.Instances) != 2 || why.Instances[0].In || !strings.Contains(why.Instances[0].Why, "kernel") || why.Instances[1].Share != 1 {
		t.Errorf("explained as %+v, %v", why, err)
	}
	if set, err = r.SetAdmin(ctx, api.AdminRequest{Service: "web", Instance: "web-1", State: api.AdminNone}); err != nil || set.Left != 2 {
		t.Errorf("undone: %+v, %v", set, err)
	}
}

func TestRun_refuses_what_it_cannot_do_and_says_the_mend(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, ""), "", false)
	ctx := t.Context()
	_, err := r.Register(ctx, api.RegisterRequest{Service: "web", ID: "bad id", Instance: []byte(`{"address":"10.0.0.1"}`)})
	wantError(t, err, 400, "instance", "bad id")
	_, err = r.Register(ctx, api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.300"}`)})
	wantError(t, err, 400, "instance.address", "10.0.0.300", "write the address")
	_, err = r.Register(ctx, api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.3"}`), TTL: 1})
	wantError(t, err, 400, "ttl", "at least 2s")
	_, err = r.Register(ctx, api.RegisterRequest{Zone: "nowhere.", Service: "web", ID: "a"})
	wantError(t, err, 404, "nowhere", "svc.internal.")
	_, err = r.Service(ctx, "", "nothing")
	wantError(t, err, 404, "nothing", "muster services")
	_, err = r.SetAdmin(ctx, api.AdminRequest{Service: "nothing", Instance: "x", State: api.AdminDrain})
	wantError(t, err, 404, "nothing")
	_, err = r.SetService(ctx, api.ServiceRequest{Service: "web", Patch: []byte(`{"policy":"best"}`)})
	wantError(t, err, 400, "patch.policy", "best", "weighted")
	_, err = r.SetService(ctx, api.ServiceRequest{Service: "web", Patch: []byte(`[1]`)})
	wantError(t, err, 400, "patch", "JSON object")
	_, err = r.SetWeight(ctx, api.WeightRequest{Service: "web", Instance: "none", Weight: 1})
	wantError(t, err, 404, "none")
	_, err = r.Explain(ctx, "web", "NOTYPE", "")
	wantError(t, err, 400, "NOTYPE")
	_, err = r.Explain(ctx, "web", "A", "10.0.0")
	wantError(t, err, 400, "client", "10.0.0")
	_, err = r.Demo(ctx)
	wantError(t, err, 404, "muster dev")
}

func TestRun_needs_the_token_for_writing(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, fmt.Sprintf(basics, ", token_file: "+token), "wrong", false)
	in := api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.1"}`)}
	_, err := r.Register(t.Context(), in)
	wantError(t, err, 403, "token")
	without, err := api.NewClient(api.ClientConfig{Addr: r.Admin})
	if err != nil {
		t.Fatal(err)
	}
	_, err = without.Register(t.Context(), in)
	wantError(t, err, 401, "Authorization: Bearer")
	if _, err := without.Services(t.Context(), ""); err != nil {
		t.Errorf("reading needs no token: %v", err)
	}
	with, err := api.NewClient(api.ClientConfig{Addr: r.Admin, Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := with.Register(t.Context(), in); err != nil {
		t.Errorf("with the token: %v", err)
	}
}

func TestRun_tells_events_and_resumes_them(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, ""), "", false)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := r.Register(ctx, api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.1"}`)})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	var first api.Event
	err = r.Events(ctx, api.EventFilter{Service: "web", Since: 1}, api.EventHooks{}, func(e api.Event) error {
		if e.Kind == api.EventInstanceAdded {
			first = e
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || first.Service != "web" || first.Instance != "a" || first.Zone != "svc.internal." {
		t.Fatalf("got %+v, %v", first, err)
	}
	if _, err = r.Deregister(ctx, api.DeregisterRequest{Service: "web", Instance: "a"}); err != nil {
		t.Fatal(err)
	}
	err = r.Events(ctx, api.EventFilter{Since: first.ID}, api.EventHooks{}, func(e api.Event) error {
		switch {
		case e.ID <= first.ID:
			t.Errorf("event %d comes again", e.ID)
		case e.Kind == api.EventInstanceRemoved && e.Instance == "a":
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

func TestRun_keeps_the_old_configuration_when_the_new_one_is_bad(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, "")+"services: [{name: web, ttl: 7s}]\n", "", false)
	ctx := t.Context()
	if _, err := r.Register(ctx, api.RegisterRequest{Service: "web", ID: "a", Instance: []byte(`{"address":"10.0.0.1"}`)}); err != nil {
		t.Fatal(err)
	}
	r.until(t, "web.svc.internal.", dns.TypeA, "NOERROR 10.0.0.1")
	st, err := r.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		replace(t, st.Config.File, text)
		r.hup <- os.Interrupt
	}
	ttl := func() time.Duration {
		t.Helper()
		svc, err := r.Service(ctx, "", "web")
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(svc.TTL)
	}
	write(fmt.Sprintf(basics, "") + "services: [{name: web, ttl: 8s, polcy: hash}]\n")
	r.hup <- os.Interrupt // taken when the first has been carried out
	if got := ttl(); got != 7*time.Second {
		t.Errorf("after a bad configuration the TTL is %s, want the old 7s", got)
	}
	doc, err := r.Doctor(ctx)
	if err != nil || !strings.Contains(fmt.Sprint(doc), "muster.yaml:5:") || !strings.Contains(fmt.Sprint(doc), "policy") {
		t.Errorf("the doctor says %+v, %v", doc, err)
	}
	write(fmt.Sprintf(basics, "") + "services: [{name: web, ttl: 8s}]\n")
	r.hup <- os.Interrupt
	if got := ttl(); got != 8*time.Second {
		t.Errorf("after a good configuration the TTL is %s, want 8s", got)
	}
}

func TestRun_takes_a_killed_sample_out_of_the_answers(t *testing.T) {
	r := start(t, fmt.Sprintf(basics, ""), "", true)
	ctx := t.Context()
	list, err := r.Demo(ctx)
	if err != nil || len(list) != 5 {
		t.Fatalf("samples: %+v, %v", list, err)
	}
	r.until(t, "v2._tag.web.svc.internal.", dns.TypeA, "NOERROR 127.0.1.3")
	r.passing(t, "api", 2) // until then unknown ones are served too
	if _, err := r.DemoDo(ctx, api.DemoRequest{Instance: "api-2", Action: api.DemoKill}); err != nil {
		t.Fatal(err)
	}
	r.until(t, "api.svc.internal.", dns.TypeSRV, fmt.Sprintf("NOERROR 0 1 %s api-1.api.svc.internal.", port(list, "api-1")))
	why, err := r.Explain(ctx, "api", "", "")
	if err != nil || why.Instances[1].In || !strings.Contains(why.Instances[1].Why, "refused") {
		t.Errorf("explained as %+v, %v", why.Instances, err)
	}
	if _, err := r.DemoDo(ctx, api.DemoRequest{Instance: "api-2", Action: api.DemoRevive}); err != nil {
		t.Fatal(err)
	}
	r.until(t, "v2._tag.api.svc.internal.", dns.TypeA, "NOERROR 127.0.1.12")
}

// port is the port of a sample instance.
func port(list []api.DemoInstance, id string) string {
	for _, d := range list {
		if d.ID == id {
			return d.Address[strings.LastIndexByte(d.Address, ':')+1:]
		}
	}
	return ""
}

// TestRun_keeps_a_snapshot_where_it_does_by_default: nobody else makes the
// directory where etcd's data are elsewhere, or etcd is.
func TestRun_keeps_a_snapshot_where_it_does_by_default(t *testing.T) {
	state := filepath.Join(t.TempDir(), "absent")
	t.Setenv("STATE_DIRECTORY", state)
	file := filepath.Join(t.TempDir(), "muster.yaml")
	text := fmt.Sprintf(basics, "")
	text = strings.Replace(text, "embedded: {", "embedded: {dir: "+filepath.Join(t.TempDir(), "etcd")+", ", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startWith(t, func() (*config.Config, config.Problems) { return config.Load(config.Options{File: file}) }, "", false)
	if err := r.stop(); err != nil { // when it is written at the latest
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(state, "snapshot")); err != nil {
		t.Errorf("%v\n%s", err, r.log)
	}
}
