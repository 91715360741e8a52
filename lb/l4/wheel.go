//go:build linux

package l4

import "math/bits"

const (
	// wheelTick is how exact timeouts are, ns: none here is under a second in
	// earnest.
	wheelTick = int64(100e6)
	// wheelSlots is how many ticks ahead the wheel sees. A deadline farther away
	// is looked at once a turn.
	wheelSlots = 256
)

// expirer is what a timer belongs to. expire is called when the deadline may
// have come; it returns the deadline that holds now, and 0 if the timer is not
// to be kept (it may have been removed by then).
type expirer interface {
	expire(now int64) (deadline int64)
}

// timer is an entry of a wheel. Activity need not move it: expire says how long
// there still is.
type timer struct {
	next, prev *timer // nil: not in the wheel
	owner      expirer
	slot       uint8
}

// wheel is a timer wheel of intrusive lists: adding and removing cost a few
// instructions however many there are. Times are ns since any fixed moment.
type wheel struct {
	slots [wheelSlots]timer // heads of the lists
	busy  [wheelSlots / 64]uint64
	at    int64 // the last tick that was seen to
}

func newWheel(now int64) *wheel {
	w := &wheel{at: now / wheelTick}
	for i := range w.slots {
		w.slots[i].next, w.slots[i].prev = &w.slots[i], &w.slots[i]
	}
	return w
}

// set puts a timer where it fires at its deadline, wherever it was before.
func (w *wheel) set(t *timer, deadline int64) {
	w.remove(t)
	tick := (deadline + wheelTick - 1) / wheelTick
	tick = min(max(tick, w.at+1), w.at+wheelSlots-1)
	t.slot = uint8(tick % wheelSlots)
	head := &w.slots[t.slot]
	t.next, t.prev = head, head.prev
	t.prev.next, head.prev = t, t
	w.busy[t.slot/64] |= 1 << (t.slot % 64)
}

// remove takes a timer out, if it is in.
func (w *wheel) remove(t *timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	if head := &w.slots[t.slot]; head.next == head {
		w.busy[t.slot/64] &^= 1 << (t.slot % 64)
	}
}

// advance calls the owners of all timers whose time has come.
func (w *wheel) advance(now int64) {
	to := now / wheelTick
	for from := w.at; w.at < to; {
		w.at++
		if w.at-from > wheelSlots {
			w.at = to // all slots were seen to
			return
		}
		head := &w.slots[w.at%wheelSlots]
		for t := head.next; t != head; t = head.next {
			w.remove(t) // what is set again goes to another slot
			if deadline := t.owner.expire(now); deadline != 0 {
				w.set(t, deadline)
			}
		}
	}
}

// next is when advance may have something to do; -1: never.
func (w *wheel) next() int64 {
	from := uint8((w.at + 1) % wheelSlots)
	for i := range len(w.busy) + 1 {
		word := (int(from)/64 + i) % len(w.busy)
		set := w.busy[word]
		switch i {
		case 0:
			set &^= 1<<(from%64) - 1
		case len(w.busy):
			set &= 1<<(from%64) - 1
		}
		if set != 0 {
			slot := uint8(word*64 + bits.TrailingZeros64(set))
			return (w.at + 1 + int64(slot-from)) * wheelTick
		}
	}
	return -1
}
