package dispatch

import (
	"math"
	"time"

	"github.com/musterdns/muster/lb/pool"
)

const (
	// SilentAfter is the least time that an answer has to be waited for before
	// that is a sign: half of health's usual interval between checks, and longer
	// than most answers take.
	SilentAfter = time.Second
	// silentTimes is how many times as long as its answers lately took an
	// instance may be silent: of one that is asked for long polls it is no sign
	// that it answers when there is something to say.
	silentTimes = 2
	// silentEvery is how often an instance's silence is told at most, so that
	// long polls that are all alike cost a check a second and no more.
	silentEvery = time.Second
)

// Patience is how long an answer of the instance may be waited for before that
// is a sign: SilentAfter, and twice what its answers lately took.
func (c Choice) Patience() time.Duration {
	usual := time.Duration(math.Float64frombits(c.i.load.Cost.Load()) * float64(time.Second))
	return max(SilentAfter, silentTimes*usual)
}

// Silent says that an answer has been waited for since waited; true: that is
// longer than the instance's Patience, and it was told, so that there is nothing
// more to say of this wait. It brings the instance's checks nearer, which find
// out whether it hangs (it accepts, and its kernel acknowledges, but nothing
// comes) or takes its time. It is no failure: it counts for no ejection and
// changes no weight.
func (c Choice) Silent(waited time.Duration, now time.Time) bool {
	if waited < c.Patience() {
		return false
	}
	i, b := c.i, c.i.b
	ns, told := now.UnixNano(), i.toldSilent.Load()
	if ns-told < int64(silentEvery) || !i.toldSilent.CompareAndSwap(told, ns) {
		return true // by another
	}
	b.d.counts.silences.Add(1)
	b.d.cfg.Pool.ObservePassive(pool.Passive{Source: i.home.service.source, Service: i.home.service.name, Instance: i.home.id, Silent: true})
	return true
}
