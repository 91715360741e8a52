package etcd

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// conns counts connections. The etcd client makes them again, and its watches upon
// them, without a word; what is at their other end may be another store by then.
type conns struct {
	begun, ended atomic.Uint64
}

var _ stats.Handler = (*conns)(nil)

// HandleConn counts (stats.Handler). A connection's begin comes before all that it
// brings.
func (c *conns) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.begun.Add(1)
	case *stats.ConnEnd:
		c.ended.Add(1)
	}
}

// TagConn does nothing (stats.Handler).
func (*conns) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC does nothing.
func (*conns) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC does nothing.
func (*conns) HandleRPC(context.Context, stats.RPCStats) {}
