package route_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/l7/http1"
	"github.com/musterdns/muster/lb/l7/route"
	"github.com/musterdns/muster/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// routes makes a table from lines "name json".
func routes(t testing.TB, lines ...string) *route.Table {
	t.Helper()
	var list []registry.Route
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		r, err := registry.DecodeRoute(name, []byte(value))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		list = append(list, r)
	}
	return route.New(list)
}

// request reads "GET host/path?query name:value".
func request(line string) *route.Request {
	f := strings.Fields(line)
	host, rest, _ := strings.Cut(f[1], "/")
	path, query, _ := strings.Cut("/"+rest, "?")
	r := &route.Request{Method: f[0], Host: host, Path: path, Query: query}
	for _, field := range f[2:] {
		name, value, _ := strings.Cut(field, ":")
		r.Fields = append(r.Fields, http1.NewField(name, value))
	}
	return r
}

var example = []string{
	`all {"service":"web"}`,
	`users {"path":"/api/users","service":"users"}`,
	`products {"path":"/api/products/","service":"products"}`,
	`api {"path":"/api","service":"api"}`,
	`api-post {"path":"/api","methods":["POST"],"service":"api"}`,
	`api-post-v2 {"path":"/api","methods":["POST","PUT"],"headers":[{"name":"X-Version","value":"2"}],"service":"api2"}`,
	`beta {"path":"/api","query":[{"name":"beta","value":"a b"}],"service":"beta"}`,
	`shop {"hosts":["shop.example.com"],"service":"shop"}`,
	`shop-cart {"hosts":["shop.example.com"],"path":"/cart","service":"cart"}`,
	`star {"hosts":["*.example.com"],"service":"star"}`,
	`star-deep {"hosts":["*.eu.example.com"],"path":"/x","service":"star"}`,
	`only-get {"hosts":["get.test"],"methods":["GET"],"service":"web"}`,
}

func TestTable_Match(t *testing.T) {
	tests := []struct{ name, request, want string }{
		{"nothing but the host of none", "GET other/", "all"},
		{"a path by whole segments", "GET h/api/users", "users"},
		{"below a path", "GET h/api/users/17", "users"},
		{"users2 is not users", "GET h/api/users2", "api"},
		{"a slash at the end of a route's path says nothing", "GET h/api/products", "products"},
		{"a slash at the end of the request's", "GET h/api/users/", "users"},
		{"apis is not api", "GET h/apis", "all"},
		{"an escaped letter is that letter", "GET h/%61pi/us%65rs", "users"},
		{"an escaped slash ends no segment", "GET h/api%2fusers", "all"},
		{"empty segments say nothing", "GET h//api///users", "users"},
		{"case matters in a path", "GET h/API", "all"},
		{"more conditions first", "POST h/api X-Version:2", "api-post-v2"},
		{"a condition that does not hold", "POST h/api X-Version:3", "api-post"},
		{"field names in any case", "PUT h/api x-version:2", "api-post-v2"},
		{"a parameter with escapes", "GET h/api?x&beta=a+b", "beta"},
		{"another value of a parameter", "GET h/api?beta=ab", "api"},
		{"an exact host before everything", "GET shop.example.com/api/users", "shop"},
		{"a host in any case, with a port and the root's dot", "GET Shop.Example.COM.:8080/cart/1", "shop-cart"},
		{"a wildcard", "GET a.example.com/", "star"},
		{"a wildcard of several labels", "GET a.b.example.com/", "star"},
		{"a longer wildcard first", "GET a.eu.example.com/x", "star-deep"},
		{"a shorter wildcard when the longer has no such path", "GET a.eu.example.com/y", "star"},
		{"a wildcard is not the name itself", "GET example.com/", "all"},
		{"a less specific host when the conditions do not hold", "POST get.test/", "all"},
		{"an address for a host", "GET [::1]:80/api", "api"},
	}
	table := routes(t, example...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, err := table.Match(request(test.request))
			if err != nil || i < 0 || table.Routes()[i].Name != test.want {
				t.Errorf("%s: route %d, %v; want %s", test.request, i, err, test.want)
			}
			list, err := table.Explain(request(test.request))
			if err != nil || list[len(list)-1].Name != test.want || list[len(list)-1].Reason != "" {
				t.Errorf("%s: explained as %+v, %v", test.request, list, err)
			}
		})
	}
	for _, path := range []string{
		"/a/../b", "/a/./b", "/..", "/a/%2e%2e/b", "/a/.%2E", "/a/..;x/b", "/%zz", "/%2",
		"/a/..%2fb", "/a%2F..", "/a%2f%2e%2e%2Fb", "/a/..%252fb", `/a/..\b`, `/a\..\b`, "/a/..%5Cb", "/a%5c%2e%2e",
	} {
		if i, err := table.Match(&route.Request{Host: "h", Path: path}); !errors.Is(err, route.ErrPath) {
			t.Errorf("%s: route %d, %v; want ErrPath", path, i, err)
		}
	}
	if i, err := routes(t, example[11:]...).Match(request("POST get.test/")); i != -1 || err != nil {
		t.Errorf("no route matches, and %d is taken, %v", i, err)
	}
}

// TestTable_Match/the order of the routes in the list says nothing.
func TestTable_MatchIsDeterministic(t *testing.T) {
	want := map[string]string{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		lines := append([]string(nil), example...)
		r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		table := routes(t, lines...)
		for _, req := range []string{"GET h/", "GET h/api", "POST h/api X-Version:2", "GET h/api?beta=a+b", "GET shop.example.com/cart", "PUT h/api/users"} {
			i, err := table.Match(request(req))
			if err != nil {
				t.Fatal(err)
			}
			name := table.Routes()[i].Name
			if want[req] == "" {
				want[req] = name
			}
			if name != want[req] {
				t.Fatalf("%s: %s, and %s in another order", req, name, want[req])
			}
		}
	}
}

func TestTarget(t *testing.T) {
	tests := []struct{ name, route, path, want string }{
		{"nothing is changed", `{"path":"/api"}`, "/api/%61", "/api/%61"},
		{"strip", `{"path":"/api","strip_prefix":true}`, "/api/users/%61", "/users/%61"},
		{"strip all", `{"path":"/api","strip_prefix":true}`, "/api", "/"},
		{"strip all but the slash", `{"path":"/api/","strip_prefix":true}`, "/api/", "/"},
		{"strip nothing", `{"strip_prefix":true}`, "/a", "/a"},
		{"strip what was escaped", `{"path":"/api","strip_prefix":true}`, "//%61pi/x", "/x"},
		{"rewrite", `{"path":"/api/v2","rewrite":"/v3"}`, "/api/v2/users", "/v3/users"},
		{"rewrite all", `{"path":"/api","rewrite":"/v3"}`, "/api", "/v3"},
		{"rewrite to the root", `{"path":"/api","rewrite":"/"}`, "/api/x", "/x"},
		{"put before", `{"rewrite":"/v3"}`, "/x", "/v3/x"},
		{"the asterisk is no path", `{"rewrite":"/v3"}`, "*", "*"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := registry.DecodeRoute("r", []byte(strings.Replace(test.route, "{", `{"service":"s",`, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if got := route.Target(&r, test.path); got != test.want {
				t.Errorf("%s becomes %s, want %s", test.path, got, test.want)
			}
		})
	}
}

func TestTable_MatchAllocatesNothing(t *testing.T) {
	table := routes(t, example...)
	r := request("POST shop.example.com/cart/17?beta=1 X-Version:2")
	if n := testing.AllocsPerRun(100, func() { _, _ = table.Match(r) }); n != 0 {
		t.Errorf("%v allocations a match", n)
	}
}

// TestTable_Match/a hostile path costs no more than its length.
func BenchmarkTable_Match(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		lines := append([]string(nil), example...)
		for i := len(lines); i < n; i++ {
			lines = append(lines, fmt.Sprintf(`r%d {"hosts":["h%d.test"],"path":"/api/v%d","service":"s"}`, i, i%50, i))
		}
		table := routes(b, lines[:max(n, 1)]...)
		for name, r := range map[string]*route.Request{
			"plain":   request("GET shop.example.com/cart/17"),
			"hostile": request("GET h/" + strings.Repeat("a/", 4000)),
		} {
			b.Run(fmt.Sprintf("%s/routes=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := table.Match(r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// FuzzTable_Match holds paths to one meaning: what is taken off a path is what
// the route matched, and no path that is matched leads above it.
func FuzzTable_Match(f *testing.F) {
	for _, path := range []string{"/api/users", "/api/users2", "//%61pi/../x", "/api%2fusers", "/api/./users", "*", "/api/users/..;/x"} {
		f.Add(path, "Shop.Example.com:80")
	}
	table := routes(f, example...)
	strip, err := registry.DecodeRoute("strip", []byte(`{"path":"/api/users","strip_prefix":true,"service":"s"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		if path == "" || path[0] != '/' {
			return
		}
		i, err := table.Match(&route.Request{Method: "GET", Host: host, Path: path})
		if err != nil {
			return
		}
		if strings.Contains(path+"/", "/../") {
			t.Fatalf("%q is taken by %d", path, i)
		}
		if i < 0 || table.Routes()[i].Name != "users" {
			return
		}
		rest := route.Target(&strip, path)
		if rest == "" || rest[0] != '/' || !strings.HasSuffix(path, strings.TrimPrefix(rest, "/")) {
			t.Errorf("%q without /api/users is %q", path, rest)
		}
	})
}
