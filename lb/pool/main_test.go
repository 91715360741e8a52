package pool_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checker is a Checker whose verdicts the test gives. It has a monitor that does
// not run, for the IDs.
type checker struct {
	*health.Monitor
	mu       sync.Mutex
	status   map[health.Target]health.Status
	reports  []health.Result
	hastened []string // addresses
}

func newChecker() *checker {
	m, err := health.New(health.Config{Prober: &prober{}})
	if err != nil {
		panic(err)
	}
	return &checker{Monitor: m, status: map[health.Target]health.Status{}}
}

func (c *checker) Add(t health.Target, seed health.State) health.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.status[t]; there {
		panic("a target was added twice")
	}
	c.status[t] = health.Status{State: seed, Since: time.Now()}
	return c.Monitor.Add(t, seed)
}

func (c *checker) Remove(t health.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.status[t]; !there {
		panic("a target was removed that is not there")
	}
	delete(c.status, t)
	c.Monitor.Remove(t)
}

func (c *checker) Verdict(id health.ID) (health.State, time.Time) {
	st, there := c.Status(c.Target(id))
	if !there {
		panic("the verdict on a target that is not there was asked for")
	}
	return st.State, st.VerdictAt
}

func (c *checker) Status(t health.Target) (health.Status, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.status[t]
	return s, ok
}

func (c *checker) Report(t health.Target, r health.Result) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, r)
	_, ok := c.status[t]
	return ok
}

func (c *checker) Check(t health.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hastened = append(c.hastened, t.Addr.Addr().String())
}

// set gives a verdict for every target at an address, and returns them.
func (c *checker) set(addr string, st health.Status) []health.Target {
	c.mu.Lock()
	defer c.mu.Unlock()
	var hit []health.Target
	for t := range c.status {
		if t.Addr.Addr() == netip.MustParseAddr(addr) {
			c.status[t] = st
			hit = append(hit, t)
		}
	}
	return hit
}

// env is a running pool with one source.
type env struct {
	t       *testing.T
	pool    *pool.Pool
	checker *checker
	sink    func(registry.Batch) error
	rev     int64
}

const zone = "svc.internal."

var oneSource = pool.Settings{Sources: []pool.Source{{ID: 1, Zone: zone}}}

// start runs a pool until the test ends. In a bubble, stop must be called
// before the bubble's function returns.
func start(t *testing.T, cfg pool.Config) (*env, func()) {
	t.Helper()
	c := newChecker()
	if cfg.Checker == nil {
		cfg.Checker = c
	}
	p, err := pool.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return &env{t: t, pool: p, checker: c, sink: p.Sink(t.Context())}, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v, want context.Canceled", err)
		}
	}
}

// apply sinks a batch and waits until the writer has it.
func (e *env) apply(b registry.Batch) {
	e.t.Helper()
	b.Source = 1
	if b.Revision == 0 {
		e.rev++
		b.Revision = e.rev
	}
	if b.AsOf.IsZero() {
		b.AsOf = time.Now()
	}
	if err := e.sink(b); err != nil {
		e.t.Fatal(err)
	}
	e.wait()
}

func (e *env) wait() {
	e.t.Helper()
	if _, err := e.pool.Status(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// verdict sets the state of the targets at addr and waits for it to take.
func (e *env) verdict(addr string, st health.Status) {
	e.t.Helper()
	for _, t := range e.checker.set(addr, st) {
		e.pool.Notify(t)
	}
	e.wait()
}

func (e *env) find(name string) *pool.Service {
	return e.pool.View().Find(1, wireName(name))
}

// in lists the ids of the instances of a group's tiers, "a b|c" being two tiers.
func in(s *pool.Service, g *pool.Group) string {
	var tiers []string
	for i := range g.Tiers() {
		t := &g.Tiers()[i]
		var ids []string
		for n := range t.Size() {
			ids = append(ids, string(s.Label(t.At(n))[1:]))
		}
		tiers = append(tiers, strings.Join(ids, " "))
	}
	return strings.Join(tiers, "|")
}

func wireName(name string) []byte {
	var w []byte
	for l := range strings.SplitSeq(name, ".") {
		w = append(append(w, byte(len(l))), l...)
	}
	return w
}

// inst is an instance from a line: "web/a 10.0.0.1 w=3 p=1 tags=x,y zone=z".
func inst(line string) registry.Instance {
	f := strings.Fields(line)
	service, id, _ := strings.Cut(f[0], "/")
	i := registry.Instance{Service: service, ID: id, Weight: 1, Port: 80, Incarnation: 1}
	for _, w := range f[1:] {
		k, v, named := strings.Cut(w, "=")
		switch {
		case !named:
			i.Addresses = append(i.Addresses, netip.MustParseAddr(w))
		case k == "w":
			i.Weight = uint16(number(v))
		case k == "p":
			i.Priority = uint16(number(v))
		case k == "inc":
			i.Incarnation = int64(number(v))
		case k == "port":
			i.Port = uint16(number(v))
		case k == "ttl":
			i.TTL = time.Duration(number(v)) * time.Second
		case k == "tags":
			i.Tags = strings.Split(v, ",")
		case k == "zone":
			i.Zone = v
		case k == "named":
			for n := range strings.SplitSeq(v, ",") {
				i.Ports = append(i.Ports, registry.Port{Name: n, Number: 8000, Proto: "tcp"})
			}
		case k == "check":
			i.Checks = []registry.Check{{Type: v}}
		default:
			panic("unknown word " + w)
		}
	}
	slices.Sort(i.Tags)
	return i
}

func number(s string) int {
	n := 0
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

func insts(lines ...string) []registry.Instance {
	var list []registry.Instance
	for _, l := range lines {
		list = append(list, inst(l))
	}
	return list
}

func bubble(t *testing.T, cfg pool.Config, f func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, stop := start(t, cfg)
		defer stop()
		f(t, e)
	})
}

func defaults(s registry.Service) pool.Config {
	s.Name = "*"
	return pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: zone, Defaults: []registry.Service{s}}}}}
}

var anyRequest = lb.Request{Rand: 0x123456789abcdef}
