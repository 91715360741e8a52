package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

// TestNewIgnored holds the problem of a record with fields that are not known to naming
// them, where they are, and what was meant.
func TestNewIgnored(t *testing.T) {
	decode := func(kind registry.Kind, value string) (ignored string, err error) {
		switch kind {
		case registry.KindInstance:
			in, err := registry.DecodeInstance("web", "a", []byte(value))
			return in.Ignored, err
		case registry.KindService:
			s, err := registry.DecodeService("web", []byte(value))
			return s.Ignored, err
		case registry.KindAdmin:
			a, err := registry.DecodeAdmin("web", "a", []byte(value))
			return a.Ignored, err
		case registry.KindLoad:
			l, err := registry.DecodeLoad("web", "a", []byte(value))
			return l.Ignored, err
		default:
			r, err := registry.DecodeRoute("r", []byte(value))
			return r.Ignored, err
		}
	}
	const mendNone = "take it out, unless it is for a later version of Muster"
	for _, test := range []struct {
		name         string
		kind         registry.Kind
		value        string
		reason, mend string
	}{
		{"an instance's", registry.KindInstance, `{"address":"10.0.0.1","wieght":3}`, `field "wieght" is not known, and is ignored`, `did you mean "weight"?`},
		{"in another case", registry.KindInstance, `{"address":"10.0.0.1","Weight":3}`, `field "Weight" is not known, and is ignored`, `did you mean "weight"?`},
		{
			"of the second check", registry.KindInstance, `{"address":"10.0.0.1","port":1,"checks":[{"type":"tcp"},{"type":"tcp","intervall":"1s"}],"tag":"x"}`,
			`fields "checks[1].intervall", "tag" are not known, and are ignored`, `did you mean "checks[1].interval", "tags"?`,
		},
		{"near to nothing", registry.KindInstance, `{"address":"10.0.0.1","datacenter":{"weight":1}}`, `field "datacenter" is not known, and is ignored`, mendNone},
		{"with a dot", registry.KindInstance, `{"address":"10.0.0.1","a.wieght":1}`, `field "a.wieght" is not known, and is ignored`, mendNone},
		{"that forges output", registry.KindInstance, `{"address":"10.0.0.1","a\u001b[2J":1}`, `field "a\x1b[2J" is not known, and is ignored`, mendNone},
		{"a service's", registry.KindService, `{"polcy":"hash"}`, `field "polcy" is not known, and is ignored`, `did you mean "policy"?`},
		{"a drain's", registry.KindAdmin, `{"state":"drain","unitl":"2030-01-02T15:04:05Z"}`, `field "unitl" is not known, and is ignored`, `did you mean "until"?`},
		{"a load report's", registry.KindLoad, `{"load":0.5,"capcity":3}`, `field "capcity" is not known, and is ignored`, `did you mean "capacity"?`},
		{"a route's, where a slip is refused", registry.KindRoute, `{"service":"web","canary":1}`, `field "canary" is not known, and is ignored`, mendNone},
		{"of a route's limit", registry.KindRoute, `{"service":"web","limit":{"rate":1,"window":1}}`, `field "limit.window" is not known, and is ignored`, mendNone},
		{"of a route's condition", registry.KindRoute, `{"service":"web","headers":[{"name":"a","regexp":"b"}]}`, `field "headers[0].regexp" is not known, and is ignored`, mendNone},
		{
			"a great many", registry.KindService, `{` + many(5_000, `"x%d":1`) + `}`,
			`fields "x0", "x1", "x2", "x3", and perhaps others, are not known, and are ignored`, mendNone,
		},
		{
			"a long one", registry.KindService, `{"` + strings.Repeat("x", 60_000) + `":1}`,
			`field "` + strings.Repeat("x", 48) + `" is not known, and is ignored`, mendNone,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			ignored, err := decode(test.kind, test.value)
			if err != nil || ignored == "" {
				t.Fatalf("ignored %q, error %v", ignored, err)
			}
			want := registry.Problem{RawKey: "k", Reason: test.reason, Mend: test.mend, Revision: 7, Used: true}
			if got := registry.NewIgnored("k", 7, test.kind, ignored); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// many is a list of n numbered texts.
func many(n int, format string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(list, ",")
}
