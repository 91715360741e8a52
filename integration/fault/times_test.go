package fault_test

import (
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

func TestStart_AnswersSoon(t *testing.T) {
	t.Parallel()
	times, err := fault.Start(t.Context(), newLab(t), 1)
	within(t, busy*time.Second, times, err)
}

func TestPut_IsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	times, err := fault.Put(t.Context(), newLab(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(times)
	// Half, not nearly all: other tests use the cores too. The benchmark looks
	// at the rest.
	if got := times.Quantile(0.5); got > busy*10*time.Millisecond {
		t.Errorf("half of the puts took %s or more, want at most 30ms: %v", got, times)
	}
}

func TestLease_LostIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	times, err := fault.Lease(t.Context(), newLab(t), 11)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(times)
	if got := times.Quantile(0.5); got > busy*10*time.Millisecond {
		t.Errorf("half of the answers changed %s or more after etcd's event, want at most 30ms: %v", got, times)
	}
}

// What is known at once is given a second here, on a machine that is busy.
func TestCrash_OfAnInstanceIsAnsweredInTime(t *testing.T) {
	for _, d := range fault.Deaths() {
		t.Run(d.Title, func(t *testing.T) {
			t.Parallel()
			times, err := fault.Crash(t.Context(), newLab(t), d, 3, 1)
			within(t, busy*max(d.Limit, time.Second), times, err)
		})
	}
}
