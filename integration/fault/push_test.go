package fault_test

import (
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// Each of a hundred subscribers is told of each change. Half of them, not nearly all,
// in time: other tests use the cores too. The benchmark looks at the rest, and at what
// a subscriber costs while nothing changes.
func TestPush_TellsSubscribersAtOnce(t *testing.T) {
	t.Parallel()
	late := lateness(t)
	r, err := fault.Push(t.Context(), newLab(t), fault.PushOptions{Subscribers: 100, Runs: 5, Quiet: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Times) != 500 {
		t.Errorf("%d messages, want 500", len(r.Times))
	}
	half(t, 50*time.Millisecond, r.Times, late())
}
