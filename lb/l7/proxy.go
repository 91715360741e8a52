package l7

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
	"github.com/musterdns/muster/lb/l7/limit"
	"github.com/musterdns/muster/lb/l7/route"
	"github.com/musterdns/muster/registry"
)

// Proxy is the HTTP proxy. It is safe for concurrent use.
type Proxy struct {
	cfg       Config
	dialer    net.Dialer
	buffers   bufferPool
	scratches scratches
	listeners []*listener
	access    *accessLog // nil: none
	counts    counters
	date      atomic.Pointer[string] // of the present second, as in a Date field
	stopping  atomic.Bool            // connections are not kept any more
	spent     atomic.Uint64          // of request ids
	panicked  atomic.Int64           // when one was last logged, ns since 1970

	mu       sync.Mutex // guards the making of tables
	backends map[backendKey]*backend
	rates    map[rateKey]*rateLimit
}

// routing is the routes of one listener, compiled. It is immutable.
type routing struct {
	table   *route.Table
	targets []*target // by the route's index
}

// target is one route, ready to be used. It is immutable.
type target struct {
	route   *registry.Route
	backend *backend
	rate    *rateLimit // nil: none

	setRequest, setResponse []http1.Field
	retries                 int
	retryOn                 retryOn
	timeout, tryTimeout     time.Duration
	bodyMax                 int64
	hashField, hashCookie   string // empty: the client's address
	protocol                protocol
}

// protocol is what is spoken to a route's instances, but for gRPC, which is
// always HTTP/2.
type protocol uint8

const (
	protocolHTTP1 protocol = iota
	protocolHTTP2
	protocolALPN // what an instance agrees to, HTTP/2 if it does
)

// retryOn says after what a request is sent again.
type retryOn uint8

const (
	retryError   retryOn = iota // no response
	retryGateway                // and 502, 503, 504
	retry5xx                    // and 500
)

// status reports whether a response with a status is to be tried again.
func (r retryOn) status(status int) bool {
	switch status {
	case 500:
		return r >= retry5xx
	case 502, 503, 504:
		return r >= retryGateway
	default:
		return false
	}
}

// rateKey names a limit that keeps its buckets while its route keeps it.
type rateKey struct {
	route string
	limit registry.RouteLimit
}

// rateLimit is a route's limit.
type rateLimit struct {
	limiter *limit.Limiter
	field   string // by which field's value; empty: see client
	client  bool   // by the client's address; else all together
}

// RouteError says why a route cannot be used.
type RouteError struct {
	Route string // its name
	Err   error
}

// Error names the route.
func (e *RouteError) Error() string { return fmt.Sprintf("route %q: %v", e.Route, e.Err) }

// Unwrap is the reason alone.
func (e *RouteError) Unwrap() error { return e.Err }

// SetRoutes puts routes in force, in place of those before: the next request
// takes them, those under way and their streams go on as they are. Routes that
// cannot be used (an unknown zone, a name that stands twice) are left out, with a
// RouteError each among what is returned; the others are in force all the same.
// The routes are not kept.
func (p *Proxy) SetRoutes(routes []registry.Route) (problems []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	usedBackends, usedRates := map[backendKey]bool{}, map[rateKey]bool{}
	good := make([]*target, 0, len(routes))
	seen := map[string]bool{}
	for _, r := range routes {
		t, err := p.compile(r.Clone())
		if err == nil && seen[r.Name] {
			err = errors.New("the name stands twice")
		}
		if err != nil {
			problems = append(problems, &RouteError{Route: r.Name, Err: err})
			continue
		}
		seen[r.Name] = true
		good = append(good, t)
	}
	for _, l := range p.listeners {
		var list []*target
		for _, t := range good {
			if len(t.route.Listeners) == 0 || slices.Contains(t.route.Listeners, l.cfg.Name) {
				list = append(list, t)
			}
		}
		if l.cfg.Service != "" {
			// "~" is after every name that a route can have.
			t, err := p.compile(registry.Route{Name: "~" + l.cfg.Name, Service: strings.ToLower(l.cfg.Service)})
			if err != nil {
				problems = append(problems, fmt.Errorf("listener %q: %w", l.cfg.Name, err))
			} else {
				list = append(list, t)
			}
		}
		bare := make([]registry.Route, len(list))
		for i, t := range list {
			bare[i] = *t.route
			usedBackends[t.backend.backendKey] = true
			if t.rate != nil {
				usedRates[rateKey{t.route.Name, *t.route.Limit}] = true
			}
		}
		l.routing.Store(&routing{table: route.New(bare), targets: list})
	}
	p.forget(usedBackends, usedRates)
	return problems
}

// SetInstanceTLS puts other ways of speaking to instances in the place of
// Config.InstanceTLS, for the routes that are set from then on.
func (p *Proxy) SetInstanceTLS(ways map[string]*InstanceTLS) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.InstanceTLS = ways
}

// forget gives up what no route uses any more.
func (p *Proxy) forget(usedBackends map[backendKey]bool, usedRates map[rateKey]bool) {
	for key, b := range p.backends {
		if !usedBackends[key] {
			delete(p.backends, key)
			b.close()
		}
	}
	for key := range p.rates {
		if !usedRates[key] {
			delete(p.rates, key)
		}
	}
}

// compile makes a target of a route.
func (p *Proxy) compile(r registry.Route) (*target, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	source := p.cfg.Source
	if r.Zone != "" {
		var ok bool
		if source, ok = p.cfg.Zones[r.Zone]; !ok {
			return nil, fmt.Errorf("zone %q is none of this server's", r.Zone)
		}
	}
	key := backendKey{ref: dispatch.Ref{Source: source, Service: r.Service, Port: r.Port, Tag: r.Tag}}
	if r.TLS != "" {
		if key.tls = p.cfg.InstanceTLS[r.TLS]; key.tls == nil {
			return nil, fmt.Errorf("tls %q is not among proxy.instance_tls of this server's configuration", r.TLS)
		}
		key.protocol = protocolOf(&r)
	}
	b, err := p.backend(key)
	if err != nil {
		return nil, err
	}
	lim := &p.cfg.Limits
	t := &target{
		route: &r, backend: b, retries: max(lim.Retries, 0), retryOn: retry5xx,
		timeout: lim.Response, tryTimeout: r.TryTimeout, bodyMax: lim.BodyBytes, protocol: protocolOf(&r),
	}
	if r.Retries != nil {
		t.retries = *r.Retries
	}
	switch r.RetryOn {
	case "error":
		t.retryOn = retryError
	case "gateway":
		t.retryOn = retryGateway
	}
	if r.Timeout > 0 {
		t.timeout = r.Timeout
	}
	if r.BodyMax > 0 {
		t.bodyMax = r.BodyMax
	}
	t.hashField, _ = strings.CutPrefix(r.HashOn, "header:")
	if t.hashField == r.HashOn {
		t.hashField = ""
		if name, ok := strings.CutPrefix(r.HashOn, "cookie:"); ok {
			t.hashCookie = name
		}
	}
	t.setRequest, t.setResponse = sortedFields(r.SetRequest), sortedFields(r.SetResponse)
	t.rate = p.rate(&r)
	return t, nil
}

// protocolOf is what a route says is spoken to its instances.
func protocolOf(r *registry.Route) protocol {
	switch {
	case r.Protocol == "h2c" || r.Protocol == "h2":
		return protocolHTTP2
	case r.Protocol == "" && r.TLS != "":
		return protocolALPN
	default:
		return protocolHTTP1
	}
}

// rate returns a route's limit, the one that it has already if it has not
// changed: a change of another route gives nobody a full bucket.
func (p *Proxy) rate(r *registry.Route) *rateLimit {
	if r.Limit == nil {
		return nil
	}
	key := rateKey{r.Name, *r.Limit}
	l := p.rates[key]
	if l == nil {
		l = &rateLimit{limiter: limit.New(r.Limit.Rate, r.Limit.Burst, &p.counts.forgotten), client: r.Limit.By == "" || r.Limit.By == "client"}
		if name, ok := strings.CutPrefix(r.Limit.By, "header:"); ok {
			l.field = name
		}
		p.rates[key] = l
	}
	return l
}

// key is what a request is counted under.
func (l *rateLimit) key(x *exchange) string {
	switch {
	case l.field != "":
		value, _ := http1.Find(x.req.Fields, l.field)
		return value
	case l.client:
		return addrKey(x.client.Addr())
	default:
		return ""
	}
}

// addrKey is a client's address as a key: of IPv6 the network of 64 bits, any
// of whose addresses one client may use.
func addrKey(a netip.Addr) string {
	b := a.Unmap().As16()
	if a.Unmap().Is4() {
		return string(b[12:])
	}
	return string(b[:8])
}

// now notes the time for Date fields.
func (p *Proxy) now(t time.Time) {
	s := t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	p.date.Store(&s)
}

// Listen binds every listener's address, or none. What comes is accepted once
// Run runs.
func (p *Proxy) Listen(ctx context.Context) error {
	for i, l := range p.listeners {
		if err := l.listen(ctx); err != nil {
			for _, bound := range p.listeners[:i] {
				bound.unbind()
			}
			return fmt.Errorf("listener %q: %w", l.cfg.Name, err)
		}
	}
	return nil
}

// Close gives up a Proxy whose Run was not called. Run does it itself.
func (p *Proxy) Close() {
	for _, l := range p.listeners {
		if l.l != nil {
			l.unbind()
		}
	}
	p.release()
}

// Addr is where a listener listens; nil when there is none of that name or
// Listen was not called.
func (p *Proxy) Addr(name string) net.Addr {
	for _, l := range p.listeners {
		if l.cfg.Name == name && l.l != nil {
			return l.l.Addr()
		}
	}
	return nil
}

// Sockets returns the listening sockets, to be handed over, by the names that
// Config.Inherited is asked for. They stay the Proxy's.
func (p *Proxy) Sockets() map[string]syscall.Conn {
	sockets := map[string]syscall.Conn{}
	for _, l := range p.listeners {
		if l.l != nil {
			sockets[l.socketName()] = l.l
		}
	}
	return sockets
}

// sweep is how often what has been idle for too long is looked for.
const sweep = time.Second

// Leave asks clients to go elsewhere before Run's ctx ends: answers close their
// connections (HTTP/2: GOAWAY). New ones are taken as before.
func (p *Proxy) Leave() { p.stopping.Store(true) }

// Run serves until ctx ends. Then it accepts nothing more, tells clients to go
// elsewhere (Connection: close, GOAWAY), waits for what is in flight at most
// Limits.Drain, cuts what is left, and returns nil when all its goroutines have
// ended. It is called once, after Listen.
func (p *Proxy) Run(ctx context.Context) error {
	// What is in flight goes on after ctx has ended, but for Limits.Drain.
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running, logging sync.WaitGroup
	logged := make(chan struct{})
	if p.access != nil {
		logging.Go(func() { p.access.run(logged) })
	}
	for _, l := range p.listeners {
		running.Go(func() { l.serve(work) })
	}
	ticker := time.NewTicker(sweep)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-ticker.C:
			p.tick(now)
		}
	}
	p.stopping.Store(true)
	for _, l := range p.listeners {
		l.drain()
	}
	p.await(&running, ticker)
	cut()
	for _, l := range p.listeners {
		l.cut()
	}
	running.Wait()
	p.release()
	close(logged)
	logging.Wait()
	return nil
}

// await waits for the goroutines, at most Limits.Drain.
func (p *Proxy) await(running *sync.WaitGroup, ticker *time.Ticker) {
	ended := make(chan struct{})
	go func() { // ends with running, for which Run waits
		running.Wait()
		close(ended)
	}()
	limit := time.NewTimer(p.cfg.Limits.Drain)
	defer limit.Stop()
	idle := time.NewTimer(stopLinger)
	defer idle.Stop()
	for {
		select {
		case <-ended:
			return
		case <-idle.C:
			for _, l := range p.listeners {
				l.park.close()
			}
		case <-limit.C:
			p.cfg.Log.Warn("requests in flight are cut: the time to drain is over", "connections", p.Stats().Connections)
			return
		case now := <-ticker.C:
			p.tick(now)
		}
	}
}

// tick closes what was idle for too long.
func (p *Proxy) tick(now time.Time) {
	p.now(now)
	for _, b := range p.all() {
		b.sweep(now, now.Add(-p.cfg.Limits.PoolIdle))
	}
	for _, l := range p.listeners {
		l.park.expire(now.Add(-p.cfg.Limits.Idle), false)
	}
}

// all lists the backends.
func (p *Proxy) all() []*backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.backends))
}

// release gives up every backend.
func (p *Proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(nil, nil)
}
