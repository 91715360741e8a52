package l7_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/musterdns/muster/lb/l7"
)

// grpcServer answers the health service in its own way: Check with the code
// that is asked for by the service's name, Watch with one message a name.
type grpcServer struct {
	healthpb.UnimplementedHealthServer
	name string
}

func (s *grpcServer) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-by", s.name))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-sum", "42"))
	switch req.Service {
	case "unavailable":
		return nil, status.Error(codes.Unavailable, "not now")
	case "missing":
		return nil, status.Error(codes.NotFound, "never heard of it")
	case "hang":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (s *grpcServer) Watch(_ *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	for range 5 {
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	return status.Error(codes.DataLoss, "the end")
}

// serveGRPC runs an instance that speaks gRPC.
func serveGRPC(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, &grpcServer{name: name})
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		running.Wait()
	})
	return l.Addr().String()
}

func TestProxy_GRPC(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", serveGRPC(t, "a"), "web/b", serveGRPC(t, "b"), "down/a", deaf(t))
	r.routes(`brief {"headers":[{"name":"x-to","value":"brief"}],"service":"web","timeout":"1s"}`, `down {"headers":[{"name":"x-to","value":"down"}],"service":"down"}`, `few {"headers":[{"name":"x-to","value":"few"}],"service":"web","limit":{"rate":0.01}}`)
	conn, err := grpc.NewClient(r.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := healthpb.NewHealthClient(conn)
	ask := func(service, to string) (code codes.Code, by, sum string) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-to", to)
		var header, trailer metadata.MD
		_, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.Header(&header), grpc.Trailer(&trailer))
		return status.Code(err), first(header["x-by"]), first(trailer["x-sum"])
	}
	seen := map[string]int{}
	for range 50 {
		code, by, sum := ask("", "")
		if code != codes.OK || sum != "42" {
			t.Fatalf("%s by %q with %q", code, by, sum)
		}
		seen[by]++
	}
	if len(seen) != 2 {
		t.Errorf("one connection's calls went to %v, want both instances: each call is chosen for", seen)
	}
	for _, test := range []struct {
		service, to string
		want        codes.Code
	}{
		{"missing", "", codes.NotFound},
		{"unavailable", "", codes.Unavailable},
		{"hang", "brief", codes.DeadlineExceeded},
		{"", "down", codes.Unavailable},
		{"", "few", codes.OK},
		{"", "few", codes.ResourceExhausted},
	} {
		if code, _, _ := ask(test.service, test.to); code != test.want {
			t.Errorf("%q to %q: %s, want %s", test.service, test.to, code, test.want)
		}
	}
	stream, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	if n != 6 || status.Code(err) != codes.DataLoss {
		t.Errorf("%d messages, then %v; want 5 and DataLoss", n-1, err)
	}
}

// TestProxy_GRPC/a status that blames the server counts as a failure, one that
// blames the request does not.
func TestProxy_GRPCStatusIsTheOutcome(t *testing.T) {
	r := start(t, nil)
	r.register("web/a", serveGRPC(t, "a"))
	conn, err := grpc.NewClient(r.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := healthpb.NewHealthClient(conn)
	failures := func() (n int64) {
		e, err := r.proxy.Explain(l7.Question{URL: "http://a/"})
		if err != nil || len(e.Instances) != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		return e.Instances[0].Failures
	}
	for service, want := range map[string]int64{"missing": 0, "unavailable": 1, "": 0} {
		before := failures()
		_, _ = c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		await(t, service+" is over", func() bool { return r.proxy.Stats().InFlight == 0 })
		if got := failures() - before; got != want {
			t.Errorf("%q counts as %d failures, want %d", service, got, want)
		}
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
