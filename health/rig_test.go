package health_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/health"
)

// tick is how late a Monitor may start what is due.
const tick = 4 * time.Millisecond

// check is one probe that a fake has seen, in time since the bubble's begin.
type check struct {
	target     health.Target
	start, end time.Duration
}

// fake is a Prober whose answers are set by the test.
type fake struct {
	began  time.Time
	answer func(ctx context.Context, t health.Target) health.Result

	mu      sync.Mutex
	checks  []check
	running int
	most    int // probes at a time
}

func (f *fake) Probe(ctx context.Context, t health.Target) health.Result {
	start := time.Since(f.began)
	f.mu.Lock()
	f.running++
	f.most = max(f.most, f.running)
	answer := f.answer
	f.mu.Unlock()
	r := answer(ctx, t)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	f.checks = append(f.checks, check{t, start, time.Since(f.began)})
	return r
}

// set changes the answer from now on.
func (f *fake) set(answer func(context.Context, health.Target) health.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// starts are the times at which a target was checked.
func (f *fake) starts(t health.Target) (starts []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.checks {
		if c.target == t {
			starts = append(starts, c.start)
		}
	}
	return starts
}

func passing(context.Context, health.Target) health.Result {
	return health.Result{OK: true, Output: "200 OK", Load: -1}
}

func failing(context.Context, health.Target) health.Result {
	return health.Result{Output: "503 Service Unavailable", Load: -1}
}

func refused(context.Context, health.Target) health.Result {
	return health.Result{Refused: true, Output: "connection refused", Load: -1}
}

// hanging answers nothing until the target's timeout, as a Prober must.
func hanging(ctx context.Context, t health.Target) health.Result {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	<-ctx.Done()
	return health.Result{Output: "no answer", Load: -1}
}

// target is the n-th of many, with the defaults of the product.
func target(n int) health.Target {
	return health.Target{
		Type: health.TypeHTTP, Path: "/healthz",
		Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 80),
		Interval: 2 * time.Second, FastInterval: 500 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3,
	}
}

// rig is a Monitor in a bubble with its fake and what it has told.
type rig struct {
	*health.Monitor
	*fake
	t     *testing.T
	stop  func()
	mu    sync.Mutex
	told  map[health.Target]int
	loads []float64
}

// run calls test in a bubble, with a Monitor that has not begun to run and a
// fake that passes everything; what is left of the Monitor is ended after it.
func run(t *testing.T, cfg health.Config, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, fake: &fake{began: time.Now(), answer: passing}, told: map[health.Target]int{}, stop: func() {}}
		cfg.Prober = r.fake
		cfg.Notify = func(x health.Target) {
			r.Status(x) // would deadlock if a lock were held
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told[x]++
		}
		cfg.Load = func(_ health.Target, load float64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.loads = append(r.loads, load)
		}
		m, err := health.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.Monitor = m
		defer func() { r.stop() }() // whatever it is by then
		test(t, r)
	})
}

// start begins Run.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.stop = func() {}
	}
	synctest.Wait()
}

// after lets time pass and everything settle.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) status(x health.Target) health.Status {
	r.t.Helper()
	s, ok := r.Status(x)
	if !ok {
		r.t.Fatalf("Status(%v): not there", x.Addr)
	}
	return s
}

func (r *rig) want(x health.Target, want health.State) {
	r.t.Helper()
	if s := r.status(x); s.State != want {
		r.t.Errorf("at %v: state %v (failures %d, passes %d), want %v", time.Since(r.began), s.State, s.Failures, s.Passes, want)
	}
}

// until lets time pass until the target is in a state, and returns how long it
// took, to 5 ms.
func (r *rig) until(x health.Target, want health.State, limit time.Duration) time.Duration {
	r.t.Helper()
	start := time.Now()
	for r.status(x).State != want {
		if time.Since(start) > limit {
			r.t.Fatalf("not %v after %v", want, limit)
		}
		r.after(5 * time.Millisecond)
	}
	return time.Since(start)
}

func (r *rig) notified(x health.Target) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[x]
}
