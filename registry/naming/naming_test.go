package naming_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/naming"
)

func format(t *testing.T) *naming.Format {
	t.Helper()
	f, err := naming.New("/services")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFormat_Instance(t *testing.T) {
	f := format(t)
	in := func(service, id, addr string, port uint16, change func(*registry.Instance)) registry.Instance {
		i := registry.Instance{Service: service, ID: id, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Port: port, Weight: 1}
		if change != nil {
			change(&i)
		}
		return i
	}
	original := func(key string) func(*registry.Instance) {
		return func(i *registry.Instance) { i.Meta = map[string]string{"key": key} }
	}
	tests := []struct {
		name, key, value string
		want             registry.Instance
	}{
		{"as the library writes it", "web/a", `{"Op":0,"Addr":"10.0.0.5:8080","Metadata":null}`, in("web", "a", "10.0.0.5", 8080, nil)},
		{"a target of several parts", "team/web/a", `{"Addr":"10.0.0.5:8080"}`, in("web.team", "a", "10.0.0.5", 8080, nil)},
		{"IPv6", "web/a", `{"Addr":"[fd00::5]:8080"}`, in("web", "a", "fd00::5", 8080, nil)},
		{"a key that is no label", "web/10.0.0.5:8080", `{"Addr":"10.0.0.5:8080"}`, in("web", "i849b5f02", "10.0.0.5", 8080, original("10.0.0.5:8080"))},
		{"a key in upper case", "web/A", `{"Addr":"10.0.0.5:8080"}`, in("web", "i559aead0", "10.0.0.5", 8080, original("A"))},
		{"a key that looks made", "web/i559aead0", `{"Addr":"10.0.0.5:8080"}`, in("web", "icf7078d1", "10.0.0.5", 8080, original("i559aead0"))},
		{
			"metadata", "web/a", `{"Addr":"10.0.0.5:8080","Metadata":{"weight":3,"priority":1,"region":"eu","zone":"eu-1","tags":["v2"],"other":{}}}`,
			in("web", "a", "10.0.0.5", 8080, func(i *registry.Instance) {
				i.Weight, i.Priority, i.Region, i.Zone, i.Tags = 3, 1, "eu", "eu-1", []string{"v2"}
			}),
		},
		{"metadata of others", "web/a", `{"Addr":"10.0.0.5:8080","Metadata":["x"]}`, in("web", "a", "10.0.0.5", 8080, nil)},
	}
	for _, tt := range tests {
		raw := "/services/" + tt.key
		key, ok, err := f.Parse(raw)
		if !ok || err != nil || key.Service != tt.want.Service || key.Name != tt.want.ID {
			t.Errorf("%s: Parse: %+v, %t, %v", tt.name, key, ok, err)
		}
		got, err := f.Instance(raw, []byte(tt.value))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestFormat_Instance_refuses(t *testing.T) {
	f := format(t)
	tests := []struct{ name, key, value, want string }{
		{"no JSON", "web/a", `10.0.0.5:8080`, `is no update of an endpoint: invalid character '.' after top-level value; write {"Op":0,"Addr":"10.0.0.5:8080"}`},
		{"a name", "web/a", `{"Addr":"web-1.example:80"}`, `address: "web-1.example": is not an IP address; write the address of one host, as 10.0.0.11 or fd00::11`},
		{"no port", "web/a", `{"Addr":"10.0.0.5"}`, `Addr: is no address with a port; write {"Op":0,"Addr":"10.0.0.5:8080"}`},
		{"a port by name", "web/a", `{"Addr":"10.0.0.5:http"}`, `Addr: its port is no number; write {"Op":0,"Addr":"10.0.0.5:8080"}`},
		{"a deletion that stayed", "web/a", `{"Op":1,"Addr":"10.0.0.5:80"}`, "Op: is not 0; a key that is there is an endpoint that was added; delete the key"},
		{"a bad weight", "web/a", `{"Addr":"10.0.0.5:80","Metadata":{"weight":"heavy"}}`, `weight: "\"heavy\"": is not a number; write a number`},
	}
	for _, tt := range tests {
		if _, err := f.Instance("/services/"+tt.key, []byte(tt.value)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v\nwant %s", tt.name, err, tt.want)
		}
	}
	for key, want := range map[string]string{
		"/other/web/a":     "key: is not under the prefix; write it under /services/",
		"/services/web":    "key: names no endpoint of a target; write it as /services/<target>/<address>",
		"/services/web/":   "key: names no endpoint of a target; write it as /services/<target>/<address>",
		"/services/W/a":    "target: has upper case; write it in lower case: a question's case is of no matter, and two targets would be one",
		"/services/a_b/a":  "target: is not a name of DNS labels; use letters, digits and hyphens between slashes",
		"/services/a//b/c": "target: is not a name of DNS labels; use letters, digits and hyphens between slashes",
	} {
		if _, ok, err := f.Parse(key); ok || err == nil || err.Error() != want {
			t.Errorf("%s: %t, %v\nwant %s", key, ok, err, want)
		}
	}
}

func FuzzFormat_Instance(f *testing.F) {
	f.Add("web/a", `{"Op":0,"Addr":"10.0.0.5:8080","Metadata":{"weight":3}}`)
	format, err := naming.New("/services")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		raw := "/services/" + key
		k, ok, err := format.Parse(raw)
		if ok != (err == nil) {
			t.Fatalf("Parse(%q): %t, %v", raw, ok, err)
		}
		in, err := format.Instance(raw, []byte(value))
		if err == nil && (!ok || in.Service != k.Service || in.ID != k.Name) {
			t.Fatalf("%q is %+v, and its value of %s %s", raw, k, in.Service, in.ID)
		}
	})
}
