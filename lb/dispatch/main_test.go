package dispatch_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a running pool with one source, and a Dispatcher over it.
type env struct {
	t        *testing.T
	pool     *pool.Pool
	dispatch *dispatch.Dispatcher
	sink     func(registry.Batch) error
	rev      int64
}

// bubble runs f with an env, where time is virtual.
func bubble(t *testing.T, f func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, err := pool.New(pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: "svc.internal."}}}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := dispatch.New(dispatch.Config{Pool: p})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := runBoth(t, p, d)
		f(t, &env{t: t, pool: p, dispatch: d, sink: p.Sink(ctx)})
		stop()
	})
}

// runBoth runs a pool and a Dispatcher over it until stop is called.
func runBoth(t *testing.T, p *pool.Pool, d *dispatch.Dispatcher) (_ context.Context, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- p.Run(ctx) }()
	go func() { done <- d.Run(ctx) }()
	return ctx, func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
		}
	}
}

// apply sinks a batch, and waits until the pool and the Dispatcher have it.
func (e *env) apply(b registry.Batch) {
	e.t.Helper()
	e.rev++
	b.Source, b.Revision, b.AsOf = 1, e.rev, time.Now()
	if err := e.sink(b); err != nil {
		e.t.Fatal(err)
	}
	synctest.Wait()
}

// insts are instances of service web: "a b/1" has b in tier 1.
func insts(ids string) (out []registry.Instance) {
	for n, f := range strings.Fields(ids) {
		id, tier, _ := strings.Cut(f, "/")
		in := registry.Instance{
			Service: "web", ID: id, Weight: 1, Port: 80, Incarnation: 1,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, id[0]})},
			Ports:     []registry.Port{{Name: "admin", Number: uint16(9000 + n), Proto: "tcp"}},
		}
		if tier != "" {
			in.Priority = 1
		}
		out = append(out, in)
	}
	return out
}

// admin is an administrator's word on instances of web: "a=drain b=down".
func admin(words string) (out []registry.Admin) {
	states := map[string]registry.AdminState{"drain": registry.AdminDrain, "down": registry.AdminDown, "up": registry.AdminUp}
	for f := range strings.FieldsSeq(words) {
		id, state, _ := strings.Cut(f, "=")
		out = append(out, registry.Admin{Service: "web", Instance: id, State: states[state]})
	}
	return out
}

// web acquires the Backend of service web until the test ends.
func (e *env) web() *dispatch.Backend {
	e.t.Helper()
	b, err := e.dispatch.Acquire(dispatch.Ref{Source: 1, Service: "web"})
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

// chosen lists what 100 choices, given back at once, reach.
func chosen(t *testing.T, b *dispatch.Backend, r dispatch.Request, tried *dispatch.Tried) string {
	t.Helper()
	seen := map[string]bool{}
	for range 100 {
		c, err := b.Choose(r, tried)
		if err != nil {
			t.Fatalf("Choose: %v", err)
		}
		c.Done(dispatch.Outcome{})
		seen[c.ID()] = true
	}
	var ids []string
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}
