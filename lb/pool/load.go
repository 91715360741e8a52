package pool

import (
	"math"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/registry"
)

// loadFreshMin is how long a load report is used at least. Reporters send every
// few seconds; a service with a long TTL looks back four of them.
const loadFreshMin = 30 * time.Second

// loadTTLs is the number of TTLs that a report is used, and loadHalfLives the
// number in which the smoothed load forgets half: below two, weights would
// chase their own effect.
const (
	loadTTLs      = 4
	loadHalfLives = 2
)

// ttlDuration is the service's TTL.
func (s *settings) ttlDuration() time.Duration { return time.Duration(s.ttl) * time.Second }

// fresh reports whether a report counts at the time now.
func (s *settings) fresh(r *registry.Load, now time.Time) bool {
	return now.Sub(r.At) <= max(loadFreshMin, loadTTLs*s.ttlDuration())
}

// utilisation is what a report says of how full an instance is; false when it
// says nothing.
func utilisation(r *registry.Load) (float64, bool) {
	switch {
	case r.Load >= 0:
		return r.Load, true
	case r.Active >= 0 && r.Capacity > 0:
		return float64(r.Active) / float64(r.Capacity), true
	default:
		return 0, false
	}
}

// putLoad notes a load report. It touches the shared counters alone; the
// service's weights follow once a TTL.
func (w *writer) putLoad(src *source, r *registry.Load) {
	s := w.service(src, r.Service)
	l := s.loads[r.Instance]
	if l == nil {
		if s.loads == nil {
			s.loads = map[string]*load{}
		}
		l = &load{smoothed: math.NaN(), factor: 1, shared: &lb.Load{}}
		s.loads[r.Instance] = l
		s.retune = true // its endpoint gets the shared counters
		w.mark(s)
	}
	if u, ok := utilisation(r); ok {
		half := loadHalfLives * s.settings.ttlDuration()
		l.smoothed = lb.SmoothLoad(l.smoothed, u, r.At.Sub(l.report.At), half)
		l.shared.EWMA.Store(math.Float64bits(l.smoothed))
	}
	l.report = *r
	l.round = src.round
	if s.settings.kind == policyLeastLoaded && s.stepAt == 0 {
		s.stepAt = r.At.Add(s.settings.ttlDuration()).UnixNano()
		w.schedule(s, s.stepAt)
	}
}

// schedule makes sure that s is looked at by the time at.
func (w *writer) schedule(s *svc, at int64) {
	if s.heapAt == 0 || at < s.wakeAt {
		w.timers.set(s, at)
	}
}

// observe takes a load that came with a check.
func (w *writer) observe(id health.ID, u float64, now time.Time) {
	for s := range w.targets.users(id) {
		for i := range s.insts {
			for t := range s.insts[i].targets() {
				if t == id {
					w.putLoad(s.src, &registry.Load{
						Service: s.name, Instance: string(s.insts[i].rec.id()), Load: u, Active: -1, At: now,
					})
				}
			}
		}
	}
}

// stepLoads moves the load factors of a least-loaded service on, once a TTL,
// for as long as they are not all at rest.
func (w *writer) stepLoads(s *svc, now time.Time) {
	if s.settings.kind != policyLeastLoaded {
		s.stepAt = 0
		return
	}
	if s.stepAt == 0 || s.stepAt > now.UnixNano() {
		return
	}
	factors, loads := make([]float64, len(s.insts)), make([]float64, len(s.insts))
	active := false
	for i := range s.insts {
		factors[i], loads[i] = 1, math.NaN()
		if l := s.loads[string(s.insts[i].rec.id())]; l != nil {
			factors[i] = l.factor
			if s.settings.fresh(&l.report, now) {
				loads[i] = l.smoothed
			}
			active = active || l.factor != 1 || !math.IsNaN(loads[i])
		}
	}
	lb.StepLoadFactors(factors, loads)
	for i := range s.insts {
		if l := s.loads[string(s.insts[i].rec.id())]; l != nil {
			l.factor = factors[i]
		}
	}
	s.stepAt = 0
	if active {
		s.stepAt = now.Add(s.settings.ttlDuration()).UnixNano()
	}
}
