package http1_test

import (
	"errors"
	"testing"

	"github.com/musterdns/muster/lb/l7/http1"
)

// TestRequest_Adopt/what came over HTTP/2 says nothing more once it is written
// as HTTP/1.1.
func TestRequest_Adopt(t *testing.T) {
	field := func(name, value string) []http1.Field { return []http1.Field{http1.NewField(name, value)} }
	tests := []struct {
		name, method, target, host string
		fields                     []http1.Field
		status                     int
	}{
		{"a path", "GET", "/a?b", "a", nil, 0},
		{"a method of several words", "GET /admin HTTP/1.1", "/", "a", nil, 400},
		{"no method", "", "/", "a", nil, 400},
		{"a path of several words", "GET", "/a HTTP/1.1", "a", nil, 400},
		{"a path with a line end", "GET", "/a\r\nX: y", "a", nil, 400},
		{"a path with a fragment", "GET", "/a#b", "a", nil, 400},
		{"a URL", "GET", "http://a/", "a", nil, 400},
		{"no path", "GET", "", "a", nil, 400},
		{"CONNECT", "CONNECT", "/", "a", nil, 501},
		{"the asterisk", "OPTIONS", "*", "a", nil, 0},
		{"the asterisk with GET", "GET", "*", "a", nil, 400},
		{"no authority", "GET", "/", "", nil, 400},
		{"an authority with a path", "GET", "/", "a/b", nil, 400},
		{"another host", "GET", "/", "a", field("host", "b"), 400},
		{"the same host", "GET", "/", "a", field("host", "A"), 0},
		{"a transfer coding", "POST", "/", "a", field("transfer-encoding", "chunked"), 400},
		{"a connection's option", "GET", "/", "a", field("connection", "close"), 400},
		{"an upgrade", "GET", "/", "a", field("upgrade", "websocket"), 400},
		{"TE", "GET", "/", "a", field("te", "gzip"), 400},
		{"TE for trailers", "GET", "/", "a", field("te", "trailers"), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := http1.Request{Method: test.method, Target: test.target, Host: test.host, Fields: test.fields}
			err := r.Adopt()
			status := 0
			if bad, ok := errors.AsType[*http1.Error](err); ok {
				status = bad.Status
			}
			if status != test.status {
				t.Errorf("%v, want %d", err, test.status)
			}
		})
	}
}
