package l7

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7/http1"
	"github.com/musterdns/muster/lb/l7/route"
)

// handle takes one exchange from its head to the end of its response. The error
// is of the client's side: nothing more can be sent there.
func (p *Proxy) handle(ctx context.Context, x *exchange) error {
	x.identify()
	if x.grpc = isGRPC(x.req.Fields); x.grpc {
		p.counts.grpc.Add(1)
	}
	err := p.route(ctx, x)
	p.done(x)
	return err
}

// isGRPC reports whether a request is one of gRPC.
func isGRPC(fields []http1.Field) bool {
	for i := range fields {
		if fields[i].Known == http1.ContentType {
			v := fields[i].Value
			const want = "application/grpc"
			return len(v) >= len(want) && v[:len(want)] == want && (len(v) == len(want) || v[len(want)] == '+' || v[len(want)] == ';')
		}
	}
	return false
}

// route finds the exchange's route and what the route allows.
func (p *Proxy) route(ctx context.Context, x *exchange) error {
	routing := x.listener.routing.Load()
	i, err := routing.table.Match(&route.Request{
		Method: x.req.Method, Host: x.req.Host, Path: x.req.Path, Query: x.req.Query, Fields: x.req.Fields,
	})
	switch {
	case err != nil:
		return p.refuse(x, &failure{status: 400, why: err.Error()})
	case i < 0:
		return p.refuse(x, &failure{status: 404, why: "no route matches the host, the path and the conditions"})
	}
	t := routing.targets[i]
	x.target = t
	x.path = route.Target(t.route, x.req.Path)
	if t.rate != nil {
		if ok, wait := t.rate.limiter.Take(t.rate.key(x), x.begun); !ok {
			p.counts.limited.Add(1)
			return p.refuseAfter(x, &failure{status: 429, why: "the route's limit of requests is reached"}, wait)
		}
	}
	if f := p.load(x); f != nil {
		return p.refuse(x, f)
	}
	return p.forward(ctx, x)
}

// load holds the body to its route's limit, and reads it if it is small.
func (p *Proxy) load(x *exchange) *failure {
	b := &x.payload
	switch {
	case b.length > x.target.bodyMax:
		return &failure{status: 413, why: "the body is larger than the route allows"}
	case b.stream == nil:
		return nil
	}
	if b.length < 0 {
		b.stream = &bounded{b.stream, x.target.bodyMax}
		return nil
	}
	if b.length > replayMax {
		return nil
	}
	if b.await != nil {
		if err := b.await(); err != nil {
			return &failure{status: statusGone, why: "the client has left"}
		}
		b.await = nil
	}
	small := make([]byte, b.length)
	if _, err := io.ReadFull(b.stream, small); err != nil {
		s := sender{err: err, client: true, done: make(chan struct{})}
		close(s.done)
		return s.failure()
	}
	b.small, b.stream = small, nil
	return nil
}

// choice is what the exchange's instance is chosen by.
func (p *Proxy) choice(x *exchange) dispatch.Request {
	t := x.target
	r := dispatch.Request{Client: x.client.Addr(), ActiveMax: p.cfg.Limits.Active}
	var key string
	var keyed bool
	switch {
	case t.hashField != "":
		key, keyed = http1.Find(x.req.Fields, t.hashField)
	case t.hashCookie != "":
		key, keyed = cookie(x.req.Fields, t.hashCookie)
	}
	if keyed {
		r.Hash = dispatch.HashString(key)
	} else { // or all who have none would go to one instance
		r.Hash = dispatch.HashAddr(x.client.Addr())
	}
	if t.route.Sticky != "" {
		if value, ok := cookie(x.req.Fields, t.route.Sticky); ok {
			x.sticky = p.stickyID(t, value)
		}
		r.Keep = x.sticky
	}
	return r
}

// forward sends the exchange to an instance, and to others until one has
// answered or no more may be tried.
func (p *Proxy) forward(ctx context.Context, x *exchange) error {
	b := x.target.backend
	b.inUse.Add(1)
	defer b.inUse.Add(-1)
	r := p.choice(x)
	c, err := b.d.Choose(r, &x.tried)
	if err != nil {
		return p.refuseChoice(x, err)
	}
	x.req.Fields = x.requestFields()
	begun := x.begun
	for retrying, fresh := false, false; ; {
		x.instance = c.ID()
		a, f := p.ask(ctx, x, c, fresh)
		if f != nil && f.again == againSame && (f.unsent || x.repeatable()) {
			fresh = true // of the connections that were kept, others may be closed too
			p.counts.stale.Add(1)
			continue
		}
		x.tries++
		fresh = false
		now := time.Now()
		latency := now.Sub(begun)
		begun = now
		next, again := dispatch.Choice{}, false
		if x.mayRetry(f) {
			next, again = p.next(x, c, r, f, &retrying)
		}
		if f == nil && !again {
			err := p.deliver(ctx, x, c, a, latency)
			if retrying {
				b.gate.leave()
			}
			return err
		}
		c.Done(dispatch.Outcome{Result: judge(x, f), Latency: latency})
		if f == nil {
			a.finish()
		}
		if !again {
			if retrying {
				b.gate.leave()
			}
			return p.refuse(x, f)
		}
		p.counts.retries.Add(1)
		c = next
	}
}

// mayRetry reports whether another instance may be tried after a failure, or
// after the response in x.resp.
func (x *exchange) mayRetry(f *failure) bool {
	switch {
	case x.tries > x.target.retries:
		return false
	case f == nil:
		return x.target.retryOn.status(x.resp.Status) && x.repeatable()
	case f.again == againAny:
		return !x.payload.begun
	default:
		return f.again != againNever && x.repeatable()
	}
}

// next chooses another instance; false when there is none, or no turn to retry.
func (p *Proxy) next(x *exchange, c dispatch.Choice, r dispatch.Request, f *failure, retrying *bool) (dispatch.Choice, bool) {
	b := x.target.backend
	// A request of which no byte was sent costs instances nothing.
	if !*retrying && (f == nil || f.again != againAny) {
		if !b.gate.enter(b.inUse.Load()) {
			p.counts.exhausted.Add(1)
			return dispatch.Choice{}, false
		}
		*retrying = true
	}
	x.tried.Add(c)
	r.Keep = ""
	next, err := b.d.Choose(r, &x.tried)
	return next, err == nil
}

// judge is what a try says of its instance.
func judge(x *exchange, f *failure) dispatch.Result {
	switch {
	case f != nil:
		return f.result
	case x.resp.Status >= 500 && x.resp.Status != 501 && x.resp.Status != 505:
		return dispatch.Failed
	default:
		return dispatch.OK
	}
}

// speaksHTTP2 reports whether HTTP/2 is to be spoken to an instance.
func (x *exchange) speaksHTTP2(c dispatch.Choice) bool {
	switch {
	case x.grpc || x.target.protocol == protocolHTTP2:
		return true
	case x.target.protocol == protocolALPN:
		return x.req.Upgrade == "" && x.target.backend.peerOf(c).speaksH2.Load()
	default:
		return false
	}
}

// alpn are the protocols that an instance may agree to for an exchange that is
// sent over HTTP/1.1 unless it agrees to HTTP/2. Only HTTP/1.1 has upgrades.
func (x *exchange) alpn() []string {
	if x.target.protocol == protocolALPN && x.req.Upgrade == "" {
		return []string{alpnHTTP2, alpnHTTP1}
	}
	return []string{alpnHTTP1}
}

// keeps reports whether the connection to an instance may be of use to further
// exchanges: not if another would have been made for them.
func (x *exchange) keeps() bool { return x.target.protocol != protocolALPN || x.req.Upgrade == "" }

// ask sends the exchange to an instance.
func (p *Proxy) ask(ctx context.Context, x *exchange, c dispatch.Choice, fresh bool) (answer, *failure) {
	if x.speaksHTTP2(c) {
		return p.askHTTP2(ctx, x, c, fresh)
	}
	return p.askHTTP1(ctx, x, c, fresh)
}

// deliver sends the client the response that an instance has begun.
func (p *Proxy) deliver(ctx context.Context, x *exchange, c dispatch.Choice, a answer, latency time.Duration) error {
	result := judge(x, nil)
	grpcStatus, _ := http1.FindKnown(x.resp.Fields, http1.GRPCStatus)
	if x.grpc && grpcBlames(grpcStatus) {
		result = dispatch.Failed
	}
	if result == dispatch.OK {
		c.Answered()
	}
	if x.resp.Status == 101 {
		err := p.tunnel(ctx, x, c, a)
		c.Done(dispatch.Outcome{Result: result, Latency: latency})
		return err
	}
	fields := x.responseFields()
	if t := x.target; t.route.Sticky != "" && x.sticky != x.instance {
		fields = append(fields, http1.NewField("Set-Cookie", p.stickyCookie(x)))
	}
	x.resp.Fields = fields
	x.reply = reply{status: x.resp.Status, reason: x.resp.Reason, fields: fields, length: -1, body: a}
	switch x.resp.Framing {
	case http1.Length:
		x.reply.length = x.resp.Length
	case http1.NoBody:
		x.reply.length = x.resp.Length
		x.reply.bodyless = x.req.Method == http.MethodHead || x.resp.Status == 204 || x.resp.Status == 304
	case http1.Chunked, http1.ToClose:
	}
	x.status = x.resp.Status
	err := x.to.respond(x, &x.reply)
	if failed := a.failed(); failed != nil {
		x.why = "the instance's response ended early: " + reason(failed)
		result = dispatch.Failed
	}
	if status, ok := http1.FindKnown(a.trailers(), http1.GRPCStatus); ok && x.grpc && grpcBlames(status) {
		result = dispatch.Failed
	}
	a.finish()
	c.AddBytes(int64(len(x.payload.small))+x.received, x.sent)
	c.Done(dispatch.Outcome{Result: result, Latency: latency})
	return err
}

// grpcBlames reports whether a gRPC status says that the instance has failed.
func grpcBlames(status string) bool {
	switch status {
	case "4", "13", "14": // DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE
		return true
	default:
		return false
	}
}

// refuseChoice answers a request for which no instance could be chosen.
func (p *Proxy) refuseChoice(x *exchange, err error) error {
	f := &failure{status: 503, why: err.Error()}
	if errors.Is(err, dispatch.ErrBusy) {
		return p.refuseAfter(x, f, time.Second)
	}
	return p.refuse(x, f)
}

// refuse answers with an error page.
func (p *Proxy) refuse(x *exchange, f *failure) error { return p.refuseAfter(x, f, 0) }

// refuseAfter is refuse, and says when to come again; 0: nothing.
func (p *Proxy) refuseAfter(x *exchange, f *failure, after time.Duration) error {
	x.why, x.status = f.why, f.status
	if f.status == statusGone {
		return errGone
	}
	p.page(x)
	if after > 0 {
		seconds := int(math.Ceil(after.Seconds()))
		x.reply.fields = append(x.reply.fields, http1.NewField("Retry-After", strconv.Itoa(max(seconds, 1))))
	}
	return x.to.respond(x, &x.reply)
}

// errGone ends an exchange whose client has left.
var errGone = errors.New("the client has left")
