package etcd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync/atomic"

	"google.golang.org/grpc"
)

// cause is why the last request found no connection; nil: it found one, or none was
// made. The etcd client says "context deadline exceeded" whether the port is closed,
// a certificate is not trusted, or what listens there is no etcd.
type cause struct{ last atomic.Pointer[string] }

// transportError finds gRPC's own words for a connection that could not be made. Those of
// one that etcd closed before gRPC had begun to use it, as it does when it misses a client's
// certificate, stand there bare.
var transportError = regexp.MustCompile(`connection error: desc = "(?:transport: )?(.*?)"?$|latest balancer error: ([^"]*)$`)

// observe keeps what gRPC says of the connection (grpc.UnaryClientInterceptor).
func (c *cause) observe(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err == nil {
		c.last.Store(nil)
	} else if m := transportError.FindStringSubmatch(err.Error()); m != nil {
		why := m[1] + m[2] // one of them is empty
		c.last.Store(&why)
	}
	return err
}

// explain adds the cause to an error that tells only that time ran out.
func (c *cause) explain(err error) error {
	if why := c.last.Load(); why != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s", err, *why)
	}
	return err
}
