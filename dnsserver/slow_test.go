package dnsserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// slowFunc is a SlowHandler of one function.
type slowFunc func(ctx context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error

func (f slowFunc) ServeSlow(ctx context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error {
	return f(ctx, query, from, w)
}

// echoSlow answers with the query and QR.
var echoSlow = slowFunc(func(_ context.Context, query []byte, _ dnsserver.Client, w dnsserver.Writer) error {
	query[2] |= 0x80
	return w.WriteMsg(query)
})

// deferAll defers every query but those for A.
var deferAll = handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	if q.Type == wire.TypeA {
		return address(b, q, from)
	}
	return dnsserver.Defer
})

func TestServer_Defer_FailuresAreServfail(t *testing.T) {
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) {
		c.Slow = slowFunc(func(ctx context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error {
			switch {
			case strings.Contains(string(query), "panics"):
				panic("a fault")
			case strings.Contains(string(query), "fails"):
				return errors.New("no upstream")
			case strings.Contains(string(query), "large"):
				if err := w.WriteMsg(make([]byte, w.Limit()+1)); err == nil {
					t.Error("a message above the limit is written")
				}
				query[3] = byte(w.Limit() >> 8) // for the test to see, in the flags
			}
			return echoSlow(ctx, query, from, w)
		})
	})
	for _, network := range []string{"", " +tcp"} {
		dnstest.Want(t, s.Query(t, "fails. TXT +edns"+network), "SERVFAIL qr edns; !aa")
		dnstest.Want(t, s.Query(t, "panics. TXT"+network), "SERVFAIL qr; !aa !edns")
		dnstest.Want(t, s.Query(t, "works. TXT"+network), "NOERROR qr")
	}
	if m := s.Query(t, "large. TXT +bufsize=1000"); m.Rcode != 1000>>8 {
		t.Errorf("the writer's limit is %d00 (hex), want that of the client", m.Rcode)
	}
	if st := s.Server.Stats(); st.SlowFailed != 4 || st.SlowPanics != 2 || st.UDP.Deferred != 4 || st.TCP.Deferred != 3 {
		t.Errorf("stats %+v", st)
	}
}

func TestServer_Defer_WithoutSlowHandlerIsServfail(t *testing.T) {
	s := dnstest.Start(t, deferAll)
	dnstest.Want(t, s.Query(t, "a. TXT"), "SERVFAIL qr; !aa")
	dnstest.Want(t, s.Query(t, "a. TXT +tcp"), "SERVFAIL qr; !aa")
}

// TestServer_Defer_FullPoolIsServfail, and the queries that are not deferred are
// answered all the same, over a connection that waits for a deferred one too:
// out of order (RFC 7766 section 6.2.1.1).
func TestServer_Defer_FullPoolIsServfail(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) {
		c.MaxSlow = 1
		c.Slow = slowFunc(func(ctx context.Context, query []byte, from dnsserver.Client, w dnsserver.Writer) error {
			started <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
			return echoSlow(ctx, query, from, w)
		})
	})
	c := dial(t, s, "tcp")
	txt := query(t, 1)
	txt[len(txt)-3] = byte(wire.TypeTXT)
	send(t, c, frame(txt))
	<-started
	dnstest.Want(t, s.Query(t, "a. TXT"), "SERVFAIL qr")
	dnstest.Want(t, s.Query(t, "a. TXT +tcp"), "SERVFAIL qr")
	dnstest.Want(t, s.Query(t, "a. A"), "NOERROR qr", "answer a. 5 IN A 10.0.0.1")
	send(t, c, frame(query(t, 2)))
	if id := readID(t, c); id != 2 {
		t.Errorf("query %d is answered first, want the one that need not wait", id)
	}
	close(release)
	if id := readID(t, c); id != 1 {
		t.Errorf("then query %d, want the deferred one", id)
	}
	if st := s.Server.Stats(); st.SlowFull != 2 {
		t.Errorf("%d found the pool full, want 2", st.SlowFull)
	}
}

// TestServer_Run_EndsThoughADeferredQueryHangs: its context ends two seconds
// after the order to stop.
func TestServer_Run_EndsThoughADeferredQueryHangs(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	s := dnstest.Start(t, deferAll, func(c *dnsserver.Config) {
		c.Slow = slowFunc(func(ctx context.Context, _ []byte, _ dnsserver.Client, _ dnsserver.Writer) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
	})
	txt := query(t, 1)
	txt[len(txt)-3] = byte(wire.TypeTXT)
	send(t, dial(t, s, "tcp"), frame(txt))
	<-started
	s.Stop(t)
}

// frame puts a message's length before it.
func frame(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}
