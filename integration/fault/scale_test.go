package fault_test

import (
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

func TestScale_TenThousandInstancesAreLoadedAndChanged(t *testing.T) {
	t.Parallel()
	sc := fault.Scale{Services: 1000, Each: 10}
	r, err := sc.Measure(t.Context(), newLab(t), 200)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load %s, RSS %d MiB, heap %.0f bytes an instance, a change %s, idle %s, %.2f batches a change",
		r.Load, r.RSS>>20, sc.Bytes(r.Heap), r.Change, r.Idle, r.Batches)
	// 0.2 s when nothing else runs; beside the other tests' builds it is their time
	// that is measured. A load that grows with the square of it takes minutes.
	if r.Load > 10*time.Second {
		t.Errorf("the load took %s, want at most 10s", r.Load)
	}
	if r.Change > time.Millisecond {
		t.Errorf("a change takes %s of CPU, want at most 1ms", r.Change)
	}
	if r.RSS > 200<<20 {
		t.Errorf("the server has %d MiB, want at most 200", r.RSS>>20)
	}
}
