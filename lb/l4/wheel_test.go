//go:build linux

package l4_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb/l4"
)

// TestWheel_FiresWhenItIsTime: with whatever is set, moved and removed, and woken
// when Next says or by something else, a timer fires at its deadline or at most
// a tick later, and none that was removed.
func TestWheel_FiresWhenItIsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start"))
		w := l4.NewWheel(now)
		const n = 20
		var timers [n]*l4.Timer
		var deadlines [n]time.Duration // 0: not set
		for i := range timers {
			timers[i] = l4.NewTimer(func(at time.Duration) time.Duration {
				switch d := deadlines[i]; {
				case d == 0:
					t.Errorf("timer %d fires at %s, and is not set", i, at)
				case at < d: // looked at before its time: it says how long there is
					return d
				}
				deadlines[i] = 0
				return 0
			})
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "timer")
			switch rapid.IntRange(0, 3).Draw(t, "action") {
			case 0:
				deadlines[i] = now + time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "in"))
				w.Set(timers[i], deadlines[i])
			case 1:
				deadlines[i] = 0
				w.Remove(timers[i])
			case 2: // something else wakes
				step := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "step"))
				if next := w.Next(); next >= 0 {
					step = min(step, max(0, next-now))
				}
				now += step
				w.Advance(now)
			case 3:
				if next := w.Next(); next >= 0 {
					now = max(now, next)
					w.Advance(now)
				}
			}
			for i, d := range deadlines {
				if d > 0 && now >= d+l4.WheelTick {
					t.Fatalf("at %s timer %d has not fired, deadline %s; next is %s", now, i, d, w.Next())
				}
			}
			if some := w.Next() >= 0; some != anySet(deadlines[:]) {
				t.Fatalf("Next says %s with %v set", w.Next(), deadlines)
			}
		}
	})
}

func anySet(deadlines []time.Duration) bool {
	for _, d := range deadlines {
		if d > 0 {
			return true
		}
	}
	return false
}
