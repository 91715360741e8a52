package probe

import (
	"cmp"
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/musterdns/muster/health"
)

// watchMax is how many gRPC servers are watched at a time. Each costs the
// goroutines and buffers of a gRPC connection, about 60 KiB; targets beyond are
// checked over connections of their own.
const watchMax = 4096

// watch is a gRPC connection that is kept, with a Watch for the target's
// service on it (grpc.health.v1). What it hears is no verdict: it has the
// target checked at once, over the same connection, by Check. That is asked
// each interval too, since a server that hangs tells of nothing.
type watch struct {
	client *grpcClient
	cancel context.CancelFunc
	ended  chan struct{} // closed when the connection is of no use any more
	brief  bool          // it ended while it was young; valid once ended. See link
	again  bool          // it took the place of one that was brief
}

// watches are the watches that there are, one a target.
type watches struct {
	mu      sync.Mutex
	running bool // Run runs
	byKey   map[linkKey]*watch
	group   sync.WaitGroup
}

func (ws *watches) open() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.running = true
}

// close ends all watches and waits for their ends.
func (ws *watches) close() {
	ws.mu.Lock()
	ws.running = false
	for _, w := range ws.byKey {
		w.cancel()
	}
	clear(ws.byKey)
	ws.mu.Unlock()
	ws.group.Wait()
}

// forget ends the watch of a target that is not checked any more.
func (ws *watches) forget(k linkKey) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byKey[k]; w != nil {
		w.cancel()
		delete(ws.byKey, k)
	}
}

func (ws *watches) count() int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.byKey)
}

// watchOf returns the watch of a target, and begins one if there is none; nil
// when nothing is kept, for want of room or of Run.
func (s *Set) watchOf(t *health.Target) (*watch, error) {
	k := keyOf(*t)
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	again := false
	if w := s.watches.byKey[k]; w != nil {
		select {
		case <-w.ended:
			delete(s.watches.byKey, k)
			again = w.brief
		default:
			return w, nil
		}
	}
	if !s.watches.running || len(s.watches.byKey) >= watchMax {
		return nil, nil
	}
	client, err := s.grpcClient(t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{client: client, cancel: cancel, ended: make(chan struct{}), again: again}
	s.watches.byKey[k] = w
	target := *t
	s.watches.group.Go(func() { s.follow(ctx, w, target) })
	return w, nil
}

// grpcKept is a check over the connection that is kept; false: none is. What a
// server says of itself, and a connection that is refused after one was lost,
// need no second failure. A connection that turns out to have ended since the
// last check is replaced within this one.
func (s *Set) grpcKept(ctx context.Context, t *health.Target) (r health.Result, kept bool) {
	for range 2 {
		w, err := s.watchOf(t)
		if err != nil {
			return failed(describeGRPC(t), err.Error()), true
		}
		if w == nil {
			return health.Result{}, false
		}
		var said bool
		r, said = w.client.check(ctx, t)
		r.Final = !r.OK && (said || r.Refused)
		if r.OK || said {
			break
		}
		s.watches.forget(keyOf(*t))
		if r.Refused || expired(ctx) {
			break
		}
	}
	return r, true
}

// follow has the target checked whenever its status changes, until the
// connection or ctx ends. A server without Watch is checked by its connection's
// end alone.
func (s *Set) follow(ctx context.Context, w *watch, t health.Target) {
	fast := cmp.Or(max(t.FastInterval, 0), health.FastIntervalDefault)
	made := time.Now()
	s.listen(ctx, w, &t, fast)
	lost := ctx.Err() == nil
	w.cancel()
	w.client.close()
	w.brief = time.Since(made) < fast
	close(w.ended) // before it is told of: the check that follows is to make a new one
	if lost && (!w.brief || !w.again) {
		s.cfg.Lost(t)
	}
}

// listen is follow until the end.
func (s *Set) listen(ctx context.Context, w *watch, t *health.Target, fast time.Duration) {
	stream, err := healthpb.NewHealthClient(w.client).Watch(ctx, &healthpb.HealthCheckRequest{Service: t.Service})
	// Watch begins with the present status. The check that began it may have
	// been told another one a moment before.
	last := healthpb.HealthCheckResponse_SERVING
	for err == nil {
		var answer *healthpb.HealthCheckResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		if now := answer.GetStatus(); now != last {
			s.cfg.Lost(*t)
			if !pause(ctx, fast) { // however fast it changes
				return
			}
		}
		last = answer.GetStatus()
	}
	if status.Code(err) == codes.Unimplemented {
		for state := w.client.GetState(); state == connectivity.Ready; state = w.client.GetState() {
			if !w.client.WaitForStateChange(ctx, state) {
				return
			}
		}
	}
}

// pause waits; false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
