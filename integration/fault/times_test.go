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
	late := lateness(t)
	times, err := fault.Put(t.Context(), newLab(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	// Half, not nearly all: other tests use the cores too. The benchmark looks
	// at the rest.
	half(t, 10*time.Millisecond, times, late())
}

func TestLease_LostIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	late := lateness(t)
	times, err := fault.Lease(t.Context(), newLab(t), 11)
	if err != nil {
		t.Fatal(err)
	}
	half(t, 10*time.Millisecond, times, late())
}

// What is known at once is given a second here, on a machine that is busy. What
// the server tells of it is to agree with what the client saw: no more from the
// first sign, and no less from the last good check, but for the time that a busy
// machine takes from the one to the other.
func TestCrash_OfAnInstanceIsAnsweredInTime(t *testing.T) {
	for _, d := range fault.Deaths() {
		t.Run(d.Title, func(t *testing.T) {
			t.Parallel()
			crashes, err := fault.Crash(t.Context(), newLab(t), d, 3, 1)
			within(t, busy*max(d.Limit, time.Second), crashes.Saw(), err)
			const look = busy * 250 * time.Millisecond
			for _, c := range crashes {
				t.Logf("a client was answered wrongly for %v; the server tells of %v from the first sign, %v from the last good check", c.Saw, c.Told.Wrong, c.Told.Bound)
				if c.Told.Wrong > c.Saw+look || c.Told.Bound > 0 && c.Told.Bound < c.Saw-look {
					t.Error("they do not agree")
				}
				if checked := d.Checks != `[]`; checked != (c.Told.Bound > 0) {
					t.Error("a bound is to be there where there is a check, and only there")
				}
			}
		})
	}
}

// TestCrash_IsSeenBehindCachesWithinTheTTL asks caches, which may go on for the TTL that
// was sent and no longer. A client that was served late on a busy machine is given 2 s.
func TestCrash_IsSeenBehindCachesWithinTheTTL(t *testing.T) {
	t.Parallel()
	caches := fault.Caches()
	crashes, err := fault.Crash(t.Context(), newLab(t), fault.Deaths()[0], 4, 1, caches...)
	if err != nil {
		t.Fatal(err)
	}
	if ttl := crashes.TTL(); ttl != 5*time.Second {
		t.Errorf("the TTL sent is %s, want the default of 5s", ttl)
	}
	for i, w := range caches {
		beyond := crashes.Beyond(i)
		t.Logf("%s: %s after Muster's last wrong answer (that was %s)", w.Name, beyond, crashes.Saw())
		if most := crashes.Bound(w) + 2*time.Second; beyond.Max() > most {
			t.Errorf("%s the killed instance is answered for %s after Muster's last wrong answer, want at most %s", w.Name, beyond.Max(), most)
		}
		// Once in a hundred million runs all of them die as it expires.
		if beyond.Max() < 50*time.Millisecond {
			t.Errorf("%s nothing is answered from the cache: the test has shown nothing", w.Name)
		}
	}
}
