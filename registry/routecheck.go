package registry

import (
	"strconv"
	"strings"
)

// Validate says what of a route cannot be used, however it came to be: from a
// record or from a configuration file. Zero fields are unset and always good,
// but for the service.
func (r Route) Validate() error {
	if r.Service == "" {
		return &FieldError{Field: "service", Reason: "is missing", Mend: routeMend}
	}
	if err := checkName(r.Service); err != nil {
		return within("service", err)
	}
	if err := memberOf("retry_on", r.RetryOn, "error", "gateway", "5xx"); err != nil {
		return err
	}
	for _, check := range [...]func() error{r.validateProtocol, r.validateLists, r.validatePaths, r.validateChanges, r.validateChoice, r.validateNumbers} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// validateProtocol checks what is spoken to instances.
func (r Route) validateProtocol() error {
	if r.TLS == "" {
		return memberOf("protocol", r.Protocol, "http1", "h2c")
	}
	if err := checkName(r.TLS); err != nil {
		return within("tls", err)
	}
	return memberOf("protocol", r.Protocol, "http1", "h2")
}

// validateLists checks what is matched but for the path.
func (r Route) validateLists() error {
	lists := [...]struct {
		field string
		list  []string
		check func(string) error
	}{
		{"listeners", r.Listeners, checkName},
		{"hosts", r.Hosts, checkHostPattern},
		{"methods", r.Methods, checkMethod},
		{"remove_request", r.RemoveRequest, checkToken},
		{"remove_response", r.RemoveResponse, checkToken},
	}
	for _, l := range lists {
		if len(l.list) > RouteListMax {
			return &FieldError{Field: l.field, Reason: "has more than " + strconv.Itoa(RouteListMax) + " entries", Mend: "write fewer"}
		}
		for i, s := range l.list {
			if err := l.check(s); err != nil {
				return within(l.field+"["+strconv.Itoa(i)+"]", err)
			}
		}
	}
	for i, m := range r.Headers {
		if err := checkToken(m.Name); err != nil {
			return within("headers["+strconv.Itoa(i)+"].name", err)
		}
	}
	for i, m := range r.Query {
		if m.Name == "" {
			return &FieldError{Field: "query[" + strconv.Itoa(i) + "].name", Reason: "is missing", Mend: "write the parameter's name"}
		}
	}
	return nil
}

// checkMethod says whether s can be a method. Methods are in upper case and compared as
// they are (RFC 9110 section 9.1): one in lower case is a slip that matches nothing.
func checkMethod(s string) error {
	if err := checkToken(s); err != nil {
		return err
	}
	if upper := strings.ToUpper(s); upper != s {
		return bad("", s, "is in lower case, and would match no request", "write "+upper)
	}
	return nil
}

func (r Route) validatePaths() error {
	for _, p := range [...]struct{ field, path string }{{"path", r.Path}, {"rewrite", r.Rewrite}} {
		if p.path == "" {
			continue
		}
		if p.path[0] != '/' || strings.ContainsAny(p.path, " ?#%\\") || strings.Contains(p.path, "//") || hasDots(p.path) {
			return bad(p.field, p.path, "is no path of whole segments", `begin it with "/"; no query, no "%", no empty, "." or ".." segment`)
		}
		if err := checkText(p.path, PathMax); err != nil {
			return within(p.field, err)
		}
	}
	if r.StripPrefix && r.Rewrite != "" {
		return &FieldError{Field: "strip_prefix", Reason: "stands beside rewrite", Mend: `write one of the two: rewrite "/" strips the prefix`}
	}
	return nil
}

// hasDots reports whether a path has a segment "." or "..".
func hasDots(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// validateChanges checks the fields that are set. What frames a message is the
// proxy's alone to write.
func (r Route) validateChanges() error {
	for _, set := range [...]struct {
		field  string
		fields map[string]string
	}{{"set_request", r.SetRequest}, {"set_response", r.SetResponse}} {
		if len(set.fields) > RouteListMax {
			return &FieldError{Field: set.field, Reason: "has more than " + strconv.Itoa(RouteListMax) + " entries", Mend: "write fewer"}
		}
		for name, value := range set.fields {
			if err := checkToken(name); err != nil {
				return within(set.field, err)
			}
			switch lower(name) {
			case "connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade":
				return bad(set.field, name, "belongs to the proxy", `leave it out; "host" is a field of the route`)
			}
			if err := checkText(value, MetaValueMax); err != nil {
				return within(set.field+"."+name, err)
			}
		}
	}
	if strings.ContainsAny(r.Host, " /@#?") {
		return bad("host", r.Host, "is not a host", "write a name, or a name and a port")
	}
	return checkText(r.Host, TextMax)
}

// validateChoice checks what instances are chosen by.
func (r Route) validateChoice() error {
	if err := checkBy("hash_on", r.HashOn, "client", "cookie:", "header:"); err != nil {
		return err
	}
	if r.Sticky != "" {
		if err := checkToken(r.Sticky); err != nil {
			return within("sticky", err)
		}
	}
	if r.Port != "" && !isLabel(r.Port) {
		return bad("port", r.Port, "is not the name of a port", labelMend)
	}
	if r.Zone != "" {
		if err := checkDomain(r.Zone); err != nil {
			return within("zone", err)
		}
	}
	if r.Tag != "" && !isLabel(r.Tag) {
		return bad("tag", r.Tag, "is not a tag that can be chosen by", labelMend)
	}
	if r.Tag != "" && r.Port != "" {
		return bad("tag", r.Tag, "stands beside port", "choose instances by one of the two")
	}
	return nil
}

func (r Route) validateNumbers() error {
	switch {
	case r.Timeout < 0 || r.Timeout > RouteTimeoutMax:
		return bad("timeout", r.Timeout.String(), "is out of range", "write 0 to 1h")
	case r.TryTimeout < 0 || r.TryTimeout > RouteTimeoutMax:
		return bad("try_timeout", r.TryTimeout.String(), "is out of range", "write 0 to 1h")
	case r.Retries != nil && (*r.Retries < 0 || *r.Retries > RouteRetriesMax):
		return bad("retries", strconv.Itoa(*r.Retries), "is out of range", "write 0 to 7")
	case r.BodyMax < 0 || r.BodyMax > RouteBodyMax:
		return bad("body_max", strconv.FormatInt(r.BodyMax, 10), "is out of range", "write 0 to 1 TiB in bytes")
	case r.Limit == nil:
		return nil
	case !(r.Limit.Rate > 0 && r.Limit.Rate <= RouteRateMax):
		return bad("limit.rate", formatFloat(r.Limit.Rate), "is out of range", "write requests a second, above 0")
	case r.Limit.Burst < 0 || r.Limit.Burst > RouteRateMax:
		return bad("limit.burst", strconv.Itoa(r.Limit.Burst), "is out of range", "write 0 to 1000000")
	}
	return within("limit", checkBy("by", r.Limit.By, "client", "route", "header:"))
}

// checkBy checks a word, or one that names a field or a cookie: those of the
// words that end in a colon.
func checkBy(field, value string, words ...string) error {
	if value == "" {
		return nil
	}
	for _, w := range words {
		if value == w && !strings.HasSuffix(w, ":") {
			return nil
		}
		if name, ok := strings.CutPrefix(value, w); ok && strings.HasSuffix(w, ":") {
			return within(field, checkToken(name))
		}
	}
	return bad(field, value, "is not known", "write one of "+strings.ReplaceAll(joinWords(words), ":", ":NAME"))
}

// checkHostPattern checks "shop.example.com", "*.example.com" or an address.
func checkHostPattern(s string) error {
	if err := checkName(strings.TrimPrefix(s, "*.")); err != nil {
		return bad("", s, "is no host", `write a name, "*." and a name, or an IPv4 address; no port`)
	}
	return nil
}

// checkToken checks the name of a field, a method or a cookie (RFC 9110
// section 5.6.2).
func checkToken(s string) error {
	const mend = "use letters, digits and !#$%&'*+-.^_`|~"
	if s == "" {
		return &FieldError{Reason: "is empty", Mend: mend}
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return bad("", s, "is no token", mend)
		}
	}
	if len(s) > TextMax {
		return bad("", s, "is too long", "use a shorter name")
	}
	return nil
}
