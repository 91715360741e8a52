package registry_test

import (
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

func TestKeyspace_Parse(t *testing.T) {
	space, err := registry.NewKeyspace("/muster/v1/")
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]registry.Key{
		"/muster/v1/instances/web/web-1":      {Kind: registry.KindInstance, Service: "web", Name: "web-1"},
		"/muster/v1/instances/Web.Prod/Web-1": {Kind: registry.KindInstance, Service: "web.prod", Name: "web-1"},
		"/muster/v1/services/web.prod":        {Kind: registry.KindService, Service: "web.prod"},
		"/muster/v1/admin/web/*":              {Kind: registry.KindAdmin, Service: "web", Name: "*"},
		"/muster/v1/admin/web/_freeze":        {Kind: registry.KindAdmin, Service: "web", Name: "_freeze"},
		"/muster/v1/admin/*/_freeze":          {Kind: registry.KindAdmin, Service: "*", Name: "_freeze"},
		"/muster/v1/load/web/a":               {Kind: registry.KindLoad, Service: "web", Name: "a"},
		"/muster/v1/health/Web/a/NS1-abc":     {Kind: registry.KindHealth, Service: "web", Name: "a", Sub: "ns1-abc"},
		"/muster/v1/members/ns1-abc":          {Kind: registry.KindMember, Name: "ns1-abc"},
		"/muster/v1/routes/Shop.Api":          {Kind: registry.KindRoute, Name: "shop.api"},
	}
	for raw, want := range good {
		got, ok, err := space.Parse(raw)
		if err != nil || !ok || got != want {
			t.Errorf("Parse(%q) = %+v, %v, %v; want %+v", raw, got, ok, err, want)
		}
		back, err := space.Raw(got)
		if err != nil || back != strings.ToLower(raw) {
			t.Errorf("Raw(%+v) = %q, %v", got, back, err)
		}
	}
	for _, raw := range []string{"/muster/v1/vips/10.0.0.1", "/muster/v1/zones/skydns.local/admin/web/a"} {
		if _, ok, err := space.Parse(raw); ok || err != nil {
			t.Errorf("Parse(%q) = %v, %v; want it left to others", raw, ok, err)
		}
	}
	long := strings.Repeat("a", 63)
	for _, raw := range []string{
		"", "/muster/v1", "/muster/v1/", "/muster/v2/instances/web/a", "/muster/v1/instances", "/muster/v1/instances/web", "/muster/v1/instances/web/",
		"/muster/v1/instances//a", "/muster/v1/instances/web/a/b", "/muster/v1/instances/web/a.b", "/muster/v1/instances/web/-a", "/muster/v1/instances/web./a",
		"/muster/v1/instances/web/a\n", "/muster/v1/instances/web/\x00", "/muster/v1/instances/web/*", "/muster/v1/services/web/a", "/muster/v1/instances/w_b/a",
		"/muster/v1/instances/web/" + long + "a", "/muster/v1/instances/" + long + "." + long + "." + long + "." + long + "/a", "/muster/v1/Instances/web/a",
		"/muster/v1/admin/*/*", "/muster/v1/admin/*/a", "/muster/v1/load/web/_freeze", "/muster/v1/health/web/a", "/muster/v1/health/web/a/", "/muster/v1/health/web/a/b/c",
	} {
		if key, ok, err := space.Parse(raw); err == nil {
			t.Errorf("Parse(%q) = %+v, %v; want an error", raw, key, ok)
		}
	}
	if _, _, err := space.Parse("/muster/v1/instance/web/a"); err == nil || !strings.Contains(err.Error(), `did you mean "instances"?`) {
		t.Errorf("a near miss is not named: %v", err)
	}
}

func TestNewKeyspace(t *testing.T) {
	for _, prefix := range []string{"", "/", "muster", "/a//b", "/a\nb", "/" + strings.Repeat("a", 600)} {
		if _, err := registry.NewKeyspace(prefix); err == nil {
			t.Errorf("NewKeyspace(%q) is accepted", prefix)
		}
	}
}

// FuzzKeyspace_Parse holds every key that is accepted to being the one that
// Raw writes, but for its case.
func FuzzKeyspace_Parse(f *testing.F) {
	for _, raw := range []string{"/muster/v1/instances/Web.Prod/Web-1", "/muster/v1/services/web", "/muster/v1/admin/web/*", "/muster/v1/members/a.b", "/muster/v1/x", "/muster/v1/instances/web/\n"} {
		f.Add(raw)
	}
	space, err := registry.NewKeyspace(registry.DefaultPrefix)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		key, ok, err := space.Parse(raw)
		if err != nil {
			checkProblem(t, registry.NewProblem(raw, 1, err))
			return
		}
		if !ok {
			return
		}
		back, err := space.Raw(key)
		if err != nil || !strings.EqualFold(back, raw) {
			t.Errorf("Parse(%q) = %+v, and Raw of it %q, %v", raw, key, back, err)
		}
	})
}

// checkProblem holds a problem to being one printable line.
func checkProblem(t *testing.T, p registry.Problem) {
	t.Helper()
	if p.Reason == "" {
		t.Errorf("no reason: %#v", p)
	}
	for _, b := range []byte(p.Reason + p.Mend) {
		if b < ' ' || b > '~' {
			t.Errorf("a problem that forges output: %#v", p)
		}
	}
}
