package authority

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// upstreamsMax bounds how long a question can go from resolver to resolver.
const upstreamsMax = 8

// forwardTimeout is Forward.Timeout when it is zero: clients ask again after
// five seconds, by then a second resolver has been asked too.
const forwardTimeout = 2 * time.Second

// Forward passes questions outside our zones on to resolvers, so that a machine
// can name this server alone in its resolv.conf. Answers are not kept. Only
// questions with RD set are passed on. How many are under way at once is bounded
// by the server, which calls ServeSlow.
type Forward struct {
	Upstreams []netip.AddrPort // asked in order, the one that answered last first; none: nothing is forwarded
	Timeout   time.Duration    // for each of them; 0: two seconds
	Allow     []netip.Prefix   // whose questions are passed on; none: loopback and private networks
}

// forwarder is a Forward made ready.
type forwarder struct {
	upstreams []netip.AddrPort
	timeout   time.Duration
	allow     []netip.Prefix
	preferred atomic.Uint32 // index of the upstream that answered last
}

func newForwarder(c Forward) (*forwarder, error) {
	if len(c.Upstreams) == 0 {
		return nil, nil
	}
	if len(c.Upstreams) > upstreamsMax {
		return nil, fmt.Errorf("Forward.Upstreams: %d, at most %d", len(c.Upstreams), upstreamsMax)
	}
	for i, u := range c.Upstreams {
		if !u.IsValid() || u.Port() == 0 || u.Addr().IsUnspecified() || u.Addr().IsMulticast() {
			return nil, fmt.Errorf("Forward.Upstreams[%d]: %s is no address and port of a resolver", i, u)
		}
	}
	for i, p := range c.Allow {
		if !p.IsValid() {
			return nil, fmt.Errorf("Forward.Allow[%d]: not a network", i)
		}
	}
	if c.Timeout < 0 {
		return nil, fmt.Errorf("Forward.Timeout: %s is negative", c.Timeout)
	}
	f := &forwarder{upstreams: slices.Clone(c.Upstreams), timeout: c.Timeout, allow: slices.Clone(c.Allow)}
	if f.timeout == 0 {
		f.timeout = forwardTimeout
	}
	if len(f.allow) == 0 {
		f.allow = private()
	}
	return f, nil
}

// mayForward reports whether the client's questions are passed on: what the RA
// flag says.
func (s *scratch) mayForward() bool {
	return s.p.forward != nil && contains(s.p.forward.allow, s.client)
}

// forwards reports whether this question is: one without RD asks for what the
// server itself has (RFC 1034 section 4.3.1).
func (s *scratch) forwards() bool { return s.q.RD && s.mayForward() }

// ServeSlow answers what ServeDNS deferred: a transfer, an answer to sign, or a question to forward. It asks one resolver
// after the other until one has an answer, and answers SERVFAIL when none has.
func (h *Handler) ServeSlow(ctx context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error {
	var q wire.Query
	if d := wire.ParseQuery(query, &q); d != wire.Proceed {
		return fmt.Errorf("a deferred message that is no query: disposition %d", d)
	}
	if q.Type == wire.TypeAXFR || q.Type == wire.TypeIXFR {
		return h.serveTransfer(ctx, &q, from, w)
	}
	if zone := h.tree.Load().Above(&q.Name); zone != nil {
		return h.serveSigning(ctx, &q, from, w)
	}
	f := h.policy.Load().forward
	if f == nil { // a new configuration has come in between
		return h.reply(&q, from, w, OutsideZones, wire.EDENotAuthoritative)
	}
	resp, err := f.ask(ctx, &q, from.Transport != dnsserver.UDP)
	if err != nil {
		code := wire.EDENetworkError
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			code = wire.EDENoReachable
		}
		return h.reply(&q, from, w, ForwardingFailed, code)
	}
	h.shardOfSlow().count(from.Transport, Forwarded)
	adopt(resp, &q)
	if len(resp) > w.Limit() {
		resp = cut(resp, &q, &from, w.Limit())
	}
	if err := w.WriteMsg(resp); err != nil {
		return fmt.Errorf("sending a forwarded answer: %w", err)
	}
	return nil
}

// shardOfSlow is where slow queries are counted: they are few.
func (h *Handler) shardOfSlow() *shard { return &h.shards[0] }

// reply sends a response without records.
func (h *Handler) reply(q *wire.Query, from dnsserver.Client, w dnsserver.Writer, o Outcome, ede uint16) error {
	h.shardOfSlow().count(from.Transport, o)
	var b wire.Builder
	from.Start(&b, make([]byte, wire.MinPayload), q, wire.MinPayload)
	b.SetRCode(o.RCode())
	b.SetRA(o == ForwardingFailed)
	b.EDE(ede, nil)
	if err := w.WriteMsg(b.Finish()); err != nil {
		return fmt.Errorf("sending %s: %w", o.RCode(), err)
	}
	return nil
}

// cut is a resolver's answer without its records, for a client that does not
// take all of it.
func cut(resp []byte, q *wire.Query, from *dnsserver.Client, limit int) []byte {
	var b wire.Builder
	from.Start(&b, make([]byte, wire.MinPayload), q, limit)
	b.SetRCode(rcodeOf(resp))
	b.SetRA(true)
	b.SetTC()
	return b.Finish()
}
