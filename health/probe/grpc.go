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
)

// grpc asks by the gRPC health checking protocol (grpc.health.v1.Health/Check)
// without TLS and passes when the answer is SERVING.
func (s *Set) grpc(ctx context.Context, t *health.Target) health.Result {
	what := fmt.Sprintf("gRPC %v Check(%q)", t.Addr, t.Service)
	var dialed atomic.Pointer[error]                                                    // why there is no connection, as the kernel put it
	authority := netip.AddrPortFrom(t.Addr.Addr().WithZone(""), t.Addr.Port()).String() // RFC 6874: zones are not sent
	client, err := grpc.NewClient("passthrough:///"+authority,
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			// The check's own context: grpc's is not ended by the check's end.
			c, err := s.dialer.DialContext(ctx, "tcp", t.Addr.String())
			if err != nil {
				dialed.Store(&err)
			}
			return c, err
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: t.Timeout}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithUserAgent(UserAgent), grpc.WithMaxHeaderListSize(grpcHeaderMax),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(grpcMessageMax)))
	if err != nil {
		return failed(what, err.Error())
	}
	defer func() { _ = client.Close() }() // closing twice is its only error
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: t.Service})
	if err == nil {
		if answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return passed(what, answer.GetStatus().String())
		}
		return failed(what, answer.GetStatus().String())
	}
	if cause := dialed.Load(); cause != nil {
		return broken(ctx, t, what, "connection", *cause)
	}
	if ctx.Err() != nil {
		return broken(ctx, t, what, "answer", err)
	}
	refused := status.Convert(err)
	if refused.Code() == codes.NotFound {
		return failed(what, "the server does not know the service")
	}
	return failed(what, refused.Code().String()+" "+refused.Message())
}

func validateGRPC(t *health.Target) error {
	if len(t.Service) > grpcServiceMax || !utf8.ValidString(t.Service) {
		return fmt.Errorf("grpc check: service: must be UTF-8 of at most %d octets", grpcServiceMax)
	}
	return nil
}
