package fault_test

import (
	"flag"
	"fmt"
	"os"
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
