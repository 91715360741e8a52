package l7

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/musterdns/muster/lb/l7/http1"
)

// hop is what is known of the client's side of a connection, and what is said
// of it to instances. It is used by one goroutine at a time.
type hop struct {
	addr    netip.AddrPort
	ip      string
	trusted bool // what it says of who is behind it is believed
	secure  bool // TLS
	host    string
	element string // of Forwarded, for host
}

func newHop(l *listener, addr netip.AddrPort) *hop {
	a := addr.Addr().Unmap()
	h := &hop{addr: netip.AddrPortFrom(a, addr.Port()), ip: a.String(), secure: l.cfg.Certificate != nil}
	for _, network := range l.cfg.Trusted {
		h.trusted = h.trusted || network.Contains(a)
	}
	return h
}

func (h *hop) scheme() string {
	if h.secure {
		return "https"
	}
	return "http"
}

// forwarded is the element of the Forwarded field (RFC 7239 section 4) for a
// request to a host.
func (h *hop) forwarded(host string) string {
	if h.element != "" && h.host == host {
		return h.element
	}
	var b strings.Builder
	b.WriteString("for=")
	if h.addr.Addr().Is6() {
		b.WriteString(`"[` + h.ip + `]"`) // RFC 7239 section 6
	} else {
		b.WriteString(h.ip)
	}
	if host != "" {
		b.WriteString(`;host="` + host + `"`) // a host has no quote and no backslash
	}
	b.WriteString(";proto=" + h.scheme())
	h.host, h.element = strings.Clone(host), b.String()
	return h.element
}

// identify finds the client behind proxies that are trusted: the last address
// that they name.
func (x *exchange) identify() {
	x.client = x.hop.addr
	if !x.hop.trusted {
		return
	}
	for i := range slices.Backward(x.req.Fields) {
		f := &x.req.Fields[i]
		if f.Known != http1.XForwardedFor {
			continue
		}
		last := f.Value[strings.LastIndexByte(f.Value, ',')+1:]
		if a, err := netip.ParseAddr(strings.TrimSpace(last)); err == nil {
			x.client = netip.AddrPortFrom(a.Unmap(), 0)
		}
		return
	}
}

// sortedFields are a route's fields, by name.
func sortedFields(set map[string]string) []http1.Field {
	fields := make([]http1.Field, 0, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fields = append(fields, http1.NewField(name, set[name]))
	}
	return fields
}

// has reports whether a field of a name is among fields.
func has(fields []http1.Field, name string) bool {
	_, ok := http1.Find(fields, name)
	return ok
}

// foldedIn reports whether a name is in a list, in any case.
func foldedIn(list []string, name string) bool {
	for _, s := range list {
		if len(s) == len(name) && strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// listed reports whether a Connection field lists a name, which makes it hop by
// hop (RFC 9110 section 7.6.1).
func listed(fields []http1.Field, name string) bool {
	for i := range fields {
		if fields[i].Known == http1.Connection && http1.HasToken(fields[i].Value, name) {
			return true
		}
	}
	return false
}

// connectionLists are the Connection fields of a head that lists others; nil
// when it does not.
func connectionLists(fields []http1.Field, lists bool) (connection []http1.Field) {
	if !lists {
		return nil
	}
	for _, f := range fields {
		if f.Known == http1.Connection {
			connection = append(connection, f)
		}
	}
	return connection
}

// requestFields turns the client's fields into those that are sent to an
// instance, in place: without what is hop by hop or the route removes, with
// what the route sets and what says who the client is. It is called once.
func (x *exchange) requestFields() []http1.Field {
	t, h := x.target, x.hop
	connection := connectionLists(x.req.Fields, x.req.Listed)
	var chain, elements string
	proto, host := h.scheme(), x.req.Host
	kept := x.req.Fields[:0]
	for _, f := range x.req.Fields {
		switch f.Known {
		case http1.Other:
			if x.untold(f.Name) {
				continue
			}
		case http1.Host, http1.Expect:
			continue
		case http1.Trailer:
			for name := range strings.SplitSeq(f.Value, ",") {
				x.payload.announced = append(x.payload.announced, strings.TrimSpace(name))
			}
			continue
		case http1.XForwardedFor:
			chain = join(chain, f.Value)
			continue
		case http1.Forwarded:
			elements = join(elements, f.Value)
			continue
		case http1.XForwardedProto:
			if h.trusted {
				proto = f.Value
			}
			continue
		case http1.XForwardedHost:
			if h.trusted {
				host = f.Value
			}
			continue
		default:
			if f.Known.HopByHop() {
				continue
			}
		}
		if connection != nil && listed(connection, f.Name) || foldedIn(t.route.RemoveRequest, f.Name) || has(t.setRequest, f.Name) {
			continue
		}
		kept = append(kept, f)
	}
	if !h.trusted {
		chain, elements = "", ""
	}
	kept = append(kept,
		http1.Field{Name: "X-Forwarded-For", Value: join(chain, h.ip), Known: http1.XForwardedFor},
		http1.Field{Name: "X-Forwarded-Proto", Value: proto, Known: http1.XForwardedProto})
	if host != "" {
		kept = append(kept, http1.Field{Name: "X-Forwarded-Host", Value: host, Known: http1.XForwardedHost})
	}
	kept = append(kept, http1.Field{Name: "Forwarded", Value: join(elements, h.forwarded(x.req.Host)), Known: http1.Forwarded})
	return append(kept, t.setRequest...)
}

// untold reports whether a field that is no known one is kept from the instance: one that
// says of the client what only those who are trusted may, or has underscores and is, but
// for them, one that the proxy or the route speaks for: where names become variables (CGI,
// WSGI) the two are one.
func (x *exchange) untold(name string) bool {
	hyphened := name
	if strings.IndexByte(name, '_') >= 0 {
		hyphened = strings.ReplaceAll(name, "_", "-")
		if t := x.target; http1.KnownName(hyphened) != http1.Other || foldedIn(t.route.RemoveRequest, hyphened) || has(t.setRequest, hyphened) {
			return true
		}
	}
	return !x.hop.trusted && claims(hyphened)
}

// claims reports whether a field's name is one by which proxies say where a request comes
// from, beside those that this one sets.
func claims(name string) bool {
	const forwarded, realIP = "x-forwarded-", "x-real-ip"
	return len(name) > len(forwarded) && strings.EqualFold(name[:len(forwarded)], forwarded) || strings.EqualFold(name, realIP)
}

func join(list, element string) string {
	if list == "" {
		return element
	}
	return list + ", " + element
}

// host is what the instance is told that it is called.
func (x *exchange) host() string {
	switch {
	case x.target.route.Host != "":
		return x.target.route.Host
	case x.req.Host != "":
		return x.req.Host
	default:
		return x.target.route.Service // an HTTP/1.0 client may say nothing
	}
}

// separate reports whether a body in memory is written apart from its head:
// copying more is dearer than a second call.
func (x *exchange) separate() bool { return len(x.payload.small) > bufferSize }

// hasContent reports whether requests of a method mostly have a body.
func hasContent(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// appendHead makes x.head: the request's head as it is sent to instances over
// HTTP/1.1, and its body if that is small.
func (x *exchange) appendHead() {
	b := append(x.head[:0], x.req.Method...)
	b = append(b, ' ')
	b = append(b, x.path...)
	if x.req.Query != "" {
		b = append(b, '?')
		b = append(b, x.req.Query...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", x.host())
	b = appendFields(b, x.req.Fields)
	switch {
	case x.payload.stream != nil && x.payload.length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case x.payload.stream != nil:
		b = appendLength(b, x.payload.length)
	case len(x.payload.small) > 0 || hasContent(x.req.Method):
		b = appendLength(b, int64(len(x.payload.small))) // RFC 9110 section 8.6: 0 is said too
	}
	if x.req.Upgrade != "" {
		b = append(b, "Connection: Upgrade\r\n"...)
		b = appendField(b, "Upgrade", x.req.Upgrade)
	}
	b = append(b, "\r\n"...)
	if !x.separate() {
		b = append(b, x.payload.small...)
	}
	x.head = b
}

// responseFields turns an instance's fields into those that the client is sent,
// in place: without what is hop by hop or the route removes, with what it sets.
func (x *exchange) responseFields() []http1.Field {
	t := x.target
	connection := connectionLists(x.resp.Fields, x.resp.Listed)
	kept, date := x.resp.Fields[:0], false
	for _, f := range x.resp.Fields {
		if f.Known != http1.Other {
			if f.Known.HopByHop() {
				continue
			}
			date = date || f.Known == http1.Date
		}
		if connection != nil && listed(connection, f.Name) || foldedIn(t.route.RemoveResponse, f.Name) || has(t.setResponse, f.Name) {
			continue
		}
		kept = append(kept, f)
	}
	if x.resp.Status < 200 {
		return kept
	}
	if !date {
		// RFC 9110 section 6.6.1: who has a clock adds it.
		kept = append(kept, http1.Field{Name: "Date", Value: *t.backend.p.date.Load(), Known: http1.Date})
	}
	return append(kept, t.setResponse...)
}
