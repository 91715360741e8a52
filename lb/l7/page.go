package l7

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"github.com/musterdns/muster/lb/l7/http1"
)

// requestID returns the exchange's id: the client's, if it may be shown, or one
// that is made.
func (p *Proxy) requestID(x *exchange) string {
	if x.id != "" {
		return x.id
	}
	if id, ok := http1.FindKnown(x.req.Fields, http1.XRequestID); ok && plain(id) {
		x.id = id
		return id
	}
	x.id = strconv.FormatInt(x.begun.UnixMicro(), 36) + "-" + strconv.FormatUint(p.spent.Add(1), 36)
	return x.id
}

// idMax is the size of a client's request id that is taken over.
const idMax = 128

// plain reports whether a client's id is letters, digits and a little more, so
// that it forges nothing where it is shown.
func plain(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.:/+=", c) >= 0) {
			return false
		}
	}
	return id != "" && len(id) <= idMax
}

// page makes x.reply the answer to a request that was not forwarded, or whose
// forwarding failed, from x.status and x.why: which route and service, how many
// were tried and why none has answered. It holds no address and nothing that the
// client has sent but its request id.
func (p *Proxy) page(x *exchange) {
	p.counts.refused.Add(1)
	facts := [][2]string{{"why", x.why}}
	if t := x.target; t != nil {
		facts = append(facts, [2]string{"route", strings.TrimPrefix(t.route.Name, "~")}, [2]string{"service", t.route.Service})
	}
	if x.tries > 0 {
		facts = append(facts, [2]string{"tries", strconv.Itoa(x.tries)})
	}
	facts = append(facts, [2]string{"request", p.requestID(x)})
	if x.grpc {
		p.pageGRPC(x)
		return
	}
	status := strconv.Itoa(x.status) + " " + http.StatusText(x.status)
	var b strings.Builder
	kind := "text/plain; charset=utf-8"
	if wantsHTML(x.req.Fields) {
		kind = "text/html; charset=utf-8"
		fmt.Fprintf(&b, "<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n<dl>\n", status, status)
		for _, f := range facts {
			fmt.Fprintf(&b, "<dt>%s<dd>%s\n", f[0], html.EscapeString(f[1]))
		}
		b.WriteString("</dl>\n")
	} else {
		b.WriteString(status + "\n")
		for _, f := range facts {
			b.WriteString(f[0] + ": " + f[1] + "\n")
		}
	}
	x.reply = reply{
		status: x.status, reason: http.StatusText(x.status), text: []byte(b.String()), length: int64(b.Len()),
		bodyless: x.req.Method == http.MethodHead,
		fields: []http1.Field{
			{Name: "Content-Type", Value: kind, Known: http1.ContentType},
			http1.NewField("Cache-Control", "no-store"),
			http1.NewField("X-Content-Type-Options", "nosniff"),
			http1.NewField("X-Request-Id", x.id),
			{Name: "Date", Value: *p.date.Load(), Known: http1.Date},
		},
	}
}

// wantsHTML reports whether a person reads the answer.
func wantsHTML(fields []http1.Field) bool {
	accept, _ := http1.FindKnown(fields, http1.Accept)
	return strings.Contains(accept, "text/html")
}

// pageGRPC answers as gRPC clients understand it: the status is a field, and
// that of HTTP is 200.
func (p *Proxy) pageGRPC(x *exchange) {
	code := "14" // UNAVAILABLE
	switch x.status {
	case 404, 501:
		code = "12" // UNIMPLEMENTED
	case 429, 413:
		code = "8" // RESOURCE_EXHAUSTED
	case 504, 408:
		code = "4" // DEADLINE_EXCEEDED
	case 400:
		code = "13" // INTERNAL
	}
	message := strings.NewReplacer("%", "%25", "\n", "%0A", "\r", "%0D").Replace(x.why + " (request " + x.id + ")")
	x.reply = reply{status: http.StatusOK, reason: "OK", length: 0, bodyless: true, fields: []http1.Field{
		{Name: "Content-Type", Value: "application/grpc", Known: http1.ContentType},
		{Name: "Grpc-Status", Value: code, Known: http1.GRPCStatus},
		http1.NewField("Grpc-Message", message),
		http1.NewField("X-Request-Id", x.id),
	}}
}
