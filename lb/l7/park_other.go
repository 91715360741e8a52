//go:build !linux

package l7

// parks says whether idle connections can be parked. Without epoll each keeps
// its goroutine.
const parks = false

func newPark() (*park, error) { return &park{closed: true}, nil }

func (*park) watch(int) error       { return nil }
func (*park) unwatch(int)           {}
func (*park) wake()                 {}
func (*park) run(func(*clientConn)) {}
func (*park) release()              {}
