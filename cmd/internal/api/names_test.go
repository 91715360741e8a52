package api_test

import (
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/cmd/internal/api"
)

// TestNames_JSON holds the members of what the API answers, which is what -o json prints,
// to those of testdata/names.txt: whoever reads them by name is to find them there. One
// that is new belongs in the file; one that is gone, or another now, in the changelog too.
func TestNames_JSON(t *testing.T) {
	var got []string
	for _, answer := range []any{
		api.ServiceList{},
		api.InstanceList{},
		api.Explanation{},
		api.Status{},
		api.Doctor{},
		api.Event{},
		api.Proxy{},
		api.ProxyExplanation{},
		api.Registered{},
		api.Heartbeat{},
		api.AdminSet{},
		api.Written{},
		api.ErrorBody{},
	} {
		typ := reflect.TypeOf(answer)
		got = append(got, names(typ, typ.Name())...)
	}
	raw, err := os.ReadFile("testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields(string(raw)), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// names are the paths of a type's members.
func names(typ reflect.Type, path string) []string {
	switch {
	case slices.ContainsFunc([]reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}, typ.Implements):
		return []string{path}
	case typ.Kind() == reflect.Pointer:
		return names(typ.Elem(), path)
	case typ.Kind() == reflect.Slice:
		return names(typ.Elem(), path+"[]")
	case typ.Kind() == reflect.Map:
		return names(typ.Elem(), path+"{}")
	case typ.Kind() != reflect.Struct:
		return []string{path}
	}
	var out []string
	for field := range typ.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			out = append(out, names(field.Type, path)...)
		case name != "-":
			out = append(out, names(field.Type, path+"."+name)...)
		}
	}
	return out
}
