package dnsserver

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver/wire"
)

// slowPool runs deferred queries, each on a goroutine of its own: one that waits
// for an upstream holds none of the others up. Their number is bounded, and
// there is no queue, as a query that waits its turn is soon asked again.
type slowPool struct {
	handler SlowHandler // may be nil
	slots   chan struct{}
	running sync.WaitGroup
	log     *panicLog
	full    atomic.Uint64
	failed  atomic.Uint64
	panics  atomic.Uint64
}

func newSlowPool(h SlowHandler, limit int, log *panicLog) *slowPool {
	return &slowPool{handler: h, slots: make(chan struct{}, limit), log: log}
}

// take reserves a slot. With false the caller answers SERVFAIL.
func (p *slowPool) take() bool {
	if p.handler == nil {
		return false
	}
	select {
	case p.slots <- struct{}{}:
		return true
	default:
		p.full.Add(1)
		return false
	}
}

// start serves a query in the slot taken. It copies query; done, if not nil, is
// called when all is over.
func (p *slowPool) start(ctx context.Context, query []byte, from Client, w Writer, done func()) {
	query = bytes.Clone(query)
	p.running.Go(func() {
		defer func() {
			<-p.slots
			if done != nil {
				done()
			}
		}()
		p.serve(ctx, query, from, w)
	})
}

// serve calls the handler, and answers SERVFAIL when that fails to.
func (p *slowPool) serve(ctx context.Context, query []byte, from Client, w Writer) {
	counted := &countingWriter{Writer: w}
	if p.guarded(ctx, query, from, counted) || counted.written {
		return
	}
	p.failed.Add(1)
	var q wire.Query
	if wire.ParseQuery(query, &q) != wire.Proceed {
		return
	}
	var b wire.Builder
	// The client may have gone; there is nobody else to tell.
	from.Start(&b, make([]byte, wire.MinPayload), &q, wire.MinPayload)
	_ = w.WriteMsg(b.Fail(wire.RCodeServFail))
}

func (p *slowPool) guarded(ctx context.Context, query []byte, from Client, w Writer) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			p.panics.Add(1)
			p.log.log("deferred query", v)
		}
	}()
	return p.handler.ServeSlow(ctx, query, from, w) == nil
}

// countingWriter notes whether anything was written.
type countingWriter struct {
	Writer
	written bool
}

func (w *countingWriter) WriteMsg(msg []byte) error {
	w.written = true
	return w.Writer.WriteMsg(msg)
}
