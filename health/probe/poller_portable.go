//go:build unix && !linux

package probe

import (
	"context"
	"net"
	"time"
)

// poller tells of no ends on systems other than Linux: the next probe that uses
// the connection finds them.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (*poller) close() error { return nil }

func (*poller) add(*net.TCPConn, uint64, bool) error { return nil }

func (*poller) wait(ctx context.Context, _ func(id uint64, ended bool)) error {
	<-ctx.Done()
	return nil
}

// keepalive bounds how long a silent peer goes unnoticed.
func keepalive(c *net.TCPConn, idle, wait time.Duration) error {
	return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: wholeSeconds(idle), Interval: wholeSeconds(wait), Count: 1})
}
