package pool

import (
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/health"
)

// TimeBounds are the upper ends of the classes that Times counts by: from what
// is known at once over the checks' usual times to what is kept on purpose.
func TimeBounds() [timeClasses]time.Duration {
	return [...]time.Duration{
		time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
		500 * time.Millisecond, time.Second, 2 * time.Second, 3500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
	}
}

const timeClasses = 14 // of TimeBounds

// Times is how long something took, by class.
type Times struct {
	Within []uint64 // how often it took no longer than each of TimeBounds
	Count  uint64
	Sum    time.Duration
}

// FailureTimes is how long wrong answers went on after failures of one cause.
type FailureTimes struct {
	Cause string // Failure.Label
	Wrong Times  // from the first sign
	Bound Times  // from the last good check, where there was one
}

// FailureTimes returns the times of every cause that there has been, since the
// pool was made. It is safe for concurrent use.
func (p *Pool) FailureTimes() []FailureTimes {
	var list []FailureTimes
	add := func(label string, t *failureTimes) {
		if wrong := t.wrong.read(); wrong.Count > 0 {
			list = append(list, FailureTimes{label, wrong, t.bound.read()})
		}
	}
	f := &p.counts.failures
	for kind := range f.byCheck {
		add((&Failure{Cause: CauseCheck, Check: health.Type(kind)}).Label(), &f.byCheck[kind])
	}
	for cause := range f.byCause {
		add(Cause(cause).String(), &f.byCause[cause])
	}
	return list
}

// failureCounts counts failures: byCheck those with CauseCheck, byCause others.
type failureCounts struct {
	byCheck [health.TypeExec + 1]failureTimes
	byCause [causes]failureTimes
}

type failureTimes struct{ wrong, bound times }

func (c *failureCounts) add(f *Failure) {
	t := &c.byCause[f.Cause]
	if f.Cause == CauseCheck {
		t = &c.byCheck[f.Check]
	}
	t.wrong.add(f.Wrong)
	if f.Bound > 0 {
		t.bound.add(f.Bound)
	}
}

// times is Times as it is kept: the last class is of what took longer than all
// bounds.
type times struct {
	classes [timeClasses + 1]atomic.Uint64
	nanos   atomic.Int64
}

func (t *times) add(d time.Duration) {
	class := timeClasses
	for i, bound := range TimeBounds() {
		if d <= bound {
			class = i
			break
		}
	}
	t.classes[class].Add(1)
	t.nanos.Add(int64(d))
}

// read returns what is counted. Count is of the classes, so that it is no less
// than any of Within.
func (t *times) read() Times {
	out := Times{Within: make([]uint64, timeClasses), Sum: time.Duration(t.nanos.Load())}
	for i := range t.classes {
		out.Count += t.classes[i].Load()
		if i < timeClasses {
			out.Within[i] = out.Count
		}
	}
	return out
}
