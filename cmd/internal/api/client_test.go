package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/health"
)

// serve starts a server with one handler and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := api.NewClient(api.ClientConfig{Addr: srv.URL + "/", Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestNewClient(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8653":          "http://127.0.0.1:8653",
		"https://muster.example/": "https://muster.example",
		"ftp://x":                 "",
		"":                        "",
		"http://":                 "",
	} {
		c, err := api.NewClient(api.ClientConfig{Addr: addr})
		if (err != nil) != (want == "") {
			t.Errorf("%q: error %v", addr, err)
			continue
		}
		if c != nil && c.Addr() != want {
			t.Errorf("%q: %q, want %q", addr, c.Addr(), want)
		}
	}
}

func TestClient_requests(t *testing.T) {
	ctx := t.Context()
	for _, tc := range []struct {
		name string
		do   func(*api.Client) error
		want string // method, URI, body
	}{
		{"Services of all zones", func(c *api.Client) error { _, err := c.Services(ctx, ""); return err }, "GET /v1/services "},
		{"Service with its name escaped", func(c *api.Client) error { _, err := c.Service(ctx, "z.", "a/b c"); return err }, "GET /v1/services/a%2Fb%20c?zone=z. "},
		{"Instances", func(c *api.Client) error { _, err := c.Instances(ctx, "z.", "web"); return err }, "GET /v1/instances?service=web&zone=z. "},
		{"Explain", func(c *api.Client) error { _, err := c.Explain(ctx, "web", "SRV", "10.0.0.1"); return err }, "GET /v1/explain?client=10.0.0.1&name=web&type=SRV "},
		{"Ready", func(c *api.Client) error { return c.Ready(ctx) }, "GET /readyz?verbose= "},
		{
			"Register", func(c *api.Client) error {
				_, err := c.Register(ctx, api.RegisterRequest{Service: "web", ID: "a", Instance: json.RawMessage(`{"port":1}`), TTL: api.Duration(10 * time.Second)})
				return err
			}, `POST /v1/register {"service":"web","id":"a","instance":{"port":1},"ttl":"10s"}`,
		},
		{
			"Heartbeat", func(c *api.Client) error {
				_, err := c.Heartbeat(ctx, api.HeartbeatRequest{Service: "web", Instance: "a", Failing: true})
				return err
			}, `POST /v1/heartbeat {"service":"web","instance":"a","failing":true}`,
		},
		{
			"SetAdmin", func(c *api.Client) error {
				_, err := c.SetAdmin(ctx, api.AdminRequest{Service: "web", Instance: api.AllInstances, State: api.AdminDrain, For: api.Duration(time.Minute)})
				return err
			}, `POST /v1/admin {"service":"web","instance":"*","state":"drain","for":"1m0s"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
				if auth := r.Header.Get("Authorization"); auth != "Bearer s3cret" {
					t.Errorf("Authorization: %q", auth)
				}
				if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("Content-Type: %q", r.Header.Get("Content-Type"))
				}
				if r.URL.Path == api.PathReadyz {
					fmt.Fprintln(w, "ready")
					return
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintln(w, "{}")
			})
			if err := tc.do(c); err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestClient_errors(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"with a body of the API", `{"error":{"message":"is not known","mend":"use weighted","field":"policy"}}`, 400, "policy: is not known: use weighted"},
		{"not ready", "not ready\nwaiting for etcd\n", 503, "not ready\nwaiting for etcd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			})
			_, err := c.Status(t.Context())
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Status != tc.status || e.Error() != tc.want {
				t.Errorf("got %#v, want status %d and %q", err, tc.status, tc.want)
			}
		})
	}
	t.Run("without a server", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		srv.Close()
		c, err := api.NewClient(api.ClientConfig{Addr: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, api.ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
	})
	t.Run("when the context ends it is the context's", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, api.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	})
}

// TestClient_notAPI has the client ask something else, as at a port that is mistyped:
// whatever it answers, nothing is taken for the word of a Muster.
func TestClient_notAPI(t *testing.T) {
	asks := map[string]func(*api.Client) error{
		"a list": func(c *api.Client) error { _, err := c.Services(t.Context(), ""); return err },
		"ready":  func(c *api.Client) error { return c.Ready(t.Context()) },
		"events": func(c *api.Client) error {
			return c.Events(t.Context(), api.EventFilter{}, api.EventHooks{}, func(api.Event) error { return nil })
		},
	}
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
		got                     string
	}{
		{"a page", "text/html; charset=utf-8", "<!doctype html>", 200, "text/html; charset=utf-8"},
		{"text", "text/plain", "web-3 v2 says hello\n", 200, "text/plain"},
		{"other JSON", "application/problem+json", "{}", 200, "application/problem+json"},
		{"a page that is not there", "text/plain", "404 page not found\n", 404, "404 Not Found, text/plain"},
		{"a gateway without a server", "text/html", "<h1>503</h1>", 503, "503 Service Unavailable, text/html"},
	} {
		for what, ask := range asks {
			t.Run(tc.name+"/"+what, func(t *testing.T) {
				c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", tc.contentType)
					w.WriteHeader(tc.status)
					fmt.Fprint(w, tc.body)
				})
				want := c.Addr() + " is not a Muster API (got " + tc.got + "): give the address of the server's admin.listen, by default http://127.0.0.1:8653"
				if err := ask(c); err == nil || err.Error() != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			})
		}
	}
}

func TestClient_Events(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI()+" "+r.Header.Get("Last-Event-ID"))
		w.Header().Set("Content-Type", "text/event-stream")
		if len(asked) == 1 {
			// Comments, other fields, data in two lines, and a cut at the end.
			fmt.Fprint(w, ": hello\n\nid: 5\nevent: health\ndata: {\"id\":5,\ndata:\"kind\":\"health\"}\n\ndata: {\"id\":6}\n\ndata: {\"id\":7")
			return
		}
		fmt.Fprint(w, "data: {\"id\":7,\"kind\":\"gap\"}\n\n")
	})
	var got []uint64
	connected, lost := 0, 0
	stop := errors.New("enough")
	err := c.Events(t.Context(), api.EventFilter{Service: "web"}, api.EventHooks{
		Connected: func() error { connected++; return nil },
		Lost:      func(error) { lost++ },
	}, func(e api.Event) error {
		got = append(got, e.ID)
		if e.Kind == api.EventGap {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Errorf("error %v, want the sink's", err)
	}
	if diff := cmp.Diff([]uint64{5, 6, 7}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/v1/events?service=web ", "/v1/events?service=web 6"}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if connected != 2 || lost != 1 {
		t.Errorf("connected %d times and lost %d times, want 2 and 1", connected, lost)
	}
}

func TestClient_Events_fails_at_once_when_the_server_refuses(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	err := c.Events(t.Context(), api.EventFilter{}, api.EventHooks{}, func(api.Event) error { return nil })
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Status != http.StatusBadRequest {
		t.Errorf("got %v", err)
	}
}

func TestDuration(t *testing.T) {
	var d api.Duration
	if err := json.Unmarshal([]byte(`"1m30s"`), &d); err != nil || d != api.Duration(90*time.Second) {
		t.Errorf("got %s, %v", d, err)
	}
	if err := json.Unmarshal([]byte(`"5"`), &d); err == nil || !strings.Contains(err.Error(), `bad duration "5": write it with a unit`) {
		t.Errorf("got %v", err)
	}
}

// TestInstance_JSON fixes the names in the JSON: they are an interface.
func TestInstance_JSON(t *testing.T) {
	in := api.Instance{
		Zone: "z.", Service: "web", ID: "web-1", Domain: "web-1.web.z.", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Port: 80,
		Ports: map[string]string{"dns": "53/udp"}, Weight: 2, Effective: 1.5, Tags: []string{"a"}, Locality: "eu-1a", TTL: api.Duration(5 * time.Second),
		Leased: true, Serving: true, Why: "passing", Health: health.Passing, Since: time.Unix(0, 0).UTC(),
		Admin: &api.Admin{State: api.AdminUp}, Load: &api.Load{Load: 0.5, Active: -1},
		Checks: []api.Check{{Type: "tcp", Target: "10.0.0.1:80", State: health.Failing, Interval: api.Duration(time.Second), Rise: 2, Fall: 3}},
	}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"zone":"z.","service":"web","id":"web-1","domain":"web-1.web.z.","addresses":["10.0.0.1"],"port":80,"ports":{"dns":"53/udp"},` +
		`"weight":2,"effective_weight":1.5,"priority":0,"tags":["a"],"locality":"eu-1a","ttl":"5s","leased":true,"serving":true,"why":"passing",` +
		`"health":"passing","since":"1970-01-01T00:00:00Z","admin":{"state":"up"},"load":{"load":0.5,"active":-1},` +
		`"checks":[{"type":"tcp","target":"10.0.0.1:80","state":"failing","interval":"1s","rise":2,"fall":3}]}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var back api.Instance
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, back, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}
