package doq_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doq"
)

// perConn is how many streams a connection may have at once.
const perConn = 128

// stall opens as many streams as the server lets it, with one octet on each.
func stall(t *testing.T, e *dnstest.Everywhere) (*quic.Conn, []*quic.Stream) {
	t.Helper()
	c, err := e.DialQUIC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	var streams []*quic.Stream
	for {
		st, err := c.OpenStream()
		if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
			return c, streams
		}
		if err == nil {
			_, err = st.Write([]byte{0})
		}
		if err != nil {
			t.Fatalf("stream %d: %v", len(streams), err)
		}
		if streams = append(streams, st); len(streams) > perConn {
			t.Fatalf("%d streams are open on one connection", len(streams))
		}
	}
}

// TestServer_StalledStreamsPinNothing: in CVE-2026-32934 streams with one octet held
// every worker for ever. Here they are reset when their time is over, and until then
// other clients are answered.
func TestServer_StalledStreamsPinNothing(t *testing.T) {
	e := dnstest.StartEverywhere(t, handler{}, nil)
	c, streams := stall(t, e)
	if reply, err := e.Carrier("quic").Exchange(t.Context(), framed(t, 0)[2:]); err != nil || reply == nil {
		t.Errorf("meanwhile another client gets %x, %v", reply, err)
	}
	for i, st := range streams {
		if err := st.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var reset *quic.StreamError
		if _, err := st.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote {
			t.Fatalf("stream %d, which never has its query: %v, want it reset", i, err)
		}
	}
	if _, err := ask(t, c, framed(t, 0), true); err != nil {
		t.Errorf("then the client itself has room again: %v", err)
	}
}

// TestServer_BoundsStreams: a goroutine for each stream, without a bound, was
// CVE-2025-47950. They are bounded by connection and together.
func TestServer_BoundsStreams(t *testing.T) {
	const together = 200
	e := dnstest.StartEverywhere(t, handler{}, func(c *doq.Config) { c.MaxStreams = together })
	before := runtime.NumGoroutine()
	conns := 4
	opened := 0
	for range conns {
		_, streams := stall(t, e)
		opened += len(streams)
	}
	began := time.Now()
	for want := uint64(opened - together); e.DoQ.Refused() < want; {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%d streams refused of %d, want %d", e.DoQ.Refused(), opened, want)
		}
		runtime.Gosched()
	}
	// A connection has some goroutines at either end.
	if n := runtime.NumGoroutine() - before; n > together+conns*20 {
		t.Errorf("%d goroutines for %d streams of which %d are at work", n, opened, together)
	}
	if reply, err := e.Carrier("udp").Exchange(t.Context(), framed(t, 0)[2:]); err != nil || reply == nil {
		t.Errorf("other transports: %x, %v", reply, err)
	}
}
