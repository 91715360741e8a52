package dispatch

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
)

// An ejection lasts ejectFor times the number of ejections, at most ejectMax
// (Envoy's base_ejection_time and max_ejection_time); the number goes down with
// each round without a failure.
const (
	ejectFor = 30 * time.Second
	ejectMax = 300 * time.Second
	// ejectedFactor is what is left of an ejected instance's weight in DNS:
	// what a proxy sees is no verdict.
	ejectedFactor = 0.10
)

// The states of an ejection.
const (
	ejectNone  uint32 = iota
	ejectOut          // not asked until its time is over
	ejectTrial        // one request may try it
	ejectBusy         // that request is under way
)

// ejection is whether an instance is ejected. Zero is that it is not.
type ejection struct {
	state atomic.Uint32
	until atomic.Int64 // ns since 1970
	times atomic.Int32
}

// out reports whether the instance is not to be asked at all.
func (e *ejection) out() bool { return e.state.Load() == ejectOut }

// admit reports whether a request may go to the instance, and whether it is
// the trial.
func (e *ejection) admit() (trial, ok bool) {
	switch e.state.Load() {
	case ejectNone:
		return false, true
	case ejectTrial:
		ok = e.state.CompareAndSwap(ejectTrial, ejectBusy)
		return ok, ok
	default:
		return false, false
	}
}

// due lets an instance whose time is over have its trial.
func (e *ejection) due(now time.Time) bool {
	return now.UnixNano() >= e.until.Load() && e.state.CompareAndSwap(ejectOut, ejectTrial)
}

// round judges the instances by what became of their requests. last ends the
// round; without it only failures in a row count.
func (b *Backend) round(now time.Time, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forgotten {
		return
	}
	st := b.now.Load()
	list := make([]*instance, 0, len(st.byID))
	samples := make([]lb.OutlierSample, 0, len(st.byID))
	for _, i := range st.byID {
		list = append(list, i)
		samples = append(samples, lb.OutlierSample{
			OK: i.okRound.Load(), Failed: i.failedRound.Load(), Row: i.row.Load(), Ejected: i.ejection.state.Load() != ejectNone,
		})
	}
	rule := b.d.outlier
	if !last {
		rule.FailurePercent, rule.Deviations = 0, 0
	}
	for _, n := range lb.Outliers(samples, rule) {
		b.eject(list[n], now)
	}
	if !last {
		return
	}
	for n, i := range list {
		i.okRound.Store(0)
		i.failedRound.Store(0)
		if times := i.ejection.times.Load(); times > 0 && samples[n].Failed == 0 && !samples[n].Ejected {
			i.ejection.times.Store(times - 1)
		}
	}
}

// eject takes an instance out of the choice for a while.
func (b *Backend) eject(i *instance, now time.Time) {
	times := i.ejection.times.Add(1)
	d := min(ejectFor*time.Duration(times), ejectMax)
	i.ejection.until.Store(now.Add(d).UnixNano())
	i.ejection.state.Store(ejectOut)
	row := i.row.Swap(0)
	b.epoch.Add(1)
	i.ejections.Add(1)
	b.d.counts.ejections.Add(1)
	b.tellFactor(i, ejectedFactor)
	b.d.log.Warn("instance ejected: its requests fail", slog.String("service", b.ref.Service), slog.String("instance", i.id),
		slog.Duration("for", d), slog.Int("in_a_row", int(row)), slog.Int("ok", int(i.okRound.Load())), slog.Int("failed", int(i.failedRound.Load())))
}

// endTrial takes the outcome of the request that tried an ejected instance.
func (b *Backend) endTrial(i *instance, r Result, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case i.ejection.state.Load() != ejectBusy:
	case r == Unjudged:
		i.ejection.state.Store(ejectTrial)
	case r == OK:
		b.restore(i, "its trial request was answered")
	default:
		b.eject(i, now)
	}
}

// restore takes an ejection back. b.mu is held.
func (b *Backend) restore(i *instance, why string) {
	if i.ejection.state.Swap(ejectNone) == ejectNone {
		return
	}
	i.row.Store(0)
	b.d.counts.returns.Add(1)
	b.tellFactor(i, 1)
	b.d.log.Info("instance's ejection is over", slog.String("service", b.ref.Service), slog.String("instance", i.id), slog.String("reason", why))
}

// forgive takes all ejections back when nobody uses the Backend any more. Who
// chooses by it even so ejects none: nobody would take that back.
func (b *Backend) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgotten = true
	for _, i := range b.instances {
		b.restore(i, "nothing is forwarded to the service any more")
	}
}

// tellFactor has the pool change an instance's weight.
func (b *Backend) tellFactor(i *instance, factor float64) {
	b.d.cfg.Pool.ObservePassive(pool.Passive{Source: i.home.service.source, Service: i.home.service.name, Instance: i.home.id, Factor: factor})
}

// ejected counts the instances that are ejected, on trial included.
func (b *Backend) ejected() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, i := range b.instances {
		if i.ejection.state.Load() != ejectNone {
			n++
		}
	}
	return n
}
