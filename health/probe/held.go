package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/musterdns/muster/health"
)

// held passes while a connection to the instance stays open, and is told of its
// end at once. That end alone is no verdict, since a server that was restarted
// or that closes idle connections ends them too; what follows is:
//
//	refused or not made again      failing, by this one check
//	made again                     passing: the instance takes connections
//	ended within FastInterval      failing: it takes them and drops them
//	no answer to TCP keepalives    failing, without trying again
//
// With a path, that is asked for over the connection each interval, and a wrong
// answer or none in time is a failure that needs no second either: a process
// that hangs keeps its connections.
func (s *Set) held(ctx context.Context, t *health.Target) health.Result {
	what := "held " + t.Addr.String()
	l := s.links.take(keyOf(*t))
	again := ""
	if l != nil {
		why := s.links.why(l)
		if why == nil {
			r, ended := s.ping(ctx, t, l, what, "connected")
			if !ended {
				return r
			}
			why = errClosed
		}
		s.links.drop(l)
		if l.young() || errors.Is(why, syscall.ETIMEDOUT) || errors.Is(why, errNoise) {
			return final(failed(what, fmt.Sprintf("%s, %v after it was made", ending(why), time.Since(l.made).Round(time.Millisecond))))
		}
		again = ": " + ending(why)
	}
	c, err := s.dialer.DialContext(ctx, "tcp", t.Addr.String())
	if err != nil {
		return final(broken(ctx, t, what+again, "connection", err))
	}
	l = &link{key: keyOf(*t), conn: c, tcp: c.(*net.TCPConn), made: time.Now(), drain: t.Path == ""}
	if err := keepalive(l.tcp, t.Interval, t.Timeout); err != nil {
		s.links.drop(l)
		return failed(what, err.Error())
	}
	r, _ := s.ping(ctx, t, l, what+again, "connected")
	return r
}

// ping asks over the connection, if there is something to ask, and keeps it.
// ended: it had ended before an answer began, so that it is worth another.
func (s *Set) ping(ctx context.Context, t *health.Target, l *link, what, answer string) (r health.Result, ended bool) {
	r = passed(what, answer)
	if t.Path != "" {
		asked, keep, began := s.exchange(ctx, t, l.conn, what+" "+describeHTTP(t))
		switch {
		case asked.OK && keep:
			r = asked
		case !asked.OK:
			s.links.drop(l)
			return final(asked), !began && !expired(ctx)
		default:
			s.links.drop(l)
			return final(failed(what, "the server closes the connection after a response: it cannot be held")), false
		}
	}
	if !s.links.put(l) {
		r.Output = line(what + ": " + answer + ", not held: too many are, or nobody watches")
	}
	return r, false
}

// final makes a failure a verdict.
func final(r health.Result) health.Result {
	r.Final = true
	return r
}

// ending says how a connection has ended.
func ending(why error) string {
	switch {
	case errors.Is(why, syscall.ETIMEDOUT):
		return "no answer to TCP keepalives"
	case errors.Is(why, syscall.ECONNRESET), errors.Is(why, syscall.EPIPE):
		return "reset by the instance"
	default:
		return why.Error()
	}
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) time.Duration {
	return max((d + time.Second - 1).Truncate(time.Second), time.Second)
}
