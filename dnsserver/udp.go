package dnsserver

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

const (
	// yieldBatches is how many batches in a row a worker answers before it lets
	// others run: under a flood it would else hold its core until preempted, 10
	// ms later, while a check or a change waits.
	yieldBatches = 16
	// drainBatches bounds what is answered after the order to stop: all that a
	// receive buffer holds, about 5,400 datagrams.
	drainBatches = 256
)

// udpWorker answers the datagrams of one socket.
type udpWorker struct {
	counters counters
	responder
	socket *socket
	batch  *batch
	warmer Warmer // the handler, if it is one
	n      int    // datagrams received and being answered
	opened int    // how many of them have been read
	next   int    // the first of them not yet answered
	busy   int    // batches in a row

	datagrams [batchSize]datagram
	proceed   [batchSize]*wire.Query // room for Warm's
}

// datagram is what has been read of one.
type datagram struct {
	from  netip.AddrPort // who asks; behind a proxy not who sent it
	d     wire.Disposition
	drop  bool // it lacks a proxy's header
	query wire.Query
}

func newUDPWorker(s *Server, c *socket, local netip.Addr) *udpWorker {
	w := &udpWorker{socket: c, batch: newBatch(local)}
	w.srv, w.handler = s, s.cfg.Handler
	w.warmer, _ = s.cfg.Handler.(Warmer)
	w.client.Transport = UDP
	return w
}

// run answers until the server stops, and then once more what has been received
// by then. ctx is that of deferred queries.
func (w *udpWorker) run(ctx context.Context) error {
	if err := w.socket.raw.Control(w.batch.detect); err != nil {
		return fmt.Errorf("dnsserver: %s: %w", w.socket.addr, err)
	}
	err := w.socket.serve(func(fd uintptr) bool { return w.drain(ctx, fd) })
	if !w.srv.stopping.Load() && err != nil {
		return fmt.Errorf("dnsserver: receiving on %s: %w", w.socket.addr, err)
	}
	w.rest(ctx)
	return nil
}

// rest answers what has been received, without waiting for more.
func (w *udpWorker) rest(ctx context.Context) {
	_ = w.socket.raw.Control(func(fd uintptr) {
		for range drainBatches {
			if !w.answerBatch(ctx, fd) {
				return
			}
		}
	}) // fails only once closed
}

// drain answers what the socket has. It returns true when the server stops, and
// false when the socket is empty.
func (w *udpWorker) drain(ctx context.Context, fd uintptr) bool {
	for !w.srv.stopping.Load() {
		if !w.answerBatch(ctx, fd) {
			w.busy = 0
			return false
		}
		if w.busy++; w.busy == yieldBatches {
			w.busy = 0
			runtime.Gosched()
		}
	}
	return true
}

// answerBatch receives, answers and sends one batch; false when there was none.
func (w *udpWorker) answerBatch(ctx context.Context, fd uintptr) bool {
	n, errno := w.batch.receive(fd)
	if n == 0 {
		if errno == syscall.EINTR {
			return true
		}
		return false // EAGAIN, or an error that the next datagram will end
	}
	w.n, w.opened, w.next, w.parsed = n, 0, 0, false
	w.client.Now = time.Now().UnixNano()
	for w.next < w.n {
		w.answerRest(ctx)
	}
	w.tally.n[batches]++
	w.counters.add(&w.tally) // before sending: who has an answer finds it counted
	w.send(fd)
	return true
}

// answerRest reads the batch from opened on, and answers it from next on. It returns early
// when a handler panics, with that query answered; one recover serves for the batch.
func (w *udpWorker) answerRest(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			w.srv.panics.log("udp", v)
			w.tally.n[panicked]++
			w.push(w.next-1, w.fail(w.batch.buffer()))
		}
	}()
	for w.opened < w.n {
		i := w.opened
		w.opened++
		w.open(i)
		if w.opened == w.n {
			w.warm()
		}
	}
	for w.next < w.n {
		i := w.next
		w.next++
		g := &w.datagrams[i]
		if g.drop {
			continue
		}
		w.client.Addr, w.query = g.from, &g.query
		reply, v := w.answer(g.d, w.batch.buffer())
		if v == Defer {
			reply = w.deferQuery(ctx, i)
		}
		w.push(i, reply)
	}
}

// open reads datagram i.
func (w *udpWorker) open(i int) {
	g := &w.datagrams[i]
	msg, cut := w.batch.message(i)
	g.from, g.d, g.drop = w.batch.source(i), wire.Ignore, false
	if w.srv.proxied(g.from.Addr()) {
		if msg, g.drop = w.unwrap(msg, &g.from); g.drop {
			return
		}
	}
	if g.d = wire.ParseQuery(msg, &g.query); cut && g.d != wire.Ignore {
		g.d = wire.FormErr // it is longer than any query that we take
	}
}

// warm has the handler bring near what it will read for the batch.
func (w *udpWorker) warm() {
	if w.warmer == nil || w.n == 1 {
		return
	}
	queries := w.proceed[:0]
	for i := range w.datagrams[:w.n] {
		if g := &w.datagrams[i]; g.d == wire.Proceed && !g.drop {
			queries = append(queries, &g.query)
		}
	}
	w.warmer.Warm(queries)
}

func (w *udpWorker) push(i int, reply []byte) {
	if reply != nil {
		w.batch.push(i, len(reply))
	}
}

// deferQuery hands datagram i to the slow pool, or returns what to say instead.
func (w *udpWorker) deferQuery(ctx context.Context, i int) []byte {
	if !w.srv.slow.take() {
		return w.fail(w.batch.buffer())
	}
	to := w.batch.source(i) // not the client where a proxy asks for it
	if to.Addr().IsLinkLocalUnicast() && to.Addr().Is6() {
		zone := strconv.FormatUint(uint64(w.batch.scope(i)), 10)
		to = netip.AddrPortFrom(to.Addr().WithZone(zone), to.Port())
	}
	writer := &udpWriter{socket: w.socket, to: to, limit: replyLimit(w.query, UDP)}
	if w.batch.wildcard {
		writer.control = append(writer.control, w.batch.sourceControl(i)...)
	}
	w.counters.add(&w.tally) // it may be answered before the batch is
	w.srv.slow.start(ctx, w.query.Msg, w.client, w.signed(writer), nil)
	return nil
}

// send sends the batch's replies.
func (w *udpWorker) send(fd uintptr) {
	sent, failed, full := w.batch.send(fd, 0)
	// What the link cannot take is better dropped from the receive buffer,
	// unanswered: so it waits.
	for full && waitToSend(fd) {
		var more int
		sent, more, full = w.batch.send(fd, sent)
		failed += more
	}
	if failed += w.batch.unsent(sent); failed > 0 {
		w.counters.n[sendFailed].Add(uint64(failed))
	}
	w.batch.reset()
}

// overflow is how many datagrams the kernel dropped for want of room.
func (w *udpWorker) overflow() uint64 {
	var drops uint64
	if w.socket.raw.Control(func(fd uintptr) { drops = socketDrops(fd) }) != nil {
		return 0 // closed
	}
	return drops
}

// udpWriter answers one deferred query from the socket and the address that it
// came to.
type udpWriter struct {
	socket  *socket
	to      netip.AddrPort
	control []byte
	limit   int
}

var _ Writer = (*udpWriter)(nil)

func (w *udpWriter) Limit() int { return w.limit }

func (w *udpWriter) WriteMsg(msg []byte) error {
	if len(msg) > w.limit {
		return fmt.Errorf("message of %d octets: the client takes %d", len(msg), w.limit)
	}
	return w.socket.sendTo(msg, w.control, w.to)
}
