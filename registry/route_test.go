package registry_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/registry"
)

const fullRoute = `{"listeners":["web"],"hosts":["Shop.example.com","*.example.com"],"path":"/api/users","methods":["GET"],
	"headers":[{"name":"X-Version","value":"2"}],"query":[{"name":"beta"}],
	"service":"Users","zone":"svc.internal.","port":"http","protocol":"h2c",
	"rewrite":"/v1","host":"users.internal:80","set_request":{"X-A":"b"},"remove_request":["Cookie"],"set_response":{"X-B":""},"remove_response":["Server"],
	"hash_on":"cookie:user","sticky":"muster","timeout":"30s","try_timeout":5,"retries":0,"retry_on":"gateway","retry_post":true,
	"body_max":1048576,"limit":{"rate":0.5,"burst":200,"by":"header:X-Key"},"unknown":[1]}`

func TestDecodeRoute(t *testing.T) {
	none := 0
	tests := []struct {
		name, value string
		want        registry.Route
	}{
		{"the least", `{"service":"web"}`, registry.Route{Name: "shop", Service: "web"}},
		{"null is unset", `{"service":"web","hosts":null,"retries":null,"limit":null,"body_max":null,"timeout":null}`, registry.Route{Name: "shop", Service: "web"}},
		{"a tag, and a zone without the root's dot", `{"service":"web","tag":"V2","zone":"Svc.internal"}`, registry.Route{
			Name: "shop", Service: "web", Tag: "v2", Zone: "svc.internal.",
		}},
		{"TLS, and what is agreed on", `{"service":"web","tls":"Internal"}`, registry.Route{Name: "shop", Service: "web", TLS: "internal"}},
		{"TLS and HTTP/2", `{"service":"web","tls":"internal","protocol":"h2"}`, registry.Route{Name: "shop", Service: "web", TLS: "internal", Protocol: "h2"}},
		{"the full form", fullRoute, registry.Route{
			Name: "shop", Listeners: []string{"web"}, Hosts: []string{"shop.example.com", "*.example.com"}, Path: "/api/users", Methods: []string{"GET"},
			Headers: []registry.RouteMatch{{Name: "X-Version", Value: "2"}}, Query: []registry.RouteMatch{{Name: "beta"}},
			Service: "users", Zone: "svc.internal.", Port: "http", Protocol: "h2c",
			Rewrite: "/v1", Host: "users.internal:80", SetRequest: map[string]string{"X-A": "b"}, RemoveRequest: []string{"Cookie"},
			SetResponse: map[string]string{"X-B": ""}, RemoveResponse: []string{"Server"},
			HashOn: "cookie:user", Sticky: "muster", Timeout: 30 * time.Second, TryTimeout: 5 * time.Second, Retries: &none, RetryOn: "gateway", RetryPost: true,
			BodyMax: 1 << 20, Limit: &registry.RouteLimit{Rate: 0.5, Burst: 200, By: "header:X-Key"}, Ignored: "unknown",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := registry.DecodeRoute("Shop", []byte(test.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(got, got.Clone()); diff != "" {
				t.Errorf("a clone differs\n%s", diff)
			}
		})
	}
}

// TestDecodeRoute_errors holds each error to naming the place and the mend.
func TestDecodeRoute_errors(t *testing.T) {
	tests := []struct{ name, value, field string }{
		{"a field that is misspelled", `{"service":"web","hots":["a.example"]}`, "hosts"},
		{"a field with a letter too many", `{"service":"web","methodss":["GET"]}`, "methods"},
		{"a field in upper case", `{"service":"web","Path":"/api"}`, "path"},
		{"a field with two slips", `{"service":"web","strp_prefxi":true}`, "strip_prefix"},
		{"a field in another style", `{"service":"web","try-TimeOut":"1s"}`, "try_timeout"},
		{"a condition's field that is misspelled", `{"service":"web","headers":[{"name":"X-A","vaule":"b"}]}`, "headers[0].value"},
		{"a limit's field that is misspelled", `{"service":"web","limit":{"rate":1,"brust":5}}`, "limit.burst"},
		{"a method in lower case", `{"service":"web","methods":["GET","post"]}`, "methods[1]"},
		{"no service", `{"path":"/"}`, "service"},
		{"a service that is no name", `{"service":"w_b"}`, "service"},
		{"a host with a port", `{"service":"w","hosts":["a.b","a.b:80"]}`, "hosts[1]"},
		{"a star within a host", `{"service":"w","hosts":["a.*.b"]}`, "hosts[0]"},
		{"a path without a slash", `{"service":"w","path":"api"}`, "path"},
		{"a path with a dot segment", `{"service":"w","path":"/a/../b"}`, "path"},
		{"a path with an escape", `{"service":"w","path":"/a%2fb"}`, "path"},
		{"a path with an empty segment", `{"service":"w","rewrite":"/a//b"}`, "rewrite"},
		{"port and tag", `{"service":"w","port":"http","tag":"v2"}`, "tag"},
		{"strip and rewrite", `{"service":"w","rewrite":"/a","strip_prefix":true}`, "strip_prefix"},
		{"a method that is no token", `{"service":"w","methods":["GE T"]}`, "methods[0]"},
		{"a condition without a name", `{"service":"w","headers":[{"value":"x"}]}`, "headers[0].name"},
		{"a parameter without a name", `{"service":"w","query":[{}]}`, "query[0].name"},
		{"a field that frames the message", `{"service":"w","set_request":{"Content-Length":"1"}}`, "set_request"},
		{"a value that ends the line", `{"service":"w","set_response":{"X-A":"a\r\nX-B: c"}}`, "set_response.X-A"},
		{"a protocol that there is not", `{"service":"w","protocol":"spdy"}`, "protocol"},
		{"cleartext within TLS", `{"service":"w","tls":"a","protocol":"h2c"}`, "protocol"},
		{"HTTP/2 by ALPN without TLS", `{"service":"w","protocol":"h2"}`, "protocol"},
		{"TLS by a path", `{"service":"w","tls":"/etc/ca.pem"}`, "tls"},
		{"hash on a cookie without a name", `{"service":"w","hash_on":"cookie:"}`, "hash_on"},
		{"hash on what there is not", `{"service":"w","hash_on":"moon"}`, "hash_on"},
		{"a negative timeout", `{"service":"w","timeout":-1}`, "timeout"},
		{"a timeout without end", `{"service":"w","try_timeout":"2h"}`, "try_timeout"},
		{"too many retries", `{"service":"w","retries":8}`, "retries"},
		{"retries on what there is not", `{"service":"w","retry_on":"404"}`, "retry_on"},
		{"a rate of none", `{"service":"w","limit":{"rate":0}}`, "limit.rate"},
		{"a limit by what there is not", `{"service":"w","limit":{"rate":1,"by":"day"}}`, "limit.by"},
		{"too many methods", `{"service":"w","methods":[` + strings.TrimSuffix(strings.Repeat(`"GET",`, registry.RouteListMax+1), ",") + `]}`, "methods"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := registry.DecodeRoute("r", []byte(test.value))
			field, ok := errors.AsType[*registry.FieldError](err)
			if !ok {
				t.Fatalf("decoded as %+v, %v", r, err)
			}
			if field.Field != test.field || field.Reason == "" || field.Mend == "" {
				t.Errorf("%#v, want field %q, a reason and a mend", field, test.field)
			}
		})
	}
}
