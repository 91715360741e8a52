package limit_test

import (
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/lb/l7/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLimiter_Take(t *testing.T) {
	now := time.Unix(1e9, 0)
	take := func(l *limit.Limiter, key string, n int) (ok int, wait time.Duration) {
		for range n {
			good, w := l.Take(key, now)
			if good {
				ok++
			}
			wait = w
		}
		return ok, wait
	}
	t.Run("a burst, then the rate", func(t *testing.T) {
		l := limit.New(10, 5, new(atomic.Uint64))
		if ok, wait := take(l, "a", 20); ok != 5 || wait != 100*time.Millisecond {
			t.Errorf("%d taken and %s to wait, want 5 and 100ms", ok, wait)
		}
		now = now.Add(time.Second / 2)
		if ok, _ := take(l, "a", 20); ok != 5 {
			t.Errorf("%d taken after half a second, want 5", ok)
		}
		now = now.Add(time.Hour)
		if ok, _ := take(l, "a", 20); ok != 5 {
			t.Errorf("%d taken after an hour, want the burst of 5", ok)
		}
	})
	t.Run("keys do not share", func(t *testing.T) {
		l := limit.New(1, 0, new(atomic.Uint64))
		if ok, _ := take(l, "a", 3); ok != 1 {
			t.Errorf("a took %d, want one second's worth", ok)
		}
		if !l.Would("b", now) || l.Would("a", now) {
			t.Error("Would is not what Take would")
		}
		if ok, _ := take(l, "b", 3); ok != 1 {
			t.Errorf("b took %d, want 1", ok)
		}
	})
	t.Run("a rate below one a second", func(t *testing.T) {
		l := limit.New(0.1, 0, new(atomic.Uint64))
		if ok, wait := take(l, "a", 2); ok != 1 || wait != 10*time.Second {
			t.Errorf("%d taken and %s to wait, want 1 and 10s", ok, wait)
		}
	})
	t.Run("a clock that goes back gives nothing", func(t *testing.T) {
		l := limit.New(1, 1, new(atomic.Uint64))
		take(l, "a", 1)
		if ok, _ := l.Take("a", now.Add(-time.Hour)); ok {
			t.Error("a token was made of a time before")
		}
	})
}

// TestLimiter/the table is bounded, and who is seen often is not forgotten.
func TestLimiter_IsBounded(t *testing.T) {
	var evicted atomic.Uint64
	l, now := limit.New(0.001, 1, &evicted), time.Unix(1e9, 0)
	l.Take("regular", now)
	for i := range 4 * limit.KeysMax {
		l.Take(strconv.Itoa(i), now)
		if i%1000 == 0 {
			if ok, _ := l.Take("regular", now); ok {
				t.Fatal("a key that is seen often was forgotten")
			}
		}
	}
	known := l.Keys()
	if known > limit.KeysMax || evicted.Load() == 0 {
		t.Errorf("%d keys are known and %d were forgotten, want at most %d", known, evicted.Load(), limit.KeysMax)
	}
}

// TestLimiter_KeepsNoHeads: keys are parts of heads, and may be as long.
// Cause: each key kept the head that it was cut from, 2 GiB in a full table.
func TestLimiter_KeepsNoHeads(t *testing.T) {
	const n, size = 2000, 32 << 10
	l, now := limit.New(0.001, 1, new(atomic.Uint64)), time.Unix(1e9, 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		head := strconv.Itoa(i) + " " + strings.Repeat("x", size)
		key, _, _ := strings.Cut(head, " ")
		l.Take(key, now)
		l.Take(head, now)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > n*size/8 {
		t.Errorf("%d keys hold %d KiB", 2*n, grown>>10)
	}
	for _, key := range []string{"7", "7 " + strings.Repeat("x", size)} {
		if ok, _ := l.Take(key, now); ok || l.Would(key, now) {
			t.Errorf("%.8s is forgotten", key)
		}
	}
}

func BenchmarkLimiter_Take(b *testing.B) {
	l, now := limit.New(1e9, 1e6, new(atomic.Uint64)), time.Now()
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	for i := 0; b.Loop(); i++ {
		l.Take(keys[i%len(keys)], now)
	}
}
