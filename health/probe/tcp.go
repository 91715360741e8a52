package probe

import (
	"context"

	"github.com/musterdns/muster/health"
)

// tcp passes when the connection is made. Nothing is sent or read.
func (s *Set) tcp(ctx context.Context, t *health.Target) health.Result {
	what := "TCP " + t.Addr.String()
	_, hangUp, err := s.dial(ctx, t)
	if err != nil {
		return broken(ctx, t, what, "connection", err)
	}
	hangUp()
	return passed(what, "connected")
}
