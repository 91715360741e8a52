package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/musterdns/muster/health"
)

const (
	// grpcMessageMax bounds a response, in octets: it holds one enum.
	grpcMessageMax = 4 << 10
	// grpcHeaderMax bounds a response's metadata.
	grpcHeaderMax = 16 << 10
	// grpcServiceMax bounds the name of the service asked for.
	grpcServiceMax = 255
	// grpcBuffer holds a whole exchange, either way.
	grpcBuffer = 2 << 10
)

// grpc asks by the gRPC health checking protocol (grpc.health.v1.Health/Check)
// without TLS and passes when the answer is SERVING. With Keep it asks over a
// connection that stays, on which Watch runs beside; see watch.go.
func (s *Set) grpc(ctx context.Context, t *health.Target) health.Result {
	if t.Keep {
		if r, kept := s.grpcKept(ctx, t); kept {
			return r
		}
	}
	c, err := s.grpcClient(t)
	if err != nil {
		return failed(describeGRPC(t), err.Error())
	}
	defer c.close()
	r, _ := c.check(ctx, t)
	return r
}

// grpcClient is a connection for checks of one target, made when it is used.
type grpcClient struct {
	*grpc.ClientConn
	dialed atomic.Pointer[error] // why there is no connection, as the kernel put it
}

func (s *Set) grpcClient(t *health.Target) (*grpcClient, error) {
	authority := netip.AddrPortFrom(t.Addr.Addr().WithZone(""), t.Addr.Port()).String() // RFC 6874: zones are not sent
	c := &grpcClient{}
	var err error
	c.ClientConn, err = grpc.NewClient("passthrough:///"+authority,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			// The check's timeout, of which grpc's own context knows nothing.
			ctx, cancel := context.WithTimeout(ctx, t.Timeout)
			defer cancel()
			conn, err := s.dialer.DialContext(ctx, "tcp", t.Addr.String())
			if err == nil && t.Keep {
				err = keepalive(conn.(*net.TCPConn), t.Interval, t.Timeout)
			}
			if err != nil {
				c.dialed.Store(&err)
			}
			return conn, err
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: t.Timeout}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithReadBufferSize(grpcBuffer), grpc.WithWriteBufferSize(grpcBuffer),
		grpc.WithUserAgent(UserAgent), grpc.WithMaxHeaderListSize(grpcHeaderMax),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(grpcMessageMax)))
	return c, err
}

// close ends the connection; closing twice is its only error.
func (c *grpcClient) close() { _ = c.Close() }

func describeGRPC(t *health.Target) string {
	return fmt.Sprintf("gRPC %v Check(%q)", t.Addr, t.Service)
}

// check asks once. said: the server has answered, be it by an error.
func (c *grpcClient) check(ctx context.Context, t *health.Target) (r health.Result, said bool) {
	what := describeGRPC(t)
	c.dialed.Store(nil)
	answer, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{Service: t.Service})
	if err == nil {
		if answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return passed(what, answer.GetStatus().String()), true
		}
		return failed(what, answer.GetStatus().String()), true
	}
	if cause := c.dialed.Load(); cause != nil {
		return broken(ctx, t, what, "connection", *cause), false
	}
	if ctx.Err() != nil {
		return broken(ctx, t, what, "answer", err), false
	}
	refused := status.Convert(err)
	if refused.Code() == codes.NotFound {
		return failed(what, "the server does not know the service"), true
	}
	return failed(what, refused.Code().String()+" "+refused.Message()), refused.Code() != codes.Unavailable && refused.Code() != codes.Canceled
}

func validateGRPC(t *health.Target) error {
	if len(t.Service) > grpcServiceMax || !utf8.ValidString(t.Service) {
		return fmt.Errorf("grpc check: service: must be UTF-8 of at most %d octets", grpcServiceMax)
	}
	return nil
}
