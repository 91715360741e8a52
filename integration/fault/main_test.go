package fault_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// binary is the muster that is tested. Set before any test runs.
var binary string

func TestMain(m *testing.M) {
	if fault.Backend(os.Args) {
		return
	}
	flag.Parse()
	var remove func()
	// The tests wait for most of their time.
	err := flag.Set("test.parallel", "6")
	if err == nil {
		binary, remove, err = program.Built()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		remove()
		os.Exit(code)
	}))
}

// newLab makes a lab that ends with the test.
func newLab(t *testing.T) *fault.Lab {
	t.Helper()
	l, err := fault.NewLab(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// busy is how many times as long things may take here as in the benchmarks, which
// hold the limits: the tests of other packages run beside these.
const busy = 3

// lateness measures how late this machine wakes who waits, until stop is called: on
// an idle one a fraction of a millisecond. What takes some steps between processes
// is late by about as much each.
func lateness(t *testing.T) (stop func() fault.Times) {
	t.Helper()
	const interval = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	late := fault.Times{0}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			due := time.Now().Add(interval)
			<-time.After(interval)
			late = append(late, time.Since(due))
		}
	}()
	stop = sync.OnceValue(func() fault.Times { cancel(); <-done; return late })
	t.Cleanup(func() { stop() })
	return stop
}

// steps is in how many steps between processes a change reaches a client: etcd, the
// server's watch, its answer, the client and the test's own.
const steps = 5

// half fails the test when half of the times or more are longer than the limit of an
// idle machine, and than what this one can do.
func half(t *testing.T, limit time.Duration, times, late fault.Times) {
	t.Helper()
	limit = busy*limit + steps*late.Quantile(0.9)
	t.Logf("%v; woken late: %v", times, late)
	if got := times.Quantile(0.5); got > limit {
		t.Errorf("half of the runs took %s or more, want at most %s: %v", got, limit, times)
	}
}

// within fails the test when one of the times is longer than the limit.
func within(t *testing.T, limit time.Duration, times fault.Times, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(times)
	if times.Max() > limit {
		t.Errorf("the longest run took %s, want at most %s: %v", times.Max(), limit, times)
	}
}
