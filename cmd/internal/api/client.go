package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	// Addr is the server's base URL, or host:port for http.
	Addr string
	// Token is sent as a bearer token; empty: none.
	Token string
	// HTTP does the requests; nil: a client that keeps no proxy settings of
	// the environment, since the server is near.
	HTTP *http.Client
}

// Client asks the admin API. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// responseMax bounds a response's body: 100,000 instances of a kilobyte.
const responseMax = 100 << 20

// requestTimeoutMax bounds one request, the stream of events apart. A large
// list from a busy server is slower than anything else that is asked.
const requestTimeoutMax = 30 * time.Second

// ErrUnreachable is wrapped by errors of requests that no server answered.
var ErrUnreachable = errors.New("no answer from the admin API")

// NewClient returns a Client; it does not connect yet.
func NewClient(cfg ClientConfig) (*Client, error) {
	addr := cfg.Addr
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("bad admin API address %q: write it as http://127.0.0.1:8653", cfg.Addr)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	hc := cfg.HTTP
	if hc == nil {
		hc = &http.Client{Transport: &http.Transport{}}
	}
	return &Client{base: u, token: cfg.Token, http: hc}, nil
}

// Addr is the base URL in use.
func (c *Client) Addr() string { return c.base.String() }

// CloseIdle closes connections kept for later.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Services lists the services of a zone; empty: of all zones.
func (c *Client) Services(ctx context.Context, zone string) (ServiceList, error) {
	return get[ServiceList](ctx, c, PathServices, query(ParamZone, zone))
}

// Service returns one service with its instances.
func (c *Client) Service(ctx context.Context, zone, name string) (Service, error) {
	return get[Service](ctx, c, PathServices+"/"+url.PathEscape(name), query(ParamZone, zone))
}

// Instances lists instances, of one zone or service if given.
func (c *Client) Instances(ctx context.Context, zone, service string) (InstanceList, error) {
	return get[InstanceList](ctx, c, PathInstances, query(ParamZone, zone, ParamService, service))
}

// Explain says what a question would be answered, and why. client may be empty.
func (c *Client) Explain(ctx context.Context, name, typ, client string) (Explanation, error) {
	return get[Explanation](ctx, c, PathExplain, query(ParamName, name, ParamType, typ, ParamClient, client))
}

// Status returns the state of the server.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, PathStatus, nil)
}

// Proxy returns the server's companion proxy.
func (c *Client) Proxy(ctx context.Context) (Proxy, error) {
	return get[Proxy](ctx, c, PathProxy, nil)
}

// ExplainProxy says which way a request to a URL, or a connection to a listener
// or its address, would take. method, client and fields ("Name: value") may be
// empty.
func (c *Client) ExplainProxy(ctx context.Context, target, method, client string, fields []string) (ProxyExplanation, error) {
	q := query(ParamTarget, target, ParamMethod, method, ParamClient, client)
	for _, f := range fields {
		q.Add(ParamHeader, f)
	}
	return get[ProxyExplanation](ctx, c, PathProxyExplain, q)
}

// Doctor returns what the server finds wrong.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	return get[Doctor](ctx, c, PathDoctor, nil)
}

// Demo lists the sample instances of `muster dev`.
func (c *Client) Demo(ctx context.Context) ([]DemoInstance, error) {
	return get[[]DemoInstance](ctx, c, PathDemo, nil)
}

// Register registers an instance.
func (c *Client) Register(ctx context.Context, r RegisterRequest) (Registered, error) {
	return post[Registered](ctx, c, PathRegister, r)
}

// Deregister deletes a registration.
func (c *Client) Deregister(ctx context.Context, r DeregisterRequest) (Written, error) {
	return post[Written](ctx, c, PathDeregister, r)
}

// Heartbeat says that an instance lives.
func (c *Client) Heartbeat(ctx context.Context, r HeartbeatRequest) (Heartbeat, error) {
	return post[Heartbeat](ctx, c, PathHeartbeat, r)
}

// SetAdmin says or withdraws an administrator's word.
func (c *Client) SetAdmin(ctx context.Context, r AdminRequest) (AdminSet, error) {
	return post[AdminSet](ctx, c, PathAdmin, r)
}

// SetWeight changes an instance's weight.
func (c *Client) SetWeight(ctx context.Context, r WeightRequest) (Written, error) {
	return post[Written](ctx, c, PathWeight, r)
}

// SetService changes a service's policy and returns what is then in force.
func (c *Client) SetService(ctx context.Context, r ServiceRequest) (Service, error) {
	return post[Service](ctx, c, PathService, r)
}

// DemoDo acts on a sample instance of `muster dev`.
func (c *Client) DemoDo(ctx context.Context, r DemoRequest) (DemoInstance, error) {
	return post[DemoInstance](ctx, c, PathDemo, r)
}

// Ready returns nil once the server is ready; else what it waits for, as an
// *Error with status 503, or ErrUnreachable.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeoutMax)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, PathReadyz, url.Values{"verbose": {""}}, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	word := make([]byte, len(readyWord))
	if _, err := io.ReadFull(resp.Body, word); err != nil || string(word) != readyWord {
		return c.notAPI(resp)
	}
	return nil
}

// readyWord is what the body of a server that is ready begins with.
const readyWord = "ready\n"

// query makes parameters of pairs, leaving out empty values.
func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, q, nil)
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	b, err := json.Marshal(in)
	if err != nil {
		var none T
		return none, fmt.Errorf("encoding the request to %s: %w", path, err)
	}
	return call[T](ctx, c, http.MethodPost, path, nil, b)
}

func call[T any](ctx context.Context, c *Client, method, path string, q url.Values, in []byte) (T, error) {
	var out T
	ctx, cancel := context.WithTimeout(ctx, requestTimeoutMax)
	defer cancel()
	resp, err := c.send(ctx, method, path, q, in, nil)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if !isOf(resp, "application/json") {
		return out, c.notAPI(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, responseMax)).Decode(&out); err != nil {
		return out, fmt.Errorf("reading the answer of %s%s: %w", c.base, path, err)
	}
	return out, nil
}

// isOf reports whether a response says that its body is of the type.
func isOf(resp *http.Response, mediaType string) bool {
	is, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && is == mediaType
}

// notAPI is the error of a response that no Muster's admin API gives.
func (c *Client) notAPI(resp *http.Response) error {
	got := resp.Header.Get("Content-Type")
	if got == "" {
		got = "no Content-Type"
	}
	if resp.StatusCode >= http.StatusBadRequest {
		got = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode) + ", " + got
	}
	return &Error{
		Status: resp.StatusCode, Message: fmt.Sprintf("%s is not a Muster API (got %s)", c.base, got),
		Mend: "give the address of the server's admin.listen, by default http://127.0.0.1:8653",
	}
}

// send sends a request and returns a response below 400, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, in []byte, header http.Header) (*http.Response, error) {
	// The path is escaped already; parsing it keeps an escaped slash escaped.
	u, err := url.Parse(c.base.String() + path)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", path, err)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", path, err)
	}
	maps.Copy(req.Header, header)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.base, rootOf(err))
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, c.readError(resp)
	}
	return resp, nil
}

// rootOf drops the method and URL that net/http puts before the cause.
func rootOf(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

// errorMax bounds how much of an error's body is read.
const errorMax = 64 << 10

// readError makes the error of a response of 400 or above.
func (c *Client) readError(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, errorMax)) // what came is all there is to show
	var body ErrorBody
	if json.Unmarshal(raw, &body) == nil && body.Error.Message != "" {
		body.Error.Status = resp.StatusCode
		return &body.Error
	}
	text := strings.TrimSpace(string(raw))
	if resp.StatusCode == http.StatusServiceUnavailable && strings.HasPrefix(text, "not "+strings.TrimSpace(readyWord)) {
		return &Error{Status: resp.StatusCode, Message: text} // of /readyz
	}
	return c.notAPI(resp)
}
