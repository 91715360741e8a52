package pool

import (
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// Passive is what a proxy has seen of one instance.
type Passive struct {
	Source   registry.SourceID
	Service  string
	Instance string
	// Factor multiplies the instance's weight from now on, in DNS as in the
	// proxies; 1 takes that back, 0 leaves it as it is.
	Factor float64
	// Failed says that a request has failed, Silent that one has waited for its
	// answer for long: the instance's checks come sooner, after a silence those of
	// other servers too.
	Failed, Silent bool
}

// ObservePassive takes what a proxy has seen. It never blocks; several
// observations of one instance before the writer comes to them are one. It has
// no say in whether an instance is in: that is for its checks, which it brings
// nearer.
func (p *Pool) ObservePassive(o Passive) {
	k := passiveKey{o.Source, o.Service, o.Instance}
	p.mu.Lock()
	seen := p.passive[k]
	if o.Factor != 0 {
		seen.factor = o.Factor
	}
	seen.failed = seen.failed || o.Failed
	seen.silent = seen.silent || o.Silent
	p.passive[k] = seen
	p.mu.Unlock()
	p.wakeWriter()
}

// passiveKey names an instance, and passiveSeen is what was seen of it. The map
// of them is bounded by the instances that the proxies know of.
type passiveKey struct {
	source            registry.SourceID
	service, instance string
}

type passiveSeen struct {
	factor         float64 // 0: none was told
	failed, silent bool
}

// seePassive applies an observation; one of an instance that is gone is
// nothing.
func (w *writer) seePassive(k passiveKey, seen passiveSeen, now time.Time) {
	src := w.sources[k.source]
	if src == nil {
		return
	}
	s := src.services[k.service]
	if s == nil {
		return
	}
	at, there := s.find(k.instance)
	if !there {
		return
	}
	in := &s.insts[at]
	if seen.failed || seen.silent {
		output := "a request through the proxy failed"
		if !seen.failed {
			output = "a request through the proxy waits for its answer"
		}
		if seen.silent {
			w.saySilent(s, in, output, now)
		}
		for id := range in.targets() {
			if t := w.targets.checker.Target(id); t.Type != health.TypeTTL { // whose reports are verdicts
				w.targets.checker.Report(t, health.Result{Output: output, Load: -1})
			}
		}
	}
	if f := float32(seen.factor); f != 0 && f != in.passive() {
		in.remember().passive = f
		w.mark(s)
	}
}
