package skydns_test

import (
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/skydns"
)

func format(t testing.TB) *skydns.Format {
	t.Helper()
	f, err := skydns.New("/skydns/local/skydns")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFormat_Note(t *testing.T) {
	f := format(t)
	n, err := f.Note(f.Root()+"prod/web/1", []byte(`{"host":"10.0.0.5","port":8080,"ttl":30,"unknown":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	r := n.(*skydns.Record)
	if r.Path != "prod/web/1" || r.Port != 8080 || r.TTL != 30 || r.Priority != 10 || r.Weight != 100 {
		t.Errorf("%+v", r)
	}
	in, ok := r.Instance()
	if !ok || in.Service != "web.prod" || in.ID != "1" || in.Port != 8080 || in.Addresses[0].String() != "10.0.0.5" {
		t.Errorf("%+v, %t", in, ok)
	}
	for what, record := range map[string][2]string{
		"no port":              {"prod/web/1", `{"host":"10.0.0.5"}`},
		"a name":               {"prod/web/1", `{"host":"www.example.com","port":80}`},
		"right below the zone": {"web", `{"host":"10.0.0.5","port":80}`},
		"a path of no service": {"_tcp/_http/1", `{"host":"10.0.0.5","port":80}`},
		"an id of no instance": {"prod/web/a:80", `{"host":"10.0.0.5","port":80}`},
	} {
		n, err := f.Note(f.Root()+record[0], []byte(record[1]))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if in, ok := n.(*skydns.Record).Instance(); ok {
			t.Errorf("%s: is %+v", what, in)
		}
	}
}

func TestFormat_Note_refuses(t *testing.T) {
	f := format(t)
	for value, want := range map[string]string{
		`10.0.0.5`:                          "is no SkyDNS message",
		`{"host":"10.0.0.5","port":"http"}`: "is no SkyDNS message",
		`{"host":"10.0.0.5","ttl":"30"}`:    "is no SkyDNS message",
		`{}`:                                "host: is missing, and text too",
		`{"host":"10.0.0.5","port":70000}`:  "port: is no port",
		`{"host":"a b"}`:                    "host: is neither an address nor a name",
		`{"host":"a..b"}`:                   "host: is neither an address nor a name",
		`{"host":"0.0.0.0"}`:                "host: is no address of a host",
		`{"host":"10.0.0.5","weight":-1}`:   "weight: is out of range",
		`{"host":"10.0.0.5","priority":-1}`: "priority: is out of range",
		`{"text":"x","targetstrip":-1}`:     "targetstrip: is negative",
		`{"text":"` + strings.Repeat("x", registry.ValueMax) + `"}`: "the value has",
	} {
		if _, err := f.Note(f.Root()+"a", []byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", value, err, want)
		}
	}
	for key, want := range map[string]string{
		"/skydns/local/other/a":            "is not below the zone's prefix",
		f.Root():                           "is not below the zone's prefix",
		f.Root() + "a//b":                  "has a part that is no label",
		f.Root() + "a/":                    "has a part that is no label",
		f.Root() + strings.Repeat("x", 64): "has a part that is no label",
		f.Root() + "Web":                   "has upper case",
		f.Root() + strings.Repeat(strings.Repeat("x", 60)+"/", 4) + "x": "is too long for a name",
	} {
		if _, ok, err := f.Parse(key); ok || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %t, %v, want %q", key, ok, err, want)
		}
	}
}

func FuzzFormat_Note(f *testing.F) {
	f.Add("prod/web/1", `{"host":"10.0.0.5","port":8080,"priority":1,"weight":2,"text":"x","mail":true,"ttl":3,"targetstrip":1,"group":"g"}`)
	format := format(f)
	f.Fuzz(func(t *testing.T, path, value string) {
		raw := format.Root() + path
		if _, ok, err := format.Parse(raw); !ok {
			if err == nil {
				t.Fatalf("%q is of no matter", raw)
			}
			return
		}
		n, err := format.Note(raw, []byte(value))
		if err != nil {
			return
		}
		r := n.(*skydns.Record)
		if in, ok := r.Instance(); ok && (in.Port == 0 || in.Service == "" || in.ID == "") {
			t.Fatalf("%q %q is the instance %+v", path, value, in)
		}
	})
}
