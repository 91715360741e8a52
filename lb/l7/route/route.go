// Package route finds the route that a request takes: the one with the most
// specific host, of those the one with the longest path, of those the one with
// the most conditions, of those the first by name. What it says depends on the
// routes and the request alone.
//
// Paths are compared as what they mean: "/%61pi" and "//api" are "/api", and
// "/api/users" is never the beginning of "/api/users2". A path with a segment
// "." or "..", plain or escaped, is refused: a client resolves them before it
// asks (RFC 3986 section 5.2.4), and a backend that does so would serve what
// another route guards.
package route

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/musterdns/muster/lb/l7/http1"
	"github.com/musterdns/muster/registry"
)

// ErrPath is returned for a path that has no one meaning.
var ErrPath = errors.New(`the path has a "." or ".." segment or a broken escape`)

// Request is what a route is found by.
type Request struct {
	Method string
	Host   string // with or without a port, in any case
	Path   string // as it was sent
	Query  string // as it was sent, without the question mark
	Fields []http1.Field
}

// Table is a set of routes. It is immutable.
type Table struct {
	routes  []registry.Route
	exact   map[string]*paths
	suffix  map[string]*paths // "example.com" of "*.example.com"
	any     *paths
	deepest int // segments of the longest path
}

// paths are the routes of one host, by the path without a slash at its end;
// those of one path in the order in which they are tried.
type paths map[string][]int

// New returns the table of routes that are valid. It keeps the slice.
func New(routes []registry.Route) *Table {
	t := &Table{routes: routes, exact: map[string]*paths{}, suffix: map[string]*paths{}, any: &paths{}}
	for i := range routes {
		r := &routes[i]
		path := strings.TrimRight(r.Path, "/")
		t.deepest = max(t.deepest, strings.Count(path, "/"))
		if len(r.Hosts) == 0 {
			t.add(t.any, path, i)
		}
		for _, host := range r.Hosts {
			in, name := t.exact, foldHost(host)
			if rest, ok := strings.CutPrefix(name, "*."); ok {
				in, name = t.suffix, rest
			}
			if in[name] == nil {
				in[name] = &paths{}
			}
			t.add(in[name], path, i)
		}
	}
	return t
}

// add puts a route in its place among those of one host and path.
func (t *Table) add(p *paths, path string, i int) {
	list := append((*p)[path], i)
	slices.SortFunc(list, func(a, b int) int {
		x, y := &t.routes[a], &t.routes[b]
		return cmp.Or(cmp.Compare(conditions(y), conditions(x)), cmp.Compare(x.Name, y.Name))
	})
	(*p)[path] = slices.Compact(list)
}

// conditions is how many conditions a route has beside host and path.
func conditions(r *registry.Route) int {
	return len(r.Headers) + len(r.Query) + min(len(r.Methods), 1)
}

// Routes are the table's routes; not to be written to.
func (t *Table) Routes() []registry.Route { return t.routes }

// Match returns the index of the route that a request takes; -1 when none
// matches. It allocates nothing unless the path has escapes or empty segments
// or the host is not in lower case.
func (t *Table) Match(r *Request) (int, error) {
	found := -1
	err := t.candidates(r, func(i int) bool {
		if mismatch(&t.routes[i], r) == "" {
			found = i
			return false
		}
		return true
	})
	return found, err
}

// Considered is a route that was looked at and why it was not taken; empty for
// the one that was.
type Considered struct {
	Name   string
	Reason string
}

// Explain lists the routes whose host and path match, in the order in which
// they are tried, up to the one that is taken.
func (t *Table) Explain(r *Request) (list []Considered, err error) {
	err = t.candidates(r, func(i int) bool {
		reason := mismatch(&t.routes[i], r)
		list = append(list, Considered{t.routes[i].Name, reason})
		return reason != ""
	})
	return list, err
}

// candidates yields the routes whose host and path match, most specific first,
// until yield returns false.
func (t *Table) candidates(r *Request, yield func(int) bool) error {
	path, err := meaning(r.Path)
	if err != nil {
		return err
	}
	if path == "*" {
		path = "" // OPTIONS of the server as a whole
	}
	host := foldHost(stripPort(r.Host))
	if p := t.exact[host]; p != nil && !t.walk(p, path, yield) {
		return nil
	}
	for rest := host; len(t.suffix) > 0; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		if p := t.suffix[parent]; p != nil && !t.walk(p, path, yield) {
			return nil
		}
		rest = parent
	}
	t.walk(t.any, path, yield)
	return nil
}

// walk yields the routes of one host whose path is a beginning of path by whole
// segments, the longest first; false when yield did.
func (t *Table) walk(p *paths, path string, yield func(int) bool) bool {
	for prefix := cutSegments(path, t.deepest); ; {
		for _, i := range (*p)[prefix] {
			if !yield(i) {
				return false
			}
		}
		slash := strings.LastIndexByte(prefix, '/')
		if slash < 0 {
			return true
		}
		prefix = prefix[:slash]
	}
}

// cutSegments returns at most n segments of a path, without a slash at its end.
func cutSegments(path string, n int) string {
	at := 0
	for range n {
		next := strings.IndexByte(path[min(at+1, len(path)):], '/')
		if at == len(path) || next < 0 {
			at = len(path)
			break
		}
		at += 1 + next
	}
	return strings.TrimRight(path[:at], "/")
}

// mismatch says why a route whose host and path match is not taken.
func mismatch(route *registry.Route, r *Request) string {
	if len(route.Methods) > 0 && !slices.Contains(route.Methods, r.Method) {
		return "the method is none of " + strings.Join(route.Methods, ", ")
	}
	for _, m := range route.Headers {
		if !hasField(r.Fields, m) {
			return "the field " + m.Name + " is not as it must be"
		}
	}
	for _, m := range route.Query {
		if !hasParameter(r.Query, m) {
			return "the parameter " + m.Name + " is not as it must be"
		}
	}
	return ""
}

func hasField(fields []http1.Field, m registry.RouteMatch) bool {
	for i := range fields {
		if strings.EqualFold(fields[i].Name, m.Name) && (m.Value == "" || fields[i].Value == m.Value) {
			return true
		}
	}
	return false
}

func hasParameter(query string, m registry.RouteMatch) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		if unescapeQuery(name) == m.Name && (m.Value == "" || unescapeQuery(value) == m.Value) {
			return true
		}
	}
	return false
}
