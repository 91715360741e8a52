package fault_test

import (
	"context"
	"errors"
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
	const rate = 1000
	load := fault.Load{Addr: s.DNS, Rate: rate, Names: []string{"one.test."}, Judge: fault.Has("10.1.0.1")}
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
	late := lateness(t)
	told := time.Now()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	took := time.Since(told)
	moment := late().Max()
	cancel()
	tally := <-result
	if took > busy*5*time.Second || s.ExitCode() != 0 {
		t.Errorf("it ended %s after SIGTERM with exit code %d, want 0 within 5s on a machine that is idle\n%s", took, s.ExitCode(), s.LogTail())
	}
	// What comes once the sockets are closed is refused by the kernel, and
	// known not to be answered. Nothing else may be missing but what falls
	// between the last look at a socket and its closing, a moment each: as long as
	// the machine lets a process wait.
	const sockets = 4
	if most := sockets + int(rate*moment.Seconds()); len(tally.Wrong) > 0 || tally.Lost > tally.Refused+most {
		t.Errorf("%d of %d queries were lost, %d of them refused; wrong: %v", tally.Lost, tally.Sent, tally.Refused, tally.Wrong)
	}
	t.Logf("%d sent, %d answered, %d refused, ended after %s", tally.Sent, tally.Answered, tally.Refused, took)
}

// manyServices is a state large enough for a snapshot to take some time.
const manyServices, each = 2000, 10

func TestRestart_AfterACrashAnswersFromAWholeSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	times, err := fault.Restart(t.Context(), l, fault.Scale{Services: manyServices, Each: each}, 3)
	within(t, busy*time.Second, times, err)
	left, err := filepath.Glob(l.Path("state/*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the directory of the snapshot has %q (%v), want the snapshot alone", left, err)
	}
}
