//go:build unix && !linux

package probe

import (
	"context"
	"net/netip"
)

// connect makes a TCP connection and closes it.
func (s *Set) connect(ctx context.Context, to netip.AddrPort) error {
	return s.connectByDialer(ctx, to)
}
