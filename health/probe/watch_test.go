package probe_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
)

// unwatched has Check alone, as servers have that are older than Watch.
type unwatched struct {
	healthpb.UnimplementedHealthServer
	checked chan struct{}
}

func (u *unwatched) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	u.checked <- struct{}{}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (u *unwatched) Watch(*healthpb.HealthCheckRequest, grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	return status.Error(codes.Unimplemented, "no Watch here")
}

// serveGRPC serves until stop, which is also called at the test's end.
func serveGRPC(t *testing.T, impl healthpb.HealthServer, addr string) (listening net.Addr, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, impl)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return l.Addr(), stop
}

func TestSet_GRPC_Watch(t *testing.T) {
	s, lost := running(t, probe.Config{})
	states := grpchealth.NewServer()
	states.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	addr, stop := serveGRPC(t, states, "127.0.0.1:0")
	x := health.Target{
		Type: health.TypeGRPC, Addr: addrOf(addr), Service: "orders", Keep: true,
		Interval: time.Second, FastInterval: fast, Timeout: 5 * time.Second,
	}
	wantResult(t, s.Probe(t.Context(), x), true, false, "SERVING")
	wantResult(t, s.Probe(t.Context(), x), true, false, "SERVING")
	if n := s.Stats().Kept; n != 1 {
		t.Errorf("%d connections kept", n)
	}
	for _, to := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING} {
		states.SetServingStatus("orders", to)
		wantLost(t, lost, x)
		serving := to == healthpb.HealthCheckResponse_SERVING
		wantResult(t, s.Probe(t.Context(), x), serving, !serving, `Check("orders"): `+to.String())
	}
	old()
	stop()
	wantLost(t, lost, x)
	r := s.Probe(t.Context(), x)
	wantResult(t, r, false, true, "connection refused")
	if !r.Refused {
		t.Error("not refused")
	}
	s.Forget(x)
	if n := s.Stats().Kept; n != 0 {
		t.Errorf("%d connections kept of a target that is forgotten", n)
	}
}

func TestSet_GRPC_Watch_unimplemented_falls_back(t *testing.T) {
	s, lost := running(t, probe.Config{})
	impl := &unwatched{checked: make(chan struct{}, 10)}
	addr, stop := serveGRPC(t, impl, "127.0.0.1:0")
	x := health.Target{
		Type: health.TypeGRPC, Addr: addrOf(addr), Keep: true,
		Interval: time.Second, FastInterval: fast, Timeout: 5 * time.Second,
	}
	for range 3 {
		wantResult(t, s.Probe(t.Context(), x), true, false, "SERVING")
		<-impl.checked
	}
	old()
	if n := s.Stats().Kept; n != 1 || len(lost) > 0 {
		t.Errorf("%d connections kept, %d losses told of", n, len(lost))
	}
	stop() // the connection's end is told of all the same
	wantLost(t, lost, x)
	wantResult(t, s.Probe(t.Context(), x), false, true, "connection refused")
}

func TestSet_GRPC_Watch_hangs(t *testing.T) {
	s, _ := running(t, probe.Config{})
	x := health.Target{Type: health.TypeGRPC, Addr: serve(t, silent), Keep: true, Interval: time.Second, Timeout: timeout}
	for range 3 {
		wantResult(t, s.Probe(t.Context(), x), false, false, "no answer within 300ms")
	}
}
