//go:build linux

package l4

import "time"

// Wheel is the timer wheel, for its test.
type Wheel struct{ w *wheel }

// WheelTick is how exact it is.
const WheelTick = time.Duration(wheelTick)

// NewWheel makes one.
func NewWheel(now time.Duration) Wheel { return Wheel{newWheel(int64(now))} }

// Timer is one timer of a Wheel.
type Timer struct{ t timer }

// NewTimer makes a timer that calls f, which returns the next deadline.
func NewTimer(f func(now time.Duration) time.Duration) *Timer {
	return &Timer{timer{owner: expireFunc(f)}}
}

type expireFunc func(now time.Duration) time.Duration

func (f expireFunc) expire(now int64) int64 { return int64(f(time.Duration(now))) }

// Set, Remove, Advance and Next are the wheel's own.
func (w Wheel) Set(t *Timer, deadline time.Duration) { w.w.set(&t.t, int64(deadline)) }
func (w Wheel) Remove(t *Timer)                      { w.w.remove(&t.t) }
func (w Wheel) Advance(now time.Duration)            { w.w.advance(int64(now)) }
func (w Wheel) Next() time.Duration                  { return time.Duration(w.w.next()) }
