package fault_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// Row 10 of the faults: many leases, each of an instance, are not kept alive any more. Two
// thousand here, so that the tests end; `make storm` has the fifty thousand of the row.
func TestLeases_ExpireInAStorm(t *testing.T) {
	t.Parallel()
	leases, ttl := 2000, 30
	if text := os.Getenv("STORM_LEASES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("STORM_LEASES=%s is no number of leases", text)
		}
		leases, ttl = n, 30+n/500
	}
	s, err := fault.LeaseStorm(t.Context(), newLab(t), leases, ttl)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d leases expired within %s; the server answers what is left %s after the last; answered right: %.2f %% before, %.2f %% meanwhile; p99 %s and %s",
		leases, s.Expiring, s.Converge, 100*s.Calm.Share(), 100*s.Storm.Share(), s.Calm.Took.Quantile(0.99), s.Storm.Took.Quantile(0.99))
	if s.Converge > busy*5*time.Second {
		t.Errorf("the server answers what is left %s after the last lease has expired, want at most 5 s on a machine that is idle", s.Converge)
	}
	if s.Storm.Share() < 0.8*s.Calm.Share() {
		t.Errorf("%.1f %% of the questions were answered while leases expire, %.1f %% before: a drop of more than 20 %%", 100*s.Storm.Share(), 100*s.Calm.Share())
	}
}
