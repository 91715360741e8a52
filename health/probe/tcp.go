package probe

import (
	"context"
	"net/netip"

	"github.com/musterdns/muster/health"
)

// tcp passes when the connection is made. Nothing is sent or read.
func (s *Set) tcp(ctx context.Context, t *health.Target) health.Result {
	what := "TCP " + t.Addr.String()
	if err := s.connect(ctx, t.Addr); err != nil {
		return broken(ctx, t, what, "connection", err)
	}
	return passed(what, "connected")
}

// connectByDialer makes a connection as the other checks do, and closes it.
func (s *Set) connectByDialer(ctx context.Context, to netip.AddrPort) error {
	c, err := s.dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	_ = c.Close() // nothing was left to be written
	return nil
}
