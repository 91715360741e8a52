package vip_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/kernel/vip"
)

// holderVar tells the test's binary to be a process that holds the VIP: its name,
// the elector's socket and the VIP.
const holderVar = "MUSTER_TEST_VIP"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(holderVar)); len(args) == 3 {
		if err := holder(args[0], args[1], netip.MustParsePrefix(args[2])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// holder holds the VIP while it can, until it is told to end.
func holder(name, path string, address netip.Prefix) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	v, err := vip.New(vip.Config{Address: address, Interface: "eth0", Elector: client{path, name}})
	if err != nil {
		return err
	}
	return v.Run(ctx)
}

// patience bounds what must happen, on a busy machine.
const patience = 15 * time.Second

// lab is a client and two machines, a and b, with a server on all their addresses
// that says the machine's name.
type lab struct {
	client, a, b *kerneltest.Machine
	electoral    *electoral
	address      netip.Prefix
}

func newLab(t *testing.T, address string) *lab {
	t.Helper()
	kerneltest.Require(t)
	l := &lab{
		client: kerneltest.New(t, "client"), a: kerneltest.New(t, "a"), b: kerneltest.New(t, "b"),
		electoral: newElectoral(t), address: netip.MustParsePrefix(address),
	}
	link := kerneltest.NewSwitch(t, "link")
	link.Attach(l.client, "eth0", "10.1.0.2/24", "fd00:1::2/64")
	link.Attach(l.a, "eth0", "10.1.0.10/24", "fd00:1::10/64")
	link.Attach(l.b, "eth0", "10.1.0.11/24", "fd00:1::11/64")
	for _, m := range []*kerneltest.Machine{l.a, l.b} {
		listener := m.Listen("[::]:80")
		ended := make(chan struct{})
		t.Cleanup(func() {
			listener.Close()
			<-ended
		})
		go func() {
			defer close(ended)
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, m.Name)
				c.Close()
			}
		}()
	}
	return l
}

// start starts a process on the machine that holds the VIP while it can.
func (l *lab) start(t *testing.T, m *kerneltest.Machine) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", holderVar, m.Name, l.electoral.path, l.address))
	cmd.Stderr = os.Stderr
	m.Must(cmd.Start)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the test may have ended it
		_ = cmd.Wait()
	})
	return cmd
}

// who asks who has the VIP; "" if nobody answers soon.
func (l *lab) who() string {
	to := netip.AddrPortFrom(l.address.Addr(), 80).String()
	c, err := l.client.Dial(net.Dialer{Timeout: 100 * time.Millisecond}, "tcp", "", to)
	if err != nil {
		return ""
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return ""
	}
	name, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	return string(name)
}

// until asks who has the VIP until it is the machine of that name, and fails if
// both have it at a time.
func (l *lab) until(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for l.who() != name {
		l.alone(t)
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come to hold the address", name)
		}
	}
	l.alone(t)
}

// alone fails if both machines have the address. Where a hands it over to b, b's
// is read first: if a has it still after that, they had it both.
func (l *lab) alone(t *testing.T) {
	t.Helper()
	if b, a := l.b.HasAddress("eth0", l.address.Addr()), l.a.HasAddress("eth0", l.address.Addr()); a && b {
		t.Error("both machines have the address")
	}
}

func TestVIP_IsTakenOver(t *testing.T) {
	for _, row := range []struct {
		name, address string
		fail          func(l *lab, a *exec.Cmd) error
		within        time.Duration
	}{
		{"killed", "10.1.0.100/32", func(_ *lab, a *exec.Cmd) error { return a.Process.Kill() }, leaseTime},
		{"stopped", "fd00:1::100/128", func(_ *lab, a *exec.Cmd) error { return a.Process.Signal(syscall.SIGSTOP) }, leaseTime},
		{"cut off from the elector", "10.1.0.100/32", func(l *lab, _ *exec.Cmd) error {
			l.electoral.mute("a")
			return nil
		}, leaseTime},
		{"told to end", "fd00:1::100/128", func(_ *lab, a *exec.Cmd) error { return a.Process.Signal(syscall.SIGTERM) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, row.address)
			a := l.start(t, l.a)
			l.until(t, "a")
			l.start(t, l.b)
			for range 20 { // longer than a lease: a renews it
				l.until(t, "a")
			}
			began := time.Now()
			if err := row.fail(l, a); err != nil {
				t.Fatal(err)
			}
			l.until(t, "b")
			// The client must see it 2 s after the lease's end; some more is for
			// a busy machine.
			took := time.Since(began)
			t.Logf("taken over after %v", took)
			if took > row.within+2*time.Second+patience/3 {
				t.Errorf("taken over after %v, a lease is %v", took, leaseTime)
			}
			_ = a.Process.Signal(syscall.SIGCONT) // it may have ended
			for range 20 {
				l.until(t, "b")
			}
		})
	}
}

// fixed is an Elector and a Lease of function fields.
type fixed struct {
	notBefore, deadline time.Time
	changed             chan struct{}
	resigned            func()
	released            bool
}

func (f *fixed) Campaign(ctx context.Context, _ netip.Addr) (vip.Lease, error) {
	if f.resigned == nil {
		<-ctx.Done() // it had its term
		return nil, ctx.Err()
	}
	return f, nil
}
func (f *fixed) NotBefore() time.Time     { return f.notBefore }
func (f *fixed) Deadline() time.Time      { return f.deadline }
func (f *fixed) Changed() <-chan struct{} { return f.changed }
func (f *fixed) Err() error               { return nil }
func (f *fixed) Release()                 { f.released = true }
func (f *fixed) Resign(context.Context) error {
	f.resigned()
	f.resigned = nil
	return nil
}

// The planes hear of the deadline and of its end, and the address comes and goes
// with it, not before the holder before has surely lost it.
func TestVIP_TellsThePlanes(t *testing.T) {
	l := newLab(t, "10.1.0.100/32")
	type told struct {
		until time.Time
		has   bool
	}
	var mu sync.Mutex
	var holds []told
	began := time.Now()
	lease := &fixed{notBefore: began.Add(300 * time.Millisecond), deadline: began.Add(time.Minute), changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	resigned := make(chan bool, 1)
	lease.resigned = func() { resigned <- l.a.HasAddress("eth0", l.address.Addr()) }
	v, err := vip.New(vip.Config{
		Address: l.address, Interface: "eth0", Elector: lease,
		Hold: func(_ context.Context, _ netip.Addr, until time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			holds = append(holds, told{until, l.a.HasAddress("eth0", l.address.Addr())})
			if len(holds) == 1 {
				if early := time.Until(lease.notBefore); early > 0 {
					t.Errorf("taken %v too early", early)
				}
				close(lease.changed) // lost
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.a.Do(func() error { return v.Run(ctx) }) }()
	if <-resigned {
		t.Error("resigned while the address was there")
	}
	if s := v.Status(); s.Holding || s.Terms != 1 {
		t.Errorf("%+v", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(holds) != 2 || !holds[0].until.Equal(lease.deadline) || !holds[0].has || !holds[1].until.IsZero() || holds[1].has {
		t.Errorf("the planes were told %+v", holds)
	}
}

// What is handed over stays as it is when the process ends.
func TestVIP_HandOver(t *testing.T) {
	l := newLab(t, "10.1.0.100/32")
	ctx, cancel := context.WithCancel(t.Context())
	lease := &fixed{
		deadline: time.Now().Add(time.Minute), changed: make(chan struct{}, 1),
		resigned: func() { t.Error("resigned") },
	}
	holds := 0
	v, err := vip.New(vip.Config{
		Address: l.address, Interface: "eth0", Elector: lease,
		Hold: func(context.Context, netip.Addr, time.Time) error {
			holds++
			if !l.a.HasAddress("eth0", l.address.Addr()) {
				t.Error("the planes are told before the address is there")
			}
			cancel()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	v.HandOver()
	if err := l.a.Do(func() error { return v.Run(ctx) }); err != nil {
		t.Error(err)
	}
	if !lease.released || holds != 1 || !l.a.HasAddress("eth0", l.address.Addr()) {
		t.Errorf("released %v, planes told %d times, address there %v; want it left as it was", lease.released, holds, l.a.HasAddress("eth0", l.address.Addr()))
	}
}

// Who cannot hold the address says why, and lets others.
func TestVIP_SaysWhyItIsNotHeld(t *testing.T) {
	l := newLab(t, "10.1.0.100/32")
	resigned := make(chan struct{})
	lease := &fixed{deadline: time.Now().Add(time.Minute), changed: make(chan struct{}, 1), resigned: func() { close(resigned) }}
	v, err := vip.New(vip.Config{Address: l.address, Interface: "eth7", Elector: lease})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.a.Do(func() error { return v.Run(ctx) }) }()
	<-resigned
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); v.Status().Err == nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the status does not say why the address is not held")
		}
	}
	if s := v.Status(); s.Holding || !strings.Contains(s.Err.Error(), "eth7") {
		t.Errorf("%+v", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNew_SaysWhatIsWrong(t *testing.T) {
	good := vip.Config{Address: netip.MustParsePrefix("10.1.0.100/32"), Interface: "eth0", Elector: client{}}
	for _, spoil := range []func(*vip.Config){
		func(c *vip.Config) { c.Address = netip.Prefix{} },
		func(c *vip.Config) { c.Interface = "" },
		func(c *vip.Config) { c.Elector = nil },
	} {
		c := good
		spoil(&c)
		if _, err := vip.New(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	if _, err := vip.New(good); err != nil {
		t.Error(err)
	}
}
