package fault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

func TestStop_UnderLoadAnswersWhatIsInFlight(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	write(t, l, "one.zone", zoneText("10.1.0.1"))
	write(t, l, "two.zone", zoneText("10.2.0.1"))
	s := run(t, l, static(l))
	await(t, dial(t, s), "one.test.", dns.TypeA, fault.Has("10.1.0.1"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	load := fault.Load{Addr: s.DNS, Rate: 1000, Names: []string{"one.test."}, Judge: fault.Has("10.1.0.1")}
	result := make(chan fault.Tally, 1)
	go func() {
		tally, err := load.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		result <- tally
	}()
	if err := fault.Until(t.Context(), time.Millisecond, func() error {
		n, err := s.Metric(t.Context(), `muster_dns_messages_received_total{transport="udp"}`)
		if err == nil && n < 500 {
			err = errors.New("the load has only begun")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	told := time.Now()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	took := time.Since(told)
	cancel()
	tally := <-result
	if took > 5*time.Second || s.ExitCode() != 0 {
		t.Errorf("it ended %s after SIGTERM with exit code %d, want 0 within 5s\n%s", took, s.ExitCode(), s.LogTail())
	}
	// What comes once the sockets are closed is refused by the kernel, and
	// known not to be answered. Nothing else may be missing but what falls
	// between the last look at a socket and its closing, a moment each.
	const sockets = 4
	if len(tally.Wrong) > 0 || tally.Lost > tally.Refused+sockets {
		t.Errorf("%d of %d queries were lost, %d of them refused; wrong: %v", tally.Lost, tally.Sent, tally.Refused, tally.Wrong)
	}
	t.Logf("%d sent, %d answered, %d refused, ended after %s", tally.Sent, tally.Answered, tally.Refused, took)
}

// manyServices is a state large enough for a snapshot to take some time.
const manyServices, each = 2000, 10

// loaded starts an etcd with many instances, and a server that knows them and
// has written its snapshot.
func loaded(t *testing.T, l *fault.Lab) (*fault.Etcd, *fault.Server) {
	t.Helper()
	e, err := l.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.Load(t.Context(), fault.Instances(manyServices, each)); err != nil {
		t.Fatal(err)
	}
	settings := fault.Settings{Etcd: e.URL, Snapshot: l.Path("state/snapshot")}
	if err := os.Mkdir(l.Path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := run(t, l, settings)
	await(t, dial(t, s), fault.ServiceName(manyServices-1)+"."+fault.Zone, dns.TypeA, fault.Answered)
	return e, s
}

func TestKill_OfMusterLeavesAWholeSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e, s := loaded(t, l)
	s.Stop() // writes the first snapshot
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := l.Serve()
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, s)
		await(t, c, fault.ServiceName(0)+"."+fault.Zone, dns.TypeA, fault.Answered)
		if took := s.Age(); took > time.Second {
			t.Errorf("the first answer came after %s, want 1s at most", took)
		}
		await(t, c, fault.ServiceName(manyServices-1)+"."+fault.Zone, dns.TypeA, fault.Answered)
		if err := fault.Kill(s.Process); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(l.Path("state/*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the directory of the snapshot has %q (%v), want the snapshot alone", left, err)
	}
}
