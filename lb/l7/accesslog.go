package l7

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// accessQueue is how many lines may wait to be written. A log that is slower
// than the requests loses lines, which are counted, and never holds one up.
const accessQueue = 4096

// accessText is the size of a client's text that a line repeats.
const accessText = 512

// accessLog writes one line a request.
type accessLog struct {
	log     *slog.Logger
	lines   chan line
	dropped atomic.Uint64
}

// line is what is logged of a request: copies, since the exchange goes on.
type line struct {
	method, host, target, version string
	client                        netip.Addr
	listener, route, service      string
	instance, id, why             string
	status, tries                 int
	sent, received                int64
	begun                         time.Time
	took                          time.Duration
}

func newAccessLog(log *slog.Logger) *accessLog {
	return &accessLog{log: log, lines: make(chan line, accessQueue)}
}

func short(s string) string { return strings.Clone(s[:min(len(s), accessText)]) }

// note queues the line of an exchange that is over.
func (a *accessLog) note(p *Proxy, x *exchange) {
	if len(a.lines) == cap(a.lines) {
		a.dropped.Add(1)
		return
	}
	l := line{
		method: short(x.req.Method), host: short(x.req.Host), target: short(x.req.Target), version: x.version,
		client: x.client.Addr(), listener: x.listener.cfg.Name, instance: x.instance, id: p.requestID(x), why: x.why,
		status: x.status, tries: x.tries, sent: x.sent, received: int64(len(x.payload.small)) + x.received,
		begun: x.begun, took: time.Since(x.begun),
	}
	if x.target != nil {
		l.route, l.service = x.target.route.Name, x.target.route.Service
	}
	select {
	case a.lines <- l:
	default:
		a.dropped.Add(1)
	}
}

// run writes lines until ended, and those that are queued then.
func (a *accessLog) run(ended <-chan struct{}) {
	for {
		select {
		case l := <-a.lines:
			a.write(&l)
		case <-ended:
			for {
				select {
				case l := <-a.lines:
					a.write(&l)
				default:
					return
				}
			}
		}
	}
}

func (a *accessLog) write(l *line) {
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "request",
		slog.String("client", l.client.String()), slog.String("method", l.method), slog.String("host", l.host),
		slog.String("target", l.target), slog.String("version", l.version), slog.Int("status", l.status),
		slog.Int64("sent", l.sent), slog.Int64("received", l.received), slog.Duration("took", l.took),
		slog.String("listener", l.listener), slog.String("route", l.route), slog.String("service", l.service),
		slog.String("instance", l.instance), slog.Int("tries", l.tries), slog.String("request", l.id), slog.String("why", l.why))
}
