package registry

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Route says which HTTP requests go to which service, and how. Zero fields
// are unset: whatever matches, and the proxy's defaults. Of several routes that
// match a request, the one with the most specific host is taken (an exact name
// before the longest wildcard before any), of those the one with the longest
// path, of those the one with the most conditions (methods, headers, query), of
// those the first by name.
type Route struct {
	Name string // case-folded

	// What is matched.
	Listeners []string     // names of HTTP listeners; empty: all
	Hosts     []string     // case-folded: "shop.example.com", "*.example.com" (one label or more); empty: all
	Path      string       // prefix by whole segments: "/api/users" is not "/api/users2"; empty: all
	Methods   []string     // empty: all
	Headers   []RouteMatch // all must match
	Query     []RouteMatch // all must match

	// Where to.
	Service string // case-folded
	Zone    string // of the service; empty: the listener's
	Port    string // named port; empty: the instance's default port
	Tag     string // only instances with this tag
	// TLS names the settings in each proxy's configuration (proxy.instance_tls)
	// by which the instances are spoken to over TLS; empty: in cleartext. Files
	// and keys are named there alone: who may write routes cannot have others
	// read.
	TLS string // case-folded
	// Protocol spoken to the instances: http1 or h2c, with TLS http1 or h2.
	// Empty: http1, with TLS what ALPN finds out. gRPC requests are always
	// forwarded over HTTP/2.
	Protocol string

	// What is changed on the way.
	StripPrefix    bool              // the matched path is taken off
	Rewrite        string            // the matched path is replaced with this one
	Host           string            // sent in place of the client's Host
	SetRequest     map[string]string // fields set on the request
	RemoveRequest  []string
	SetResponse    map[string]string // fields set on the response
	RemoveResponse []string

	// Which instance.
	HashOn string // client, cookie:NAME or header:NAME; for the policy hash
	Sticky string // name of the cookie that keeps a client to its instance

	// What happens when it fails.
	Timeout    time.Duration // until the first byte of the response, all tries together
	TryTimeout time.Duration // until the first byte of the response, one try
	Retries    *int          // further tries, RouteRetriesMax at most; nil: the proxy's default
	RetryOn    string        // error, gateway (error, 502 503 504) or 5xx (gateway, 500; the default)
	RetryPost  bool          // POST and PATCH may be sent twice

	// Limits.
	BodyMax int64 // bytes of a request's body; 0: the proxy's default
	Limit   *RouteLimit

	Revision int64
	Ignored  string // as Instance.Ignored
}

// RouteMatch is a condition on a header field or a query parameter.
type RouteMatch struct {
	Name  string // fields in any case, parameters exactly
	Value string // exact; empty: it is there at all
}

// RouteLimit is a limit on the rate of requests.
type RouteLimit struct {
	Rate  float64 // a second, on average
	Burst int     // at once; 0: one second's worth, at least 1
	By    string  // each client (the default, "client"), value of a field ("header:NAME"), or all together ("route")
}

// The limits of what a Route may hold.
const (
	// RouteListMax is the number of entries in each list of a route.
	RouteListMax = 64
	// RouteRetriesMax is the greatest number of further tries.
	RouteRetriesMax = 7
	// RouteTimeoutMax is the greatest Route.Timeout and TryTimeout.
	RouteTimeoutMax = time.Hour
	// RouteRateMax is the greatest RouteLimit.Rate and Burst.
	RouteRateMax = 1_000_000
	// RouteBodyMax is the greatest Route.BodyMax: 1 TiB.
	RouteBodyMax = 1 << 40
)

const routeMend = `write an object, as {"path":"/api","service":"web"}`

// DecodeRoute reads the value of a route's key. The name is checked and
// folded. Unknown fields are Ignored but for those that are a slip or two off a known one,
// null is unset, and a wrong value makes the whole record unusable. Errors are FieldErrors.
func DecodeRoute(name string, value []byte) (Route, error) {
	folded, err := FoldService(name)
	if err != nil {
		return Route{}, within("route", err)
	}
	if err := checkSize(value, routeMend); err != nil {
		return Route{}, err
	}
	r := Route{Name: folded}
	c := cursor{in: value, mend: routeMend}
	err = c.document(func(name []byte) error {
		return knownField(&c, name, routeFields[:], r.matchField, r.targetField, r.changeField, r.failField)
	})
	if err != nil {
		return Route{}, err
	}
	r.Ignored = c.ignored
	r.Service = lower(r.Service)
	for i, h := range r.Hosts {
		r.Hosts[i] = lower(h)
	}
	if err := r.Validate(); err != nil {
		return Route{}, err
	}
	return r, nil
}

// knownField hands a field to the first reader that knows it. One that none does is
// passed over, unless its name is a slip for one of those known.
func knownField(c *cursor, name []byte, known []string, readers ...fieldReader) error {
	for _, read := range readers {
		taken, err := read(c, name)
		if err != nil {
			return within(string(name), err)
		}
		if taken {
			return nil
		}
	}
	if meant := Meant(lower(string(name)), known); meant != "" {
		return &FieldError{
			Field: meant, Value: excerpt(name), Reason: "is no field, and without the one that is meant the route would take other requests",
			Mend: "write it as " + meant,
		}
	}
	return c.ignore(name)
}

// routeFields are the names of a route's fields.
var routeFields = [...]string{
	"listeners", "hosts", "path", "methods", "headers", "query", "service", "zone", "port", "tag", "tls", "protocol",
	"strip_prefix", "rewrite", "host", "set_request", "remove_request", "set_response", "remove_response", "hash_on", "sticky",
	"timeout", "try_timeout", "retries", "retry_on", "retry_post", "body_max", "limit",
}

// The names of the fields of a condition, and of a limit.
var (
	matchFields = [...]string{"name", "value"}
	limitFields = [...]string{"rate", "burst", "by"}
)

// Meant is the known field, in lower case, that a name was meant for: the nearest that is
// one slip away, or two of a long name; empty: none is.
func Meant(name string, known []string) string {
	const slipsLong = 6
	best, least := "", 3
	for _, f := range known {
		most := 1
		if len(f) >= slipsLong {
			most = 2
		}
		if n := slips(name, f); len(f) > 3 && n <= most && n < least {
			best, least = f, n
		}
	}
	return best
}

// slips is how many letters are more, less, other, or have changed places, in a
// beside b. Names are short, and those that differ much in length are not compared.
func slips(a, b string) int {
	const far = 3
	if len(a) > len(b)+far || len(b) > len(a)+far {
		return far
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			other := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				other++
			}
			rows[i][j] = min(other, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

func (r *Route) matchField(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "listeners":
		r.Listeners, err = readTexts(c)
	case "hosts":
		r.Hosts, err = readTexts(c)
	case "path":
		r.Path, err = c.text(PathMax)
	case "methods":
		r.Methods, err = readTexts(c)
	case "headers":
		r.Headers, err = readRouteMatches(c, "headers")
	case "query":
		r.Query, err = readRouteMatches(c, "query")
	default:
		return false, nil
	}
	return true, err
}

func (r *Route) targetField(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "service":
		r.Service, err = c.text(TextMax)
	case "zone":
		if r.Zone, err = c.folded(); r.Zone != "" {
			r.Zone = strings.TrimSuffix(r.Zone, ".") + "."
		}
	case "port":
		r.Port, err = c.folded()
	case "tag":
		r.Tag, err = c.folded()
	case "tls":
		r.TLS, err = c.folded()
	case "protocol":
		r.Protocol, err = c.text(TextMax)
	case "hash_on":
		r.HashOn, err = c.text(TextMax)
	case "sticky":
		r.Sticky, err = c.text(TextMax)
	default:
		return false, nil
	}
	return true, err
}

func (r *Route) changeField(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "strip_prefix":
		r.StripPrefix, err = c.boolean()
	case "rewrite":
		r.Rewrite, err = c.text(PathMax)
	case "host":
		r.Host, err = c.text(TextMax)
	case "set_request":
		r.SetRequest, err = readMeta(c)
	case "remove_request":
		r.RemoveRequest, err = readTexts(c)
	case "set_response":
		r.SetResponse, err = readMeta(c)
	case "remove_response":
		r.RemoveResponse, err = readTexts(c)
	default:
		return false, nil
	}
	return true, err
}

func (r *Route) failField(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "timeout":
		r.Timeout, err = c.duration()
	case "try_timeout":
		r.TryTimeout, err = c.duration()
	case "retries":
		r.Retries, err = readRetries(c)
	case "retry_on":
		r.RetryOn, err = c.text(TextMax)
	case "retry_post":
		r.RetryPost, err = c.boolean()
	case "body_max":
		if !c.null() {
			var n float64
			n, err = c.number(0, RouteBodyMax)
			r.BodyMax = int64(n)
		}
	case "limit":
		r.Limit, err = readRouteLimit(c)
	default:
		return false, nil
	}
	return true, err
}

// readTexts reads a list of texts.
func readTexts(c *cursor) (list []string, err error) {
	err = c.array(RouteListMax, func(int) error {
		s, err := c.text(TextMax)
		list = append(list, s)
		return err
	})
	return list, err
}

func readRouteMatches(c *cursor, field string) (list []RouteMatch, err error) {
	err = c.array(RouteListMax, func(i int) error {
		c.list, c.index = field, i
		var m RouteMatch
		err := c.object(func(name []byte) error { return knownField(c, name, matchFields[:], m.field) })
		list = append(list, m)
		return err
	})
	c.list = ""
	return list, err
}

func (m *RouteMatch) field(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "name":
		m.Name, err = c.text(TextMax)
	case "value":
		m.Value, err = c.text(MetaValueMax)
	default:
		return false, nil
	}
	return true, err
}

// readRetries reads a number in which 0 is said and not unset.
func readRetries(c *cursor) (*int, error) {
	if c.null() {
		return nil, nil
	}
	n, err := c.integer(0, RouteRetriesMax)
	if err != nil {
		return nil, err
	}
	return &n, nil
}

func readRouteLimit(c *cursor) (*RouteLimit, error) {
	if c.null() {
		return nil, nil
	}
	var l RouteLimit
	c.list, c.index = "limit", -1
	err := c.object(func(name []byte) error { return knownField(c, name, limitFields[:], l.field) })
	c.list = ""
	if err != nil {
		return nil, err
	}
	return &l, nil
}

func (l *RouteLimit) field(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "rate":
		l.Rate, err = c.number(0, RouteRateMax)
	case "burst":
		l.Burst, err = c.integer(0, RouteRateMax)
	case "by":
		l.By, err = c.text(TextMax)
	default:
		return false, nil
	}
	return true, err
}

// Clone returns a route that shares no memory with r.
func (r Route) Clone() Route {
	for _, list := range []*[]string{&r.Listeners, &r.Hosts, &r.Methods, &r.RemoveRequest, &r.RemoveResponse} {
		*list = slices.Clone(*list)
	}
	r.Headers, r.Query = slices.Clone(r.Headers), slices.Clone(r.Query)
	r.SetRequest, r.SetResponse = maps.Clone(r.SetRequest), maps.Clone(r.SetResponse)
	if r.Retries != nil {
		n := *r.Retries
		r.Retries = &n
	}
	if r.Limit != nil {
		l := *r.Limit
		r.Limit = &l
	}
	return r
}
