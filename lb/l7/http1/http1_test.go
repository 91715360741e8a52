package http1_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/l7/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const headMax = 32 << 10

// message reads a file of testdata: the status to answer, then a message whose
// line ends and other bytes are escaped and whose own line ends say nothing.
func message(t testing.TB, path string) (status int, raw string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	quoted := strings.ReplaceAll(strings.ReplaceAll(rest, "\n", ""), `"`, `\"`)
	raw, err1 := strconv.Unquote(`"` + quoted + `"`)
	status, err2 := strconv.Atoi(first)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return status, raw
}

// sentence is what a file's name says.
func sentence(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".txt"), "_", " ")
}

// read reads a request and its body from src.
func read(src io.Reader, size int) (r http1.Request, body string, trailers []http1.Field, err error) {
	var rd http1.Reader
	rd.Reset(src, make([]byte, size))
	for {
		rd.SkipEmptyLine()
		n, err := rd.Scan(headMax)
		if err != nil {
			return r, "", nil, err
		}
		if n > 0 {
			err = r.ParseRequest(rd.Head(n))
			if err != nil {
				return r, "", nil, err
			}
			break
		}
		if err := rd.Fill(); err != nil {
			return r, "", nil, err
		}
	}
	var b http1.Body
	b.Reset(&rd, r.Framing, r.Length)
	content, err := io.ReadAll(&b)
	return r, string(content), b.Trailers, err
}

func TestRequest_Refused(t *testing.T) {
	for _, dir := range []string{"refused", "badbody"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.txt")
		if err != nil || len(files) < 10 {
			t.Fatalf("%d files in %s, %v", len(files), dir, err)
		}
		for _, path := range files {
			t.Run(sentence(path), func(t *testing.T) {
				status, raw := message(t, path)
				for _, src := range []io.Reader{strings.NewReader(raw), iotest.OneByteReader(strings.NewReader(raw))} {
					r, body, _, err := read(src, 512)
					bad, ok := errors.AsType[*http1.Error](err)
					if !ok || bad.Status != status {
						t.Errorf("%q is taken as %+v with %q, %v; want %d", raw, r, body, err, status)
					}
				}
			})
		}
	}
}

func TestRequest_Taken(t *testing.T) {
	tests := []struct{ name, raw, want, body string }{
		{"the least", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET path / query  host a keep", ""},
		{"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET path / query  host a keep", ""},
		{"a query", "GET /a%2f?b=c?d HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET path /a%2f query b=c?d host a:80 keep", ""},
		{"a URL", "GET http://A/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET path /x query y host A keep", ""},
		{"a URL without a path", "GET https://a?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET path / query y host a keep", ""},
		{"the server as a whole", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS path * query  host a keep", ""},
		{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET path / query  host  keep", ""},
		{"an IPv6 address", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET path / query  host [::1]:80 keep", ""},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "GET path / query  host ", ""},
		{"HTTP/1.0 that keeps", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET path / query  host  keep", ""},
		{"a later minor version", "GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET path / query  host a keep", ""},
		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", "GET path / query  host a listed", ""},
		{"an upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET path / query  host a keep upgrade websocket", ""},
		{"an upgrade past all routes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", "GET path / query  host a keep", ""},
		{"an upgrade that is not asked for", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET path / query  host a keep", ""},
		{"a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST path / query  host a keep", "hello"},
		{"a length of 0", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST path / query  host a keep", ""},
		{"chunks", "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nhel\r\n2;a=\"b\"\r\nlo\r\n00\r\n\r\n", "POST path / query  host a keep", "hello"},
		{"trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nHost: b\r\nX-Forwarded-For: c\r\nAuthorization: d\r\n\r\n", "POST path / query  host a keep trailer X-Sum=1", "hello"},
		{"expects to be told", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", "POST path / query  host a keep continue", "x"},
		{"white space around a value", "GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", "GET path / query  host a keep", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(test.raw), iotest.OneByteReader(strings.NewReader(test.raw))} {
				r, body, trailers, err := read(src, 256)
				if err != nil {
					t.Fatal(err)
				}
				got := fmt.Sprintf("%s path %s query %s host %s", r.Method, r.Path, r.Query, r.Host)
				for word, ok := range map[string]bool{" keep": r.KeepAlive, " listed": r.Listed, " continue": r.Continue} {
					if ok != strings.Contains(test.want, word) {
						t.Errorf("%s is %t", word, ok)
					}
				}
				if r.Upgrade != "" {
					got += " keep upgrade " + r.Upgrade
				}
				for _, f := range trailers {
					got += " keep trailer " + f.Name + "=" + f.Value
				}
				if !strings.HasPrefix(test.want, got) || body != test.body {
					t.Errorf("got %q with %q, want %q with %q", got, body, test.want, test.body)
				}
			}
		})
	}
}

func TestResponse(t *testing.T) {
	tests := []struct{ name, method, raw, want string }{
		{"a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK length 5 keep"},
		{"none", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK none 0 keep"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 OK chunked 0 keep"},
		{"to the end", "GET", "HTTP/1.1 200 OK\r\n\r\n", "200 OK toclose 0"},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", "200  length 1 keep"},
		{"an empty reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", "200  length 1 keep"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK none 5 keep"},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content none -1 keep"},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "304 Not Modified none 9 keep"},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK length 5"},
		{"close", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", "200 OK length 5"},
		{"two ways", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "bad"},
		{"another coding", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "bad"},
		{"another protocol", "GET", "SSH-2.0-OpenSSH\r\n\r\n", "bad"},
		{"a status of two digits", "GET", "HTTP/1.1 20 OK\r\n\r\n", "bad"},
		{"a status of four digits", "GET", "HTTP/1.1 2000 OK\r\n\r\n", "bad"},
		{"folded", "GET", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "bad"},
	}
	framings := map[http1.Framing]string{http1.NoBody: "none", http1.Length: "length", http1.Chunked: "chunked", http1.ToClose: "toclose"}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var r http1.Response
			err := r.ParseResponse(test.raw, test.method)
			got := fmt.Sprintf("%d %s %s %d", r.Status, r.Reason, framings[r.Framing], r.Length)
			if r.KeepAlive {
				got += " keep"
			}
			if err != nil {
				got = "bad"
			}
			if got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// TestReader_Scan/a head that is too large is known before it is whole.
func TestReader_LimitsAHead(t *testing.T) {
	for _, test := range []struct {
		name, raw string
		status    int
	}{
		{"one line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("x", 2*headMax), 431},
		{"many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-A: b\r\n", http1.FieldsMax) + "\r\n", 431},
		{"the first line", strings.Repeat("x", 2*headMax), 414},
	} {
		_, _, _, err := read(strings.NewReader(test.raw), 4096)
		if bad, ok := errors.AsType[*http1.Error](err); !ok || bad.Status != test.status {
			t.Errorf("%s: %v, want %d", test.name, err, test.status)
		}
	}
}

func TestBody_EndsEarly(t *testing.T) {
	for _, raw := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n",
	} {
		if _, _, _, err := read(strings.NewReader(raw), 512); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v, want an unexpected end", raw, err)
		}
	}
}

// FuzzRequest holds what is taken to what net/http takes: the same method,
// target, host, fields and body, where both take it. What net/http refuses and
// this takes, or the other way round, is allowed; two meanings are not.
func FuzzRequest(f *testing.F) {
	for _, dir := range []string{"refused", "badbody"} {
		files, _ := filepath.Glob("testdata/" + dir + "/*.txt")
		for _, path := range files {
			_, raw := message(f, path)
			f.Add([]byte(raw))
		}
	}
	f.Add([]byte("POST http://a/b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A:  b \r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n"))
	f.Add([]byte("\r\nPUT /a HTTP/1.0\r\nContent-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabcdef"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, body, _, err := read(strings.NewReader(string(raw)), 64)
		r1, body1, _, err1 := read(iotest.OneByteReader(strings.NewReader(string(raw))), 300)
		if (err == nil) != (err1 == nil) || body != body1 || r.Target != r1.Target {
			t.Fatalf("it depends on how it comes: %v %q, %v %q", err, body, err1, body1)
		}
		if err != nil {
			return
		}
		other, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		otherBody, err := io.ReadAll(other.Body)
		if err != nil {
			return
		}
		host := other.Host
		if r.Method != other.Method || r.Target != other.RequestURI || !strings.EqualFold(r.Host, host) || body != string(otherBody) {
			t.Errorf("%q\nis %s %s %s %q\nand %s %s %s %q", raw, r.Method, r.Target, r.Host, body, other.Method, other.RequestURI, host, otherBody)
		}
		for _, field := range r.Fields {
			if field.Known == http1.Host || field.Known == http1.TransferEncoding || field.Known == http1.Trailer || field.Known == http1.ContentLength {
				continue
			}
			if got := other.Header.Values(field.Name); !slices.Contains(got, field.Value) {
				t.Errorf("%q: field %q is %q and %q", raw, field.Name, field.Value, got)
			}
		}
	})
}

func TestRequest_ParseAllocatesNothing(t *testing.T) {
	head := "GET /api/users/17?x=1 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n"
	r := http1.Request{Fields: make([]http1.Field, 0, 16)}
	if n := testing.AllocsPerRun(100, func() {
		if err := r.ParseRequest(head); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a head", n)
	}
}

func BenchmarkRequest_Parse(b *testing.B) {
	head := "GET /api/users/17?x=1 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n"
	r := http1.Request{Fields: make([]http1.Field, 0, 16)}
	for b.Loop() {
		if err := r.ParseRequest(head); err != nil {
			b.Fatal(err)
		}
	}
}
