package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/health"
)

// defaultFrom and defaultTo: redirects are accepted as Route 53, HAProxy and
// Kubernetes do, since the instance has answered.
const (
	defaultFrom = 200
	defaultTo   = 399
)

// http asks for the path by HTTP/1.1 and passes when the status is one of
// those accepted and the body has come, its first 64 KiB at least.
//
// It does not use http.Transport, which keeps two goroutines a connection,
// follows the environment's proxies and buffers more than is read here.
//
// With Keep the connection stays for the next check. One that turns out to have
// ended since is replaced within the check (RFC 9110 section 9.2.2: GET and HEAD
// may be repeated).
func (s *Set) http(ctx context.Context, t *health.Target) health.Result {
	what, again := describeHTTP(t), false
	if t.Keep {
		if l := s.links.take(keyOf(*t)); l != nil {
			if s.links.why(l) == nil {
				r, keep, began := s.exchange(ctx, t, l.conn, what)
				if keep && s.links.put(l) {
					return r
				}
				if r.OK || began || expired(ctx) {
					s.links.drop(l)
					return r
				}
			}
			again = s.links.drop(l)
		}
	}
	c, err := s.dialer.DialContext(ctx, "tcp", t.Addr.String())
	if err != nil {
		return broken(ctx, t, what, "connection", err)
	}
	tcp := c.(*net.TCPConn)
	if t.Type == health.TypeHTTPS {
		secured := tls.Client(c, s.tlsConfig(t))
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = tcp.Close()
			return broken(ctx, t, what, "TLS handshake", err)
		}
		c = secured
	}
	r, keep, _ := s.exchange(ctx, t, c, what)
	if keep && t.Keep && keepalive(tcp, t.Interval, t.Timeout) == nil {
		s.links.put(&link{key: keyOf(*t), conn: c, tcp: tcp, made: time.Now(), again: again}) // which closes what it does not keep
		return r
	}
	_ = tcp.Close() // nothing was left to be written
	return r
}

// exchange sends the request and judges the response. keep: the connection can
// be used again. began: something of a response has come.
func (s *Set) exchange(ctx context.Context, t *health.Target, c net.Conn, what string) (r health.Result, keep, began bool) {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return broken(ctx, t, what, "response", err), false, false
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(longPast()) }) // fails only on a closed connection
	b := s.readers.get(c)
	defer s.readers.put(b)
	if _, err := io.WriteString(c, httpRequest(t)); err != nil {
		r = broken(ctx, t, what, "response", err)
	} else {
		r, keep = s.judge(ctx, t, b, what)
	}
	return r, stop() && keep, b.began // not kept where the deadline may yet be set
}

// expired reports whether the check's time is up, be it that nobody has told
// the context yet.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// judge reads the response and judges it.
func (s *Set) judge(ctx context.Context, t *health.Target, b *reader, what string) (r health.Result, keep bool) {
	resp, err := b.header(method(t))
	switch {
	case errors.Is(err, io.EOF):
		return failed(what, "connection closed before a response"), false
	case err != nil:
		return broken(ctx, t, what, "response", err), false
	}
	if ok, _ := acceptsStatus(t.Status, resp.code); !ok {
		return failed(what, resp.status), false
	}
	whole, err := b.body(&resp)
	if err != nil {
		return broken(ctx, t, what+": "+resp.status, "end of the body", err), false
	}
	r = passed(what, resp.status)
	r.Load = resp.load
	return r, whole && resp.keep && b.start == b.end
}

func method(t *health.Target) string {
	if t.Method == "" {
		return http.MethodGet
	}
	return t.Method
}

func path(t *health.Target) string {
	if t.Path == "" {
		return "/"
	}
	return t.Path
}

// describeHTTP is the request in few words: "GET http://10.0.0.1:8080/healthz".
func describeHTTP(t *health.Target) string {
	return method(t) + " " + t.Type.String() + "://" + t.Addr.String() + path(t)
}

// httpRequest is the request as sent. Connection: close tells the server that
// nothing follows (RFC 9112 section 9.6), unless the connection is kept.
func httpRequest(t *health.Target) string {
	host := t.Host
	if host == "" {
		host = t.Addr.String()
	}
	end := "\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if t.Keep || t.Type == health.TypeHeld {
		end = "\r\nAccept: */*\r\n\r\n"
	}
	return method(t) + " " + path(t) + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: " + UserAgent + end
}

// tlsConfig names the server by the target's Host, or by its address. Only
// HTTP/1.1 is offered.
func (s *Set) tlsConfig(t *health.Target) *tls.Config {
	name := t.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if name == "" {
		name = t.Addr.Addr().Unmap().WithZone("").String()
	}
	return &tls.Config{
		ServerName:         name,
		RootCAs:            s.cfg.RootCAs,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: t.Insecure, //nolint:gosec // the check's own choice
	}
}

func validateHTTP(t *health.Target) error {
	switch {
	case t.Method != "" && t.Method != http.MethodGet && t.Method != http.MethodHead:
		return fmt.Errorf("%v check: method %q: must be GET or HEAD", t.Type, t.Method)
	case t.Path != "" && t.Path[0] != '/' || !isToken(t.Path):
		return fmt.Errorf("%v check: path %q: must begin with / and be ASCII without spaces (escape them as %%20)", t.Type, t.Path)
	case !isToken(t.Host):
		return fmt.Errorf("%v check: host %q: must be a host name", t.Type, t.Host)
	}
	if _, err := acceptsStatus(t.Status, 0); err != nil {
		return fmt.Errorf("%v check: %w", t.Type, err)
	}
	return nil
}

// acceptsStatus reports whether a list of codes and ranges of codes has code.
func acceptsStatus(list string, code int) (ok bool, err error) {
	if list == "" {
		return defaultFrom <= code && code <= defaultTo, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, to := statusCode(low), statusCode(high)
		if from == 0 || to < from {
			return false, fmt.Errorf("status %q: %q: must be codes and ranges of 200 to 599, like %q", list, part, "200-299,404")
		}
		ok = ok || from <= code && code <= to
	}
	return ok, nil
}

// statusCode reads a final status code; zero is none.
func statusCode(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 200 || n > 599 {
		return 0
	}
	return n
}
