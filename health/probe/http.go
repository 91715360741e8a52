package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/musterdns/muster/health"
)

const (
	// headerMax and bodyMax bound what is read of a response, in octets. What a
	// body has beyond is left unread and does not matter.
	headerMax = 16 << 10
	bodyMax   = 64 << 10
	// readBuffer holds the whole of a usual response.
	readBuffer = 2 << 10
	// informationalMax is how many 1xx responses may come before the final one.
	informationalMax = 5
)

// loadHeader is where an instance may say how loaded it is: utilisation as a
// decimal number, 1 is full.
const loadHeader = "X-Muster-Load"

// defaultStatus accepts redirects as Route 53, HAProxy and Kubernetes do: the
// instance has answered.
const defaultStatus = "200-399"

// http asks for the path by HTTP/1.1 and passes when the status is one of
// those accepted and the body has come, its first 64 KiB at least.
//
// It does not use http.Transport, which keeps two goroutines a connection,
// follows the environment's proxies and buffers more than is read here.
func (s *Set) http(ctx context.Context, t *health.Target) health.Result {
	what := describeHTTP(t)
	c, hangUp, err := s.dial(ctx, t)
	if err != nil {
		return broken(ctx, t, what, "connection", err)
	}
	defer hangUp()
	if t.Type == health.TypeHTTPS {
		secured := tls.Client(c, s.tlsConfig(t))
		if err := secured.HandshakeContext(ctx); err != nil {
			return broken(ctx, t, what, "TLS handshake", err)
		}
		c = secured
	}
	if _, err := io.WriteString(c, httpRequest(t)); err != nil {
		return broken(ctx, t, what, "response", err)
	}
	return readHTTP(ctx, t, what, c)
}

// readHTTP judges the response.
func readHTTP(ctx context.Context, t *health.Target, what string, c net.Conn) health.Result {
	limited := &io.LimitedReader{R: c, N: headerMax}
	resp, err := readResponse(limited, method(t))
	switch {
	case err != nil && limited.N == 0:
		return failed(what, fmt.Sprintf("response header above %d octets", headerMax))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(what, "connection closed before a response")
	case err != nil:
		return broken(ctx, t, what, "response", err)
	}
	defer func() { _ = resp.Body.Close() }() // reads what little is left; the connection ends anyway
	if ok, _ := acceptsStatus(t.Status, resp.StatusCode); !ok {
		return failed(what, statusText(resp))
	}
	limited.N = bodyMax
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && limited.N > 0 {
		return broken(ctx, t, what+": "+statusText(resp), "end of the body", err)
	}
	r := passed(what, statusText(resp))
	r.Load = parseLoad(resp.Header.Get(loadHeader))
	return r
}

// readResponse reads the final response's header.
func readResponse(from io.Reader, method string) (*http.Response, error) {
	buffered := bufio.NewReaderSize(from, readBuffer)
	for range informationalMax + 1 {
		resp, err := http.ReadResponse(buffered, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= http.StatusOK {
			return resp, err
		}
	}
	return nil, errors.New("more informational responses than a check waits for")
}

// statusText is the status as the server put it, with the usual words if it
// gave none.
func statusText(resp *http.Response) string {
	code := strconv.Itoa(resp.StatusCode)
	if strings.TrimSpace(strings.TrimPrefix(resp.Status, code)) != "" {
		return resp.Status
	}
	return strings.TrimSpace(code + " " + http.StatusText(resp.StatusCode))
}

// parseLoad reads a load header; negative: none that makes sense.
func parseLoad(s string) float64 {
	load, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(load) || math.IsInf(load, 0) || load < 0 {
		return -1
	}
	return load
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
// nothing follows (RFC 9112 section 9.6).
func httpRequest(t *health.Target) string {
	host := t.Host
	if host == "" {
		host = t.Addr.String()
	}
	return method(t) + " " + path(t) + " HTTP/1.1\r\nHost: " + host +
		"\r\nUser-Agent: " + UserAgent + "\r\nAccept: */*\r\nConnection: close\r\n\r\n"
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
		RootCAs:            s.rootCAs,
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
		list = defaultStatus
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
