package fault_test

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

func TestOutage_OfEtcdIsStatedAndLosesNothing(t *testing.T) {
	t.Parallel()
	r, err := fault.Outage(t.Context(), newLab(t), fault.OutageOptions{Down: 8 * time.Second, StaleAfter: 6 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %s, restart %s, back after that %s, %q, %d of %d answers stale", r.Back, r.Restart, r.Again, r.Age, r.Away.Stale, r.Away.Answered)
	for when, tally := range map[string]fault.Tally{"while etcd was away": r.Away, "after the restart": r.Return} {
		if err := tally.Bad(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	if r.Age == "" || r.Away.Stale == 0 || r.Away.Stale == r.Away.Answered {
		t.Errorf("%d of %d answers were stale, the last by %q; want those after 6s, with their age", r.Away.Stale, r.Away.Answered, r.Age)
	}
	for what, took := range map[string]time.Duration{"catching up": r.Back, "catching up after the restart": r.Again} {
		if took > busy*5*time.Second {
			t.Errorf("%s took %s, want at most 5s on a machine that is idle", what, took)
		}
	}
	if r.Restart > busy*time.Second {
		t.Errorf("the first answer from the snapshot took %s, want at most 1s on a machine that is idle", r.Restart)
	}
	if text, stale := fault.Stale(r.Snapshot); !stale || text == "" {
		t.Errorf("the answer from the snapshot says %q of its age, want EDE 3 with text:\n%s", text, r.Snapshot)
	}
	for _, rr := range r.Snapshot.Answer {
		if rr.(*dns.A).Hdr.Ttl > 5 {
			t.Errorf("an answer from the snapshot has TTL %d, want 5 at most", rr.Header().Ttl)
		}
	}
}
