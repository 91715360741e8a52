//go:build linux

package l4

import "sync/atomic"

// Stats are figures of a Proxy: what is now, and counts since the start. A flow
// of UDP is a connection here.
type Stats struct {
	Active int64 // connections now

	Accepted     uint64
	Connected    uint64 // to an instance
	Retried      uint64 // attempts with another instance
	RefusedMax   uint64 // Config.ConnsMax
	RefusedOne   uint64 // Config.ConnsPerClient
	Unserved     uint64 // no instance could be had: none in, all busy, all tried
	Unrouted     uint64 // names without a route
	BadHello     uint64 // no PROXY header or ClientHello where one must be, or a malformed one
	HelloTimeout uint64
	Idle         uint64 // ended by IdleTimeout
	HalfClosed   uint64 // ended by HalfCloseTimeout
	Down         uint64 // reset, or (UDP) moved, as their instance failed its checks
	Drained      uint64 // ended by DrainTimeout
	Stopped      uint64 // ended by StopTimeout
	Unreachable  uint64 // attempts that failed
	ConnectLate  uint64 // attempts that timed out
	AcceptFailed uint64 // for want of descriptors or memory: accepting paused
	LocalFailed  uint64 // no socket, port or pipe was to be had for the instance's side
	BytesIn      uint64 // from clients
	BytesOut     uint64 // to clients
	Datagrams    uint64 // from clients
	Replies      uint64 // datagrams to clients
	Dropped      uint64 // datagrams that could not be passed on
}

// counts are a loop's part of Stats: written by the loop, read by anyone.
type counts struct {
	accepted, connected, retried, refusedMax, refusedOne, unserved, unrouted, badHello, helloTimeout,
	idle, halfClosed, down, drained, stopped, unreachable, connectLate, acceptFailed, localFailed,
	bytesIn, bytesOut, datagrams, replies, dropped atomic.Uint64
}

// addTo adds the counts up.
func (c *counts) addTo(s *Stats) {
	for _, p := range []struct {
		to   *uint64
		from *atomic.Uint64
	}{
		{&s.Accepted, &c.accepted},
		{&s.Connected, &c.connected},
		{&s.Retried, &c.retried},
		{&s.RefusedMax, &c.refusedMax},
		{&s.RefusedOne, &c.refusedOne},
		{&s.Unserved, &c.unserved},
		{&s.Unrouted, &c.unrouted},
		{&s.BadHello, &c.badHello},
		{&s.HelloTimeout, &c.helloTimeout},
		{&s.Idle, &c.idle},
		{&s.HalfClosed, &c.halfClosed},
		{&s.Down, &c.down},
		{&s.Drained, &c.drained},
		{&s.Stopped, &c.stopped},
		{&s.Unreachable, &c.unreachable},
		{&s.ConnectLate, &c.connectLate},
		{&s.AcceptFailed, &c.acceptFailed},
		{&s.LocalFailed, &c.localFailed},
		{&s.BytesIn, &c.bytesIn},
		{&s.BytesOut, &c.bytesOut},
		{&s.Datagrams, &c.datagrams},
		{&s.Replies, &c.replies},
		{&s.Dropped, &c.dropped},
	} {
		*p.to += p.from.Load()
	}
}
